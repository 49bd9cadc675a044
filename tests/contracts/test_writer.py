"""The writer: all waiting submissions form the next group, none waits for ever, and the queue is bounded."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from ledger.append import group_commit as writing
from ledger.append.group_commit import OPTIMISTIC_ATTEMPTS_MAX, QueuedSubmission
from ledger.append.submissions import parse_submissions
from ledger.drafts import Idempotency
from ledger.errors import InforceError, LedgerBusy, LedgerUnavailable, SubmissionInFlight, VersionConflict
from ledger.opening import open_ledger
from ledger.store import Ledger
from tests.support.ledgers import GENESIS, OPERATOR, change, key, submit
from tests.support.programs import start_programs
from tests.support.waiting import GIVE_UP_S

WAIT_S = GIVE_UP_S


@contextmanager
def held_up(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Holds up the first commit until the block ends. Yields the sizes of the groups, in order."""
    append = ledger.recorder.append
    free = threading.Event()
    sizes: list[int] = []

    def slow(proposals: Sequence[Any], clock: Any) -> Any:
        sizes.append(len(proposals))
        if len(sizes) == 1:
            assert free.wait(WAIT_S)
        return append(proposals, clock)

    monkeypatch.setattr(ledger.recorder, "append", slow)
    try:
        yield sizes
    finally:
        free.set()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def submitting(pool: ThreadPoolExecutor, ledger: Ledger, *bodies: dict[str, Any], **more: Any) -> Future[Any]:
    """Submits in a thread, and returns once the submission waits for its own commit or for the one under way."""
    waiting = ledger.writer.waiting
    future = pool.submit(submit, ledger, *bodies, **more)
    until(lambda: (ledger.writer.waiting > waiting and bool(ledger.writer._group)) or future.done())
    return future


def enqueued(
    ledger: Ledger,
    body: dict[str, Any],
    on_settled: Callable[[Sequence[QueuedSubmission]], None],
    idempotency: Idempotency | None = None,
) -> QueuedSubmission:
    queued = QueuedSubmission(parse_submissions(body), OPERATOR, idempotency, bytes_=100, on_settled=on_settled)
    ledger.writer.enqueue(queued)
    return queued


def test_all_waiting_submissions_form_the_next_group(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(12) as pool:
        with held_up(ledger, monkeypatch) as sizes:
            futures = [submitting(pool, ledger, change(f"org:{number}")) for number in range(12)]
        receipts = [future.result(WAIT_S)[0] for future in futures]
    assert sizes == [1, 11]
    assert [receipt.position for receipt in receipts] == list(range(GENESIS + 1, GENESIS + 13))
    assert len({receipt.recorded_at for receipt in receipts}) == 12
    assert ledger.writer.waiting == 0


def test_a_group_has_at_most_group_max_submissions(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.writer.group_max = 4
    with ThreadPoolExecutor(10) as pool:
        with held_up(ledger, monkeypatch) as sizes:
            futures = [submitting(pool, ledger, change(f"org:{number}")) for number in range(10)]
        assert all(future.result(WAIT_S) for future in futures)
    assert sizes == [1, 4, 4, 1]


def test_a_group_is_bounded_in_events_and_bytes(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "GROUP_EVENTS_MAX", 5)
    with ThreadPoolExecutor(6) as pool:
        with held_up(ledger, monkeypatch) as sizes:
            futures = [submitting(pool, ledger, *(change(f"org:{number}"),) * 2) for number in range(5)]
            futures.append(submitting(pool, ledger, *(change(),) * 9))
        assert all(future.result(WAIT_S) for future in futures)
    assert sizes == [1, 2, 2, 1]


def test_a_single_thread_needs_no_worker(ledger: Ledger) -> None:
    before = threading.active_count()
    for _ in range(3):
        submit(ledger, change())
    assert threading.active_count() == before


def test_each_member_gets_its_own_error(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(4) as pool:
        with held_up(ledger, monkeypatch):
            first = submitting(pool, ledger, change("org:a"))
            good = submitting(pool, ledger, change("org:b"))
            conflict = submitting(pool, ledger, change("org:a", expected_version=7))
            last = submitting(pool, ledger, change("org:a", expected_version=1))
        assert [future.result(WAIT_S)[0].version for future in (first, good, last)] == [1, 1, 2]
        with pytest.raises(VersionConflict) as refusal:
            conflict.result(WAIT_S)
        assert refusal.value.actual == 1


def test_a_callback_is_called_once_a_group(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Sequence[QueuedSubmission]] = []
    with held_up(ledger, monkeypatch):
        first = enqueued(ledger, change("org:0"), calls.append)
        until(lambda: bool(ledger.writer._group))
        tell = calls.append
        group = [enqueued(ledger, change(f"org:{number}"), tell, idempotency=key(str(number))) for number in range(8)]
        with pytest.raises(SubmissionInFlight):
            enqueued(ledger, change("org:0"), tell, idempotency=key("0"))
    until(lambda: ledger.writer.waiting == 0 and len(calls) >= 2)
    assert [list(settled) for settled in calls] == [[first], group]
    assert [one.outcome()[0].position for one in group] == list(range(GENESIS + 2, GENESIS + 10))
    assert enqueued(ledger, change("org:0"), tell, idempotency=key("0")).key == ("alice", "0")


def test_threads_and_the_worker_share_groups(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    settled: list[Any] = []
    with ThreadPoolExecutor(4) as pool:
        with held_up(ledger, monkeypatch) as sizes:
            first = submitting(pool, ledger, change("org:0"))
            others = [enqueued(ledger, change(f"org:{number}"), settled.extend) for number in range(1, 4)]
            last = submitting(pool, ledger, change("org:9"))
        assert first.result(WAIT_S)
        assert last.result(WAIT_S)
    until(lambda: len(settled) == 3)
    assert settled == others
    assert sizes == [1, 4]


# Bounds


def test_a_full_queue_refuses_and_accepts_again_later(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "WAITING_MAX", 3)
    with ThreadPoolExecutor(3) as pool:
        with held_up(ledger, monkeypatch):
            futures = [submitting(pool, ledger, change(f"org:{number}")) for number in range(3)]
            assert not ledger.writer.has_capacity(1)
            with pytest.raises(LedgerBusy, match="3 submissions wait") as busy:
                submit(ledger, change(), idempotency=key("k"))
            assert busy.value.code == "ledger_busy"
        assert all(future.result(WAIT_S) for future in futures)
    assert submit(ledger, change(), idempotency=key("k"))[0].position == GENESIS + 4


@pytest.mark.parametrize(("bound", "most"), [("WAITING_EVENTS_MAX", 4), ("WAITING_BYTES_MAX", 4 * writing.EVENT_BYTES)])
def test_the_queue_is_bounded_in_events_and_bytes_but_accepts_a_single_submission(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    monkeypatch.setattr(writing, bound, most)
    assert len(submit(ledger, *(change(),) * 9)) == 9
    with ThreadPoolExecutor(3) as pool:
        with held_up(ledger, monkeypatch):
            futures = [submitting(pool, ledger, change("org:a"), change("org:a"))]
            with pytest.raises(LedgerBusy):
                submit(ledger, *(change(),) * 3)
            futures.append(submitting(pool, ledger, change("org:b"), change("org:b")))
            with pytest.raises(LedgerBusy):
                submit(ledger, change())
        assert all(future.result(WAIT_S) for future in futures)


# Failures


def failing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, error: BaseException, times: int) -> None:
    append = ledger.recorder.append
    left = [times]

    def broken(*arguments: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise error
        return append(*arguments)

    monkeypatch.setattr(ledger.recorder, "append", broken)


def test_a_failed_transaction_fails_the_whole_group_and_the_next_goes_on(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(ledger, monkeypatch, LedgerUnavailable("no room on the disk; nothing was written"), 2)
    with ThreadPoolExecutor(5) as pool:
        with held_up(ledger, monkeypatch) as sizes:
            futures = [submitting(pool, ledger, change(), idempotency=key(str(number))) for number in range(5)]
        errors = [future.exception(WAIT_S) for future in futures]
    assert sizes == [1, 4]
    assert [type(error) for error in errors] == [LedgerUnavailable] * 5
    assert len({id(error) for error in errors}) == 5
    assert {str(error) for error in errors} == {"no room on the disk; nothing was written"}
    assert ledger.head().position == GENESIS
    assert submit(ledger, change(), idempotency=key("0"))[0].version == 1


def test_an_interrupted_leader_leaves_nobody_waiting(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(ledger, monkeypatch, KeyboardInterrupt(), 2)
    with ThreadPoolExecutor(4) as pool:
        with held_up(ledger, monkeypatch) as sizes:
            futures = [submitting(pool, ledger, change(f"org:{number}")) for number in range(4)]
        errors = [future.exception(WAIT_S) for future in futures]
    assert sizes == [1, 3]
    assert isinstance(errors[0], KeyboardInterrupt)
    assert sorted(type(error).__name__ for error in errors[1:]) == ["KeyboardInterrupt", *["LedgerUnavailable"] * 2]
    assert all("may or may not" in str(error) for error in errors if isinstance(error, LedgerUnavailable))
    assert submit(ledger, change())[0].position == GENESIS + 1


def test_an_interrupted_worker_goes_on(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(ledger, monkeypatch, KeyboardInterrupt(), 1)
    settled: list[QueuedSubmission] = []
    for count in (1, 2):
        enqueued(ledger, change(), settled.extend)
        until(lambda count=count: len(settled) == count)  # type: ignore[misc]  # mypy infers no type for a default
    assert isinstance(settled[0].error, LedgerUnavailable)
    assert settled[1].outcome()[0].position == GENESIS + 1


def test_an_unexpected_error_reaches_its_submitters_and_the_writer_goes_on(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(ledger, monkeypatch, sqlite3.IntegrityError("what nobody foresaw"), 1)
    with pytest.raises(sqlite3.IntegrityError):
        submit(ledger, change())
    assert submit(ledger, change())[0].position == GENESIS + 1


def test_closing_fails_the_queue_and_lets_the_commit_end(
    database_url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled: list[QueuedSubmission] = []
    with ThreadPoolExecutor(4) as pool:
        with held_up(ledger, monkeypatch):
            first = submitting(pool, ledger, change("org:0"))
            waiting = submitting(pool, ledger, change("org:1"))
            enqueued(ledger, change("org:2"), settled.extend)
            closing = pool.submit(ledger.close)
            with pytest.raises(LedgerUnavailable, match="nothing was recorded"):
                waiting.result(WAIT_S)
            until(lambda: bool(settled))
            assert not closing.done()
        assert first.result(WAIT_S)[0].position == GENESIS + 1
        closing.result(WAIT_S)
    with pytest.raises(LedgerUnavailable, match="nothing was recorded"):
        settled[0].outcome()
    with pytest.raises(LedgerUnavailable, match="closed"):
        submit(ledger, change())
    with open_ledger(database_url, clock=ledger.clock) as again:
        assert again.head().position == GENESIS + 1


def test_a_ledger_with_an_idle_worker_closes_at_once(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    settled: list[QueuedSubmission] = []
    enqueued(ledger, change(), settled.extend)
    until(lambda: bool(settled))
    monkeypatch.setattr("ledger.append.group_commit.CLOSE_SECONDS_MAX", 2 * GIVE_UP_S)
    started_s = time.monotonic()
    ledger.close()
    assert time.monotonic() - started_s < GIVE_UP_S


# Other processes


def test_a_group_that_is_overtaken_again_and_again_gets_through(
    database_url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked: list[int] = []
    exclusive = ledger.recorder.exclusive

    def counting() -> Any:
        locked.append(1)
        return exclusive()

    with open_ledger(database_url, clock=ledger.clock) as faster, ThreadPoolExecutor(2) as pool:
        preconditions = ledger.recorder.append_preconditions

        def overtaken(*arguments: Any) -> Any:
            current = preconditions(*arguments)
            if not locked:
                submit(faster, change("org:hot"))
            return current

        monkeypatch.setattr(ledger.recorder, "exclusive", counting)
        monkeypatch.setattr(ledger.recorder, "append_preconditions", overtaken)
        with held_up(ledger, monkeypatch):
            first = submitting(pool, ledger, change("org:cold"))
            second = submitting(pool, ledger, change("org:hot"))
        assert first.result(WAIT_S)
        assert second.result(WAIT_S)[0].version == OPTIMISTIC_ATTEMPTS_MAX + 2
    assert locked == [1]


def test_processes_that_write_groups_at_once_lose_nothing(database_url: str, ledger: Ledger) -> None:
    processes, threads, count = 3, 4, 15
    with start_programs(*(("many", database_url, writer, threads, count) for writer in range(processes))) as running:
        for process in running:
            assert process.wait(120) == 0
    entries = ledger.page(GENESIS)
    total = processes * threads * count
    assert [entry.position for entry in entries] == list(range(GENESIS + 1, GENESIS + total + 1))
    assert [entry.version for entry in ledger.stream("org:shared")] == list(range(1, total + 1))
    moments = [entry.recorded_at for entry in entries]
    assert moments == sorted(set(moments))


# PostgreSQL


def test_all_errors_of_a_group_are_errors_of_inforce(ledger: Ledger) -> None:
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(submit, ledger, change(expected_version=number % 3)) for number in range(24)]
        errors = [future.exception(WAIT_S) for future in futures]
    assert all(error is None or isinstance(error, InforceError) for error in errors)
    assert len(ledger.stream("org:acme")) == errors.count(None)
