"""A new ledger for each test, with events of every kind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from projections.query.query import Query
from tests.audit.report.making import populate
from tests.support.ledgers import open_with_clock
from tests.support.questions import NOON, START, QueryLedger


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[QueryLedger]:
    ledger, clock = open_with_clock(f"sqlite:///{tmp_path / 'ledger.db'}", START)
    with ledger:
        bench = QueryLedger(ledger, clock, Query(ledger))
        populate(bench)
        clock.now_us = NOON + 10**13
        yield bench
