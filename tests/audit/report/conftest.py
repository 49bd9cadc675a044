"""A ledger of its own for each test, with something of every kind in it."""

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
        made = Bench(ledger, clock, Query(ledger))
        populate(made)
        clock.now_us = NOON + 10**13
        yield made
