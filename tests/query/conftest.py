"""A ledger with a query, on each database."""

from collections.abc import Iterator

import pytest

from ledger.clock import ManualClock
from ledger.opening import open_ledger
from projections.query.query import Query
from tests.support.questions import START, QueryLedger


@pytest.fixture
def bench(database_url: str) -> Iterator[QueryLedger]:
    clock = ManualClock(START)
    with open_ledger(database_url, create=True, clock=clock, origin="test.example") as ledger:
        yield QueryLedger(ledger, clock, Query(ledger))
