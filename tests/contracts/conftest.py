"""A new ledger on each database, its clock, and its stored timelines."""

from collections.abc import Iterator

import pytest

from ledger.clock import ManualClock
from ledger.opening import open_ledger
from ledger.store import Ledger
from projections.timelines.store import TimelineStore, open_timelines
from tests.support.ledgers import NOW, ORIGIN


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def ledger(database_url: str, clock: ManualClock) -> Iterator[Ledger]:
    with open_ledger(database_url, create=True, clock=clock, origin=ORIGIN) as ledger:
        yield ledger


@pytest.fixture
def store(ledger: Ledger) -> TimelineStore:
    return open_timelines(ledger)
