"""A head of PostgreSQL that moves between the guard, which looks before the append lock, and the lock itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from ledger.diagnosis import acknowledge_clock
from ledger.errors import ClockBehind, LedgerWentBack
from ledger.store import Ledger
from ledger.times import DAY, SECOND
from tests.support.going_back import delete_tail
from tests.support.ledgers import GENESIS, NOW, OPERATOR, change, key, open_with_clock, submit

YEAR = 365 * DAY
_WAITING = (
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


@contextmanager
def behind_the_lock(ledger: Ledger, holder: Ledger, url: str, **more: Any) -> Iterator[Future[Any]]:
    """A submission to `ledger` that has passed the guard and waits for the lock, which `holder` has in the block."""
    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(url, autocommit=True) as watching,
        holder.recorder.exclusive(),
    ):
        waiting = pool.submit(submit, ledger, change("org:waits"), **more)
        deadline = time.monotonic() + 20
        while not watching.execute(_WAITING).fetchone()[0]:  # type: ignore[index]  # a row
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield waiting


@pytest.mark.parametrize("acknowledged", [False, True])
@pytest.mark.parametrize("ahead_us", [60 * SECOND, 60 * SECOND + 1, 365 * DAY])
def test_a_head_that_another_clock_moved_ahead_meanwhile(postgres_url: str, ahead_us: int, acknowledged: bool) -> None:
    """Also after an earlier stretch that an operator acknowledged, which covers nothing but itself."""
    ledger, clock = open_with_clock(postgres_url, NOW - YEAR)
    holder, ahead = open_with_clock(postgres_url, NOW - YEAR)
    with ledger, holder:
        if acknowledged:
            clock.now_us = NOW - YEAR + DAY
            submit(ledger, change())
            clock.now_us = NOW - YEAR
            acknowledge_clock(ledger, "a day ahead", OPERATOR)
        clock.now_us = NOW
        submit(ledger, change())
        with behind_the_lock(ledger, holder, postgres_url) as waiting:
            ahead.now_us = NOW + ahead_us
            (last,) = submit(holder, change("org:ahead"))
        if ahead_us == 60 * SECOND:
            (receipt,) = waiting.result()
            assert receipt.recorded_at == last.recorded_at + 1
            return
        with pytest.raises(ClockBehind) as refused:
            waiting.result()
        assert refused.value.members["position"] == last.position
        assert ledger.head().position == last.position


@pytest.mark.parametrize("keyed", [False, True])
def test_a_ledger_that_went_back_meanwhile(postgres_url: str, keyed: bool) -> None:
    """Its position was acknowledged a second time."""
    ledger, _ = open_with_clock(postgres_url)
    holder, _ = open_with_clock(postgres_url)
    with ledger, holder:
        receipts = [submit(ledger, change(f"org:o{number}"))[0] for number in range(3)]
        idempotency = {"idempotency": key("k")} if keyed else {}
        with behind_the_lock(ledger, holder, postgres_url, **idempotency) as waiting:
            delete_tail(postgres_url, GENESIS + 1)
        with pytest.raises(LedgerWentBack) as refused:
            waiting.result()
        assert refused.value.members["remembered_position"] == receipts[-1].position
        assert ledger.head().position == GENESIS + 1
        with psycopg.connect(postgres_url) as connection:
            assert connection.execute("SELECT count(*) FROM inforce.submissions").fetchone() == (0,)
