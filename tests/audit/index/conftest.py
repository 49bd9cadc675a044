"""The ledgers here are small, and are to be read by the code that reads large ones."""

import pytest


@pytest.fixture(autouse=True)
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.audit.numba_support.FEW", 0)
