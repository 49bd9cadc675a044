"""The ledgers of these tests are small, but the code for large ones reads them."""

import pytest


@pytest.fixture(autouse=True)
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.audit.numba_support.FEW", 0)
