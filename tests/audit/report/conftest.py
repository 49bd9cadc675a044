"""A new ledger for each test, with events of every kind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from projections.query.query import Query
from tests.audit.report.making import populate
from tests.support.asking import BEGUN, NOON, Bench
from tests.support.ledgers import opened


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    ledger, clock = opened(f"sqlite:///{tmp_path / 'ledger.db'}", BEGUN)
    with ledger:
        bench = Bench(ledger, clock, Query(ledger))
        populate(bench)
        clock.now_us = NOON + 10**13
        yield bench
