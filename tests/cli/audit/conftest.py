"""The small ledger of these tests, as a fixture."""

import pytest

from tests.cli.audit.logs import fill
from tests.support.command import Inforce


@pytest.fixture
def ledger(inforce: Inforce) -> Inforce:
    return fill(inforce)


@pytest.fixture
def ledger_on_both(inforce_on_both: Inforce) -> Inforce:
    return fill(inforce_on_both)
