"""Several writers at once: expected versions, overtaken decisions, and no event lost or missed."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from ledger.append.group_commit import OPTIMISTIC_ATTEMPTS_MAX
from ledger.codec import parse_leaf
from ledger.drafts import Idempotency
from ledger.errors import (
    BadSubmission,
    VersionConflict,
)
from ledger.opening import open_ledger
from ledger.store import Ledger
from tests.support.append_requests import AppendRequestBuilder
from tests.support.ledgers import GENESIS, change, define, definition, key, submit
from tests.support.programs import start_programs

# Expected versions


def test_an_expected_version_that_holds_is_accepted(ledger: Ledger) -> None:
    submit(ledger, change(expected_version=0))
    submit(ledger, change(expected_version=1), change(expected_version=1))
    assert ledger.recorder.versions(["org:acme"]) == {"org:acme": 3}


@pytest.mark.parametrize("expected", [0, 1, 3, 2**53 - 1])
def test_a_wrong_expected_version_is_a_conflict_that_names_both_and_writes_nothing(
    ledger: Ledger, expected: int
) -> None:
    submit(ledger, change(), change())
    before = ledger.head()
    with pytest.raises(VersionConflict) as conflict:
        submit(ledger, change("org:other"), change(expected_version=expected))
    assert (conflict.value.subject, conflict.value.expected, conflict.value.actual) == ("org:acme", expected, 2)
    assert conflict.value.code == "version_conflict"
    assert ledger.head() == before


def test_of_many_writers_that_expect_the_same_version_one_wins(database_url: str, ledger: Ledger) -> None:
    def attempt(_number: int) -> int:
        """The actual version of the conflict, or 0."""
        try:
            submit(ledger, change(expected_version=0))
        except VersionConflict as conflict:
            return conflict.actual
        return 0

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(attempt, range(8))) == [0] + [1] * 7
    assert len(ledger.stream("org:acme")) == 1


# Stale decisions


def meanwhile(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> list[int]:
    """Lets another writer act once between the next decision and its append, and counts the appends after it."""
    append = ledger.recorder.append
    appends: list[int] = []

    def acting(*arguments: Any) -> Any:
        if not appends:
            appends.append(0)
            act()
        appends[0] += 1
        return append(*arguments)

    monkeypatch.setattr(ledger.recorder, "append", acting)
    return appends


def test_a_decision_overtaken_by_another_writer_is_made_again(
    database_url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_ledger(database_url, clock=ledger.clock) as other:
        appends = meanwhile(ledger, monkeypatch, lambda: submit(other, change(value=False)))
        (receipt,) = submit(ledger, change())
    assert (receipt.version, appends) == (2, [2])


def test_a_decision_overtaken_by_another_subject_is_not_made_again(
    database_url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_ledger(database_url, clock=ledger.clock) as other:
        appends = meanwhile(ledger, monkeypatch, lambda: submit(other, change("org:other")))
        (receipt,) = submit(ledger, change())
    assert (receipt.position, appends) == (GENESIS + 2, [1])


def test_an_expected_version_overtaken_by_another_writer_is_a_conflict(
    database_url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_ledger(database_url, clock=ledger.clock) as other:
        meanwhile(ledger, monkeypatch, lambda: submit(other, change()))
        with pytest.raises(VersionConflict) as conflict:
            submit(ledger, change(expected_version=0))
    assert conflict.value.actual == 1


def test_a_change_retracted_by_another_writer_meanwhile_is_not_retracted_twice(
    database_url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    (receipt,) = submit(ledger, change())
    retraction = {"type": "change.retracted", "event_id": receipt.event_id, "reason": "a slip"}
    with open_ledger(database_url, clock=ledger.clock) as other:
        meanwhile(ledger, monkeypatch, lambda: submit(other, retraction))
        with pytest.raises(BadSubmission, match="retracted already"):
            submit(ledger, retraction)


def test_a_setting_defined_anew_by_another_writer_meanwhile_is_decided_by_the_new_definition(
    database_url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(ledger, define())
    with open_ledger(database_url, clock=ledger.clock) as other:
        meanwhile(ledger, monkeypatch, lambda: submit(other, define(definition=definition(kinds=["account"]))))
        with pytest.raises(BadSubmission, match="kind account"):
            submit(ledger, {**change(), "setting": "beta.search"})


# Many writers


@pytest.mark.parametrize("idempotency", [None, key("k")])
def test_a_submission_that_keeps_being_overtaken_is_decided_under_the_lock(
    database_url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, idempotency: Idempotency | None
) -> None:
    locked = threading.Event()
    with open_ledger(database_url, clock=ledger.clock) as faster:
        preconditions = ledger.recorder.append_preconditions

        def overtaken(*arguments: Any) -> Any:
            current = preconditions(*arguments)
            overtaking = threading.Thread(target=overtake)
            overtaking.start()
            # Under the lock the faster writer waits; before the lock it wins.
            overtaking.join(0.3 if locked.is_set() else 10)
            threads.append(overtaking)
            return current

        def overtake() -> None:
            submit(faster, change())

        threads: list[threading.Thread] = []
        monkeypatch.setattr(ledger.recorder, "append_preconditions", overtaken)
        real = ledger.recorder.exclusive

        def exclusive() -> Any:
            locked.set()
            return real()

        monkeypatch.setattr(ledger.recorder, "exclusive", exclusive)
        (receipt,) = submit(ledger, change(), idempotency=idempotency)
        for thread in threads:
            thread.join(10)
    assert len(threads) == OPTIMISTIC_ATTEMPTS_MAX + 1
    assert receipt.version == OPTIMISTIC_ATTEMPTS_MAX + 1
    assert [entry.version for entry in ledger.stream("org:acme")] == list(range(1, OPTIMISTIC_ATTEMPTS_MAX + 3))


def test_an_error_under_the_lock_writes_nothing_and_releases_it(ledger: Ledger) -> None:
    request = AppendRequestBuilder(ledger).build(change())
    with suppress(ZeroDivisionError), ledger.recorder.exclusive():
        ledger.recorder.append([request], ledger.clock)
        assert ledger.head().position == GENESIS + 1
        raise ZeroDivisionError
    assert ledger.head().position == GENESIS
    submit(ledger, change())


def test_four_processes_write_at_once_and_no_reader_misses_an_event(database_url: str, ledger: Ledger) -> None:
    writers, count = 4, 60
    total = GENESIS + writers * count * 2
    followed: list[tuple[int, int]] = []
    stop = threading.Event()

    def follow() -> None:
        with open_ledger(database_url, clock=ledger.clock) as reader:
            after = 0
            while after < total and not stop.is_set():
                for entry in reader.page(after, 7):
                    followed.append((entry.position, entry.recorded_at))
                    after = entry.position

    reader = threading.Thread(target=follow)
    reader.start()
    try:
        with start_programs(*(("write", database_url, writer, count) for writer in range(writers))) as processes:
            assert [process.wait(120) for process in processes] == [0] * writers
        reader.join(30)
    finally:
        stop.set()
        reader.join(10)
    assert [position for position, _ in followed] == list(range(1, total + 1))
    assert followed == sorted(followed, key=lambda event: (event[1], event[0]))
    moments = [recorded_at for _, recorded_at in followed[GENESIS::2]]
    assert len(set(moments)) == writers * count
    assert [entry.version for entry in ledger.stream("org:shared")] == list(range(1, writers * count + 1))
    for writer in range(writers):
        values = [parse_leaf(entry.leaf).data.value for entry in ledger.stream(f"org:{writer}")]
        assert values == [number % 2 == 0 for number in range(count)]


def test_many_threads_share_one_ledger_object(ledger: Ledger) -> None:
    def write(writer: int) -> None:
        for _ in range(10):
            submit(ledger, change(f"org:{writer % 3}"))
            assert ledger.page(0, 5)

    with ThreadPoolExecutor(24) as pool:
        list(pool.map(write, range(24)))
    assert [entry.position for entry in ledger.page(0)] == list(range(1, GENESIS + 241))


def test_a_ledger_created_by_four_processes_is_created_once(database_url: str) -> None:
    gate = threading.Barrier(4)

    def begin(_number: int) -> tuple[str, int]:
        gate.wait(30)
        with open_ledger(database_url, create=True) as ledger:
            return ledger.origin, ledger.head().position

    with ThreadPoolExecutor(4) as pool:
        answers = set(pool.map(begin, range(4)))
    assert len(answers) == 1
    assert answers.pop()[1] == GENESIS
