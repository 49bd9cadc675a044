"""Waiting for a position, whoever records it: woken at once, or by the poll if a notification is lost; never early."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import psycopg
import pytest

from ledger import follower
from ledger.errors import LedgerUnavailable, PositionNotReached
from ledger.opening import open_ledger
from ledger.recorders.contract import Watch
from ledger.store import Ledger
from tests.support.ledgers import GENESIS, change, submit
from tests.support.waiting import GIVE_UP_S

LONG_S = 2 * GIVE_UP_S
SHORT_S = 0.05


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "inforce-follow"]


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    yield
    until(lambda: not watchers())


def until(condition: Callable[[], Any], seconds: float = GIVE_UP_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


@contextmanager
def waiting(ledger: Ledger, position: int, timeout_s: float = LONG_S) -> Iterator[Callable[[], float]]:
    """Waits in a thread. The yielded function returns when the wait ends, with the seconds since it was called."""

    def wait() -> float:
        ledger.at_least(position, timeout_s)
        return time.monotonic()

    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(wait)
        until(lambda: waits.done() or ledger.follower._waiters)

        def ended() -> float:
            began = time.monotonic()
            return max(0.0, waits.result(LONG_S) - began)

        yield ended


def test_a_reached_position_needs_no_wait(database_url: str, ledger: Ledger) -> None:
    submit(ledger, change())
    with open_ledger(database_url, clock=ledger.clock) as other:
        for position in (0, 1, GENESIS, GENESIS + 1):
            ledger.at_least(position, 0)
            other.at_least(position, 0)
    assert not watchers()


def test_the_next_position_is_not_reached_and_both_are_named(ledger: Ledger) -> None:
    with pytest.raises(PositionNotReached, match=f"position {GENESIS} and did not reach {GENESIS + 1}") as refusal:
        ledger.at_least(GENESIS + 1, SHORT_S)
    assert (refusal.value.at_least, refusal.value.position) == (GENESIS + 1, GENESIS)
    submit(ledger, change())
    ledger.at_least(GENESIS + 1, 0)
    with pytest.raises(PositionNotReached):
        ledger.at_least(GENESIS + 2, SHORT_S)


def test_an_append_of_this_process_wakes_at_once(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "POLL_S", 2 * LONG_S)
    with waiting(ledger, GENESIS + 1) as ended:
        submit(ledger, change())
        assert ended() < LONG_S / 2


def test_an_append_of_another_process_wakes_too(database_url: str, ledger: Ledger) -> None:
    with open_ledger(database_url, clock=ledger.clock) as other, waiting(ledger, GENESIS + 3) as ended:
        submit(other, change())
        time.sleep(3 * follower.POLL_S)
        assert ledger.follower._waiters, "it is one short of two more"
        submit(other, change(), change("org:b"))
        assert ended() < LONG_S / 2


def test_on_postgresql_a_notification_comes_long_before_the_poll(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "POLL_S", 3600.0)
    with open_ledger(postgres_url, create=True) as ledger, open_ledger(postgres_url) as other:
        for number in range(1, 21):
            with waiting(ledger, GENESIS + number) as ended:
                until(lambda: listening(postgres_url))
                submit(other, change())
                assert ended() < LONG_S / 2


def test_a_notification_that_comes_while_the_head_is_read_is_not_lost(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_ledger(postgres_url, create=True) as ledger, open_ledger(postgres_url) as other:
        watch: Any = ledger.recorder.watch()
        woken, waker = socket.socketpair()
        with woken, waker:
            watch.head()
            submit(other, change())
            # The answer brings the notification with it.
            watch._connection.execute("SELECT 1")
            began = time.monotonic()
            watch.wait(LONG_S, woken)
            assert time.monotonic() - began < LONG_S / 2
            assert watch.head().position == GENESIS + 1
        watch.close()


def test_a_notification_alone_is_not_trusted(postgres_url: str) -> None:
    with open_ledger(postgres_url, create=True) as ledger, psycopg.connect(postgres_url, autocommit=True) as anybody:
        with waiting(ledger, GENESIS + 1, 1.0) as ended:
            for payload in ("", "999999", "nonsense", "-1"):
                anybody.execute("SELECT pg_notify('inforce', %s)", (payload,))
            with pytest.raises(PositionNotReached):
                ended()
        assert ledger.follower.position == GENESIS


def backends(url: str) -> list[tuple[int, str]]:
    with psycopg.connect(url, autocommit=True) as admin:
        return admin.execute(
            "SELECT pid, application_name FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND query <> ''"
        ).fetchall()


def listening(url: str) -> list[int]:
    return [pid for pid, name in backends(url) if name == "inforce follow"]


def another_listens(url: str, than: int) -> bool:
    return any(pid != than for pid in listening(url))


def test_a_broken_watch_is_replaced_and_misses_nothing(postgres_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with open_ledger(postgres_url, create=True) as ledger, open_ledger(postgres_url) as other:
        with ledger.follower.keep_watching():
            for round_ in range(5):
                until(lambda: listening(postgres_url))
                (pid,) = listening(postgres_url)
                with waiting(ledger, GENESIS + 1 + round_) as ended, psycopg.connect(postgres_url) as admin:
                    admin.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
                    submit(other, change())
                    assert ended() < LONG_S / 2
                until(partial(another_listens, postgres_url, pid))
        until(lambda: not listening(postgres_url))
    assert "begins again" in caplog.text
    assert "postgres" not in caplog.text.lower().replace("postgresql", "")


def test_without_a_watch_the_head_is_polled(
    database_url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none_left() -> Watch:
        raise LedgerUnavailable("too many connections")

    monkeypatch.setattr(ledger.recorder, "watch", none_left)
    with open_ledger(database_url, clock=ledger.clock) as other, waiting(ledger, GENESIS + 1) as ended:
        submit(other, change())
        assert ended() < LONG_S / 2
    assert caplog.text.count("too many connections") == 1, "said once, not at every attempt"


def test_many_wait_with_one_thread_and_one_connection(database_url: str, ledger: Ledger) -> None:
    before = len(backends(database_url)) if database_url.startswith("postgresql") else 0

    async def wait_for_all() -> None:
        waits = [asyncio.create_task(ledger.follower.wait_for_async(GENESIS + 1 + n % 3, LONG_S)) for n in range(300)]
        await asyncio.sleep(0.2)
        assert len(watchers()) == 1
        if database_url.startswith("postgresql"):
            assert len(backends(database_url)) == before + 1
        with open_ledger(database_url, clock=ledger.clock) as other:
            for number in range(1, 4):
                await asyncio.to_thread(submit, other, change())
                await asyncio.gather(*(wait for n, wait in enumerate(waits) if n % 3 < number))
                assert all(wait.done() == (n % 3 < number) for n, wait in enumerate(waits))
            until(lambda: not watchers())

    asyncio.run(wait_for_all())


def test_a_waiter_that_gives_up_leaves_nothing_behind(ledger: Ledger) -> None:
    async def give_up() -> None:
        waits = [asyncio.create_task(ledger.follower.wait_for_async(GENESIS + 9, LONG_S)) for _ in range(10)]
        await asyncio.sleep(0.05)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        with pytest.raises(PositionNotReached):
            await ledger.follower.wait_for_async(GENESIS + 1, SHORT_S)

    asyncio.run(give_up())
    assert not ledger.follower._waiters
    until(lambda: not watchers())


def test_a_closed_event_loop_is_ignored(ledger: Ledger) -> None:
    loop = asyncio.new_event_loop()
    wait = loop.create_task(ledger.follower.wait_for_async(GENESIS + 1, LONG_S))
    loop.run_until_complete(asyncio.sleep(0))
    wait.cancel()
    with suppress(asyncio.CancelledError):
        loop.run_until_complete(wait)
    left = ledger.follower._waiting(GENESIS + 1, lambda: follower._wake(loop, asyncio.Event()))
    with left:
        loop.close()
        submit(ledger, change())


def test_waiters_get_an_error_when_the_ledger_is_closed(database_url: str) -> None:
    ledger = open_ledger(database_url, create=True)
    with waiting(ledger, GENESIS + 1) as ended:
        ledger.close()
        with pytest.raises(LedgerUnavailable, match="closed"):
            ended()
    assert not watchers()
    if database_url.startswith("postgresql"):
        until(lambda: not backends(database_url))


def test_keep_watching_reuses_one_watch(database_url: str, ledger: Ledger) -> None:
    async def follow() -> None:
        with ledger.follower.keep_watching():
            (thread,) = watchers()
            for number in range(1, 6):
                wait = asyncio.create_task(ledger.follower.wait_for_async(GENESIS + number, LONG_S))
                with open_ledger(database_url, clock=ledger.clock) as other:
                    await asyncio.to_thread(submit, other, change())
                await wait
                assert watchers() == [thread]

    asyncio.run(follow())
    until(lambda: not watchers())


def test_random_waits_and_timeouts_miss_no_position(database_url: str, ledger: Ledger) -> None:
    """Threads come and go while others record: the watch starts and ends hundreds of times."""
    rounds = 60

    def wait(number: int) -> None:
        for position in range(GENESIS + 1, GENESIS + 1 + rounds):
            with suppress(PositionNotReached):
                ledger.at_least(position, 0.001 * (number % 3))
            ledger.at_least(position, LONG_S)

    with open_ledger(database_url, clock=ledger.clock) as other, ThreadPoolExecutor(6) as pool:
        waits = [pool.submit(wait, number) for number in range(6)]
        for _ in range(rounds):
            submit(other, change())
            time.sleep(0.002)
        for done in waits:
            done.result(60)


@pytest.mark.parametrize("after", [0, 1, 17, 18, 19, 20, 23, 24, 25, 10**17])
def test_the_feed_of_one_subject_begins_after_any_position(ledger: Ledger, after: int) -> None:
    for subject in ("org:a", "org:b", "org:a", "org:b", "org:b", "org:a", "org:a"):
        submit(ledger, change(subject))
    for subject in ("org:a", "org:b", "org:nobody", "catalog:settings"):
        entries = [entry for entry in ledger.stream(subject) if entry.position > after]
        assert ledger.subject_page(subject, after) == entries
        assert ledger.subject_page(subject, after, 2) == entries[:2]
        until_21 = [entry for entry in entries if entry.position <= 21]
        assert ledger.subject_page(subject, after, until=21) == until_21
        version = ledger.recorder.version_at(subject, after)
        assert version == len([entry for entry in ledger.stream(subject) if entry.position <= after])


def test_without_a_thread_a_wait_fails_and_the_next_one_succeeds(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(LedgerUnavailable, match="no thread"), ledger.follower.keep_watching():
            pass
    with pytest.raises(PositionNotReached):
        ledger.at_least(GENESIS + 1, 0.05)
    assert ledger.follower._watchers == 0
