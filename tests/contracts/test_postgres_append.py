"""Appends on PostgreSQL: sessions that end, locks that are waited for, and the notification of listeners."""

import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from ledger.errors import LedgerUnavailable
from ledger.opening import open_ledger
from ledger.receipts import Receipt
from tests.contracts.test_writer import WAIT_S, submitting, until
from tests.support.ledgers import GENESIS, change, define, key, submit
from tests.support.waiting import GIVE_UP_S


def terminate(url: str, query: str) -> int:
    """Ends the other sessions whose last statement is like `query`; answers their number."""
    with psycopg.connect(url, autocommit=True) as admin:
        ended = admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE %s",
            (query,),
        ).fetchall()
    return len(ended)


def test_a_session_that_ended_between_two_appends_is_replaced(postgres_url: str) -> None:
    with open_ledger(postgres_url, create=True) as ledger:
        submit(ledger, change())
        assert terminate(postgres_url, "%append_group%") == 1
        assert submit(ledger, change())[0].version == 2


def test_a_session_that_ends_during_an_append_is_unavailable_and_then_recovers(postgres_url: str) -> None:
    with open_ledger(postgres_url, create=True) as ledger, ThreadPoolExecutor(3) as pool:
        submit(ledger, change())
        with ledger.recorder.exclusive():
            first = submitting(pool, ledger, change("org:a"), idempotency=key("a"))
            others = [submitting(pool, ledger, change("org:b"), idempotency=key(str(number))) for number in range(2)]
            until(lambda: _waits_for_the_lock(postgres_url))
            assert terminate(postgres_url, "%append_group%") == 1
            with pytest.raises(LedgerUnavailable, match="nothing was written"):
                first.result(WAIT_S)
        receipts: list[tuple[Receipt, ...]] = [other.result(WAIT_S) for other in others]
        assert sorted(receipt[0].version for receipt in receipts) == [1, 2]
        assert submit(ledger, change("org:a"), idempotency=key("a"))[0].version == 1


def _waits_for_the_lock(url: str) -> bool:
    with psycopg.connect(url, autocommit=True) as admin:
        waiting = admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event = 'advisory' AND query LIKE '%append_group%'"
        ).fetchone()
    return waiting is not None and waiting[0] > 0


def test_recorded_at_is_the_time_under_the_lock(postgres_url: str) -> None:
    """The clock is read before the statement, and the wait for the lock is added."""
    held_s = 0.3
    with open_ledger(postgres_url, create=True) as ledger, ThreadPoolExecutor(1) as pool:
        submit(ledger, change())
        with ledger.recorder.exclusive():
            waiting = submitting(pool, ledger, change())
            until(lambda: _waits_for_the_lock(postgres_url))
            time.sleep(held_s)
            released = ledger.clock.now()
        (receipt,) = waiting.result(WAIT_S)
        assert released - 50_000 <= receipt.recorded_at <= ledger.clock.now()


def test_a_lock_timeout_is_unavailable(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{admin.info.dbname}" SET lock_timeout = 200')
    with open_ledger(postgres_url, create=True) as ledger, ThreadPoolExecutor(1) as pool:
        with ledger.recorder.exclusive():
            late = pool.submit(submit, ledger, change())
            with pytest.raises(LedgerUnavailable, match="lock timeout; nothing was written"):
                late.result(WAIT_S)
        assert submit(ledger, change())[0].version == 1


def test_every_append_notifies_listeners_of_its_last_position(postgres_url: str) -> None:
    with (
        open_ledger(postgres_url, create=True) as ledger,
        psycopg.connect(postgres_url, autocommit=True) as listener,
    ):
        listener.execute("LISTEN inforce")
        submit(ledger, change(), change())
        submit(ledger, define())
        payloads = [notice.payload for notice in listener.notifies(timeout=GIVE_UP_S, stop_after=2)]
    assert payloads == [str(GENESIS + 2), str(GENESIS + 3)]
