"""A ledger to be asked, on each database."""

from collections.abc import Iterator

import pytest

from ledger.clock import ManualClock
from ledger.opening import open_ledger
from projections.query.query import Query
from tests.support.asking import BEGUN, Bench


@pytest.fixture
def bench(database_url: str) -> Iterator[Bench]:
    clock = ManualClock(BEGUN)
    with open_ledger(database_url, create=True, clock=clock, origin="test.example") as ledger:
        yield Bench(ledger, clock, Query(ledger))
