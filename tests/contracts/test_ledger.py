"""The contract of every ledger: the same suite on SQLite and on a real PostgreSQL."""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest
from eventsourcing.persistence import EventStore

from ledger.catalog import BUILT_IN
from ledger.clock import ManualClock
from ledger.codec import LedgerMapper, decode, leaf_hash, parse_leaf, position_of
from ledger.deciding import decide
from ledger.drafts import Decided, Idempotency
from ledger.errors import (
    BadInput,
    BadSubmission,
    IdempotencyKeyReused,
    LedgerCorrupt,
    NotFound,
    SubmissionInFlight,
    VersionConflict,
)
from ledger.events import SettingChanged, SettingDefined
from ledger.opening import open_ledger
from ledger.recorders.contract import Stale
from ledger.recorders.postgres import PostgresLedgerRecorder
from ledger.recorders.sqlite import SQLiteLedgerRecorder
from ledger.store import ATTEMPTS_UNLOCKED, Ledger
from ledger.submissions import parse_submissions
from ledger.times import format_time
from tests.support.ledgers import NOW, OPERATOR, ORIGIN, change, define, definition, opened, submit
from tests.support.writers import started

GENESIS = len(BUILT_IN)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def ledger(database_url: str, clock: ManualClock) -> Iterator[Ledger]:
    with open_ledger(database_url, create=True, clock=clock, origin=ORIGIN) as ledger:
        yield ledger


def key(key: str, body: bytes = b"body", caller: str = "alice") -> Idempotency:
    return Idempotency(caller, key, hashlib.sha256(body).digest())


def raw(url: str) -> Any:
    """A connection past every line of our code."""
    return sqlite3.connect(url.removeprefix("sqlite:///")) if url.startswith("sqlite") else psycopg.connect(url)


# The record


def test_a_new_ledger_begins_with_the_built_in_catalog(ledger: Ledger) -> None:
    events = [decode(entry.leaf) for entry in ledger.page(0)]
    assert [event.setting for event in events if isinstance(event, SettingDefined)] == list(BUILT_IN)
    assert {event.recorded_at for event in events} == {NOW}
    assert [event.version for event in events] == list(range(1, GENESIS + 1))


def test_opening_again_begins_nothing_again(database_url: str, ledger: Ledger) -> None:
    with open_ledger(database_url, create=True) as again:
        assert (again.head(), again.origin) == (ledger.head(), ORIGIN)


def test_a_receipt_says_what_was_recorded(ledger: Ledger, clock: ManualClock) -> None:
    clock.now_us = NOW + 7
    (receipt,) = submit(ledger, change(effective_until=format_time(NOW + 100)))
    assert receipt[1:] == (GENESIS + 1, "org:acme", 1, NOW + 7, NOW + 7, NOW + 100)
    event = decode(ledger.event(receipt.event_id).leaf)
    assert isinstance(event, SettingChanged)
    assert (event.value, event.actor, event.imported) == (True, OPERATOR, False)
    assert (event.effective_from, event.effective_until) == (NOW + 7, NOW + 100)


def test_versions_are_dense_for_each_subject(ledger: Ledger) -> None:
    for number in range(6):
        submit(ledger, change(f"org:{number % 2}"), change(f"org:{number % 3}", False))
    for subject in ("org:0", "org:1", "org:2"):
        entries = ledger.stream(subject)
        assert [entry.version for entry in entries] == list(range(1, len(entries) + 1))
        assert entries == sorted(entries, key=lambda entry: entry.position)
    assert sum(len(ledger.stream(f"org:{number}")) for number in range(3)) == 12


def test_the_entry_agrees_with_its_leaf(ledger: Ledger) -> None:
    submit(ledger, change(), define())
    for entry in ledger.page(0):
        leaf = parse_leaf(entry.leaf)
        assert (leaf.data.position, leaf.subject, leaf.data.version) == entry[:3]
        assert (leaf.topic, leaf.time) == (entry.topic, format_time(entry.recorded_at))
        assert leaf.sequence == f"{entry.position:020}"
        assert leaf.source == f"urn:inforce:{ORIGIN}"
        assert position_of(leaf.id) == entry.position


def test_the_leaf_hash_is_sha_256_over_a_zero_byte_and_the_exact_bytes(ledger: Ledger) -> None:
    for entry in ledger.page(0):
        assert entry.leaf_hash == hashlib.sha256(b"\0" + entry.leaf).digest() == leaf_hash(entry.leaf)


def test_a_stream_can_be_read_in_parts_and_backwards(ledger: Ledger) -> None:
    submit(ledger, *(change(value=number % 2 == 0) for number in range(5)))
    assert [entry.version for entry in ledger.stream("org:acme", after=1, until=4)] == [2, 3, 4]
    newest = ledger.recorder.stream("org:acme", newest_first=True, limit=2)
    assert [entry.version for entry in newest] == [5, 4]
    assert ledger.stream("org:nobody") == []


# Expected versions


def test_an_expected_version_that_holds_is_accepted(ledger: Ledger) -> None:
    submit(ledger, change(expected_version=0))
    submit(ledger, change(expected_version=1), change(expected_version=1))
    assert ledger.recorder.versions(["org:acme"]) == {"org:acme": 3}


@pytest.mark.parametrize("expected", [0, 1, 3, 2**53 - 1])
def test_another_expected_version_is_a_conflict_that_names_both_and_writes_nothing(
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
        """The version that stood in the way, or 0."""
        try:
            submit(ledger, change(expected_version=0))
        except VersionConflict as conflict:
            return conflict.actual
        return 0

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(attempt, range(8))) == [0] + [1] * 7
    assert len(ledger.stream("org:acme")) == 1


# Idempotency


def test_a_retry_answers_the_first_receipts_and_records_nothing(ledger: Ledger, clock: ManualClock) -> None:
    first = submit(ledger, change(), change("org:b", reason="ticket"), idempotency=key("k"))
    head = ledger.head()
    clock.now_us += 1_000_000
    submit(ledger, change())
    assert submit(ledger, change(), change("org:b", reason="ticket"), idempotency=key("k")) == first
    assert ledger.head().position == head.position + 1


def test_a_retry_is_known_to_another_ledger_object(database_url: str, ledger: Ledger) -> None:
    first = submit(ledger, change(), idempotency=key("k"))
    with open_ledger(database_url) as other:
        assert submit(other, change(), idempotency=key("k")) == first


def test_a_retry_of_what_expected_a_version_is_no_conflict(ledger: Ledger) -> None:
    first = submit(ledger, change(expected_version=0), idempotency=key("k"))
    assert submit(ledger, change(expected_version=0), idempotency=key("k")) == first


def test_a_key_used_for_another_body_is_refused(ledger: Ledger) -> None:
    submit(ledger, change(), idempotency=key("k", b"one"))
    head = ledger.head()
    with pytest.raises(IdempotencyKeyReused):
        submit(ledger, change(value=False), idempotency=key("k", b"two"))
    assert ledger.head() == head


def test_the_same_key_of_another_caller_is_another_key(ledger: Ledger) -> None:
    first = submit(ledger, change(), idempotency=key("k", b"one", "alice"))
    second = submit(ledger, change(), idempotency=key("k", b"two", "bob"))
    assert second[0].position == first[0].position + 1


def test_a_refused_submission_leaves_its_key_free(ledger: Ledger) -> None:
    with pytest.raises(BadSubmission):
        submit(ledger, change(value="yes"), idempotency=key("k", b"bad"))
    assert submit(ledger, change(), idempotency=key("k", b"good"))[0].version == 1


def test_a_retry_while_the_first_is_being_recorded_is_told_so(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    append = ledger.recorder.append
    seen: list[type[BaseException]] = []

    def retry_meanwhile(*arguments: Any) -> Any:
        with pytest.raises(SubmissionInFlight) as told:
            submit(ledger, change(), idempotency=key("k"))
        seen.append(told.type)
        return append(*arguments)

    monkeypatch.setattr(ledger.recorder, "append", retry_meanwhile)
    submit(ledger, change(), idempotency=key("k"))
    assert seen == [SubmissionInFlight]
    monkeypatch.undo()
    assert submit(ledger, change(), idempotency=key("k"))[0].version == 1


@pytest.mark.parametrize("expected_version", [None, 0])
def test_the_same_submission_through_two_ledgers_at_once_is_recorded_once(
    database_url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, expected_version: int | None
) -> None:
    body = change() if expected_version is None else change(expected_version=expected_version)
    with open_ledger(database_url) as other:
        streams = ledger._streams
        done: list[Any] = []

        def other_is_quicker(submissions: Any) -> Any:
            if not done:
                done.append(submit(other, body, idempotency=key("k")))
            return streams(submissions)

        monkeypatch.setattr(ledger, "_streams", other_is_quicker)
        assert submit(ledger, body, idempotency=key("k")) == done[0]
    assert len(ledger.stream("org:acme")) == 1


@pytest.mark.parametrize("bad", ["", "nul\0inside", "k" * 257, "half \ud800"])
def test_a_key_that_a_database_could_not_hold_is_bad_input(ledger: Ledger, bad: str) -> None:
    with pytest.raises(BadInput):
        submit(ledger, change(), idempotency=key(bad))
    with pytest.raises(BadInput):
        submit(ledger, change(), idempotency=key("k", caller=bad))
    assert ledger.head().position == GENESIS


def test_the_longest_key_of_the_widest_characters_is_kept(ledger: Ledger) -> None:
    # Characters that do not compress, as PostgreSQL's index would hold them.
    widest = "".join(chr(0x20000 + 7919 * number % 40_000) for number in range(256))
    first = submit(ledger, change(), idempotency=key(widest, caller=widest[::-1]))
    assert submit(ledger, change(), idempotency=key(widest, caller=widest[::-1])) == first


# Atomic submissions


def test_a_bad_tenth_item_writes_nothing_and_is_named(ledger: Ledger) -> None:
    bodies = [change(f"org:{number}", reason="a reason") for number in range(9)]
    with pytest.raises(BadSubmission) as refused:
        submit(ledger, *bodies, change("model:m"), idempotency=key("k"))
    assert [fault.pointer for fault in refused.value.faults] == ["/events/9/setting"]
    assert ledger.head().position == GENESIS
    assert ledger.recorder.known_submission("alice", "k") is None
    assert ledger.recorder.personal(list(range(100))) == {}


def test_a_failure_after_the_events_were_inserted_leaves_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: Any) -> None:
        raise RuntimeError("after the insert")

    module = type(ledger.recorder).__module__
    monkeypatch.setattr(f"{module}._insert_personal", broken)
    with pytest.raises(RuntimeError, match="after the insert"):
        submit(ledger, change(reason="a reason"))
    assert ledger.head().position == GENESIS


def test_no_submission_is_a_bad_submission(ledger: Ledger) -> None:
    with pytest.raises(BadSubmission):
        ledger.submit((), actor=OPERATOR)


@pytest.mark.parametrize("actor", ["", "a" * 257, "\ud800"])
def test_an_actor_that_is_none_is_bad_input(ledger: Ledger, actor: str) -> None:
    with pytest.raises(BadInput, match="an actor is a text of 1 to 256 characters"):
        ledger.submit(parse_submissions(change()), actor=actor)
    assert ledger.head().position == GENESIS


# Recorded time


def test_one_submission_has_one_recorded_at(ledger: Ledger, clock: ManualClock) -> None:
    clock.now_us += 5
    receipts = submit(ledger, *(change(f"org:{number}") for number in range(10)))
    assert {receipt.recorded_at for receipt in receipts} == {NOW + 5}


@pytest.mark.parametrize("step", [-3_600_000_000, -1, 0, 1])
def test_recorded_at_rises_from_one_submission_to_the_next_whatever_the_clock_does(
    ledger: Ledger, clock: ManualClock, step: int
) -> None:
    times = [NOW]
    for _ in range(3):
        clock.now_us += step
        times.append(submit(ledger, change())[0].recorded_at)
    assert times == [NOW, NOW + 1, NOW + 2, NOW + 3]


def test_a_clock_set_back_does_not_refuse_what_is_decided_at_the_true_moment(
    ledger: Ledger, clock: ManualClock
) -> None:
    clock.now_us = NOW - 1000
    with pytest.raises(BadSubmission):
        submit(ledger, change(effective_until=format_time(NOW + 1)))
    (receipt,) = submit(ledger, change(effective_until=format_time(NOW + 2)))
    assert (receipt.recorded_at, receipt.effective_from) == (NOW + 1, NOW + 1)


class SteppingClock:
    """Answers the given instants one after the other, and the last one for ever."""

    def __init__(self, *instants: int) -> None:
        self.instants = list(instants)

    def now(self) -> int:
        return self.instants.pop(0) if len(self.instants) > 1 else self.instants[0]


@pytest.mark.parametrize(("recorded", "accepted"), [(-1, True), (0, False), (1, False)])
def test_an_open_start_is_never_recorded_at_or_after_the_end_of_its_period(
    ledger: Ledger, recorded: int, accepted: bool
) -> None:
    end = NOW + 1_000
    ledger.clock = SteppingClock(NOW + 1, end + recorded)
    if accepted:
        (receipt,) = submit(ledger, change(effective_until=format_time(end)))
        assert receipt.effective_from == end + recorded
    else:
        with pytest.raises(BadSubmission) as refused:
            submit(ledger, change(effective_until=format_time(end)))
        assert refused.value.faults[0].pointer == "/effective_until"
        assert ledger.head().position == GENESIS


@pytest.mark.parametrize(("recorded", "accepted"), [(-1, True), (0, True), (1, False)])
def test_a_change_that_is_backdated_by_the_time_it_is_recorded_needs_a_reason(
    ledger: Ledger, recorded: int, accepted: bool
) -> None:
    start = NOW + 1_000
    ledger.clock = SteppingClock(NOW + 1, start + recorded)
    if accepted:
        assert submit(ledger, change(effective_from=format_time(start)))[0].recorded_at == start + recorded
    else:
        with pytest.raises(BadSubmission, match="needs a reason"):
            submit(ledger, change(effective_from=format_time(start)))
        ledger.clock = SteppingClock(NOW + 1, start + recorded)
        submit(ledger, change(effective_from=format_time(start), reason="late"))


@pytest.mark.parametrize(("recorded", "accepted"), [(-1, True), (0, False), (1, False)])
def test_a_definition_that_takes_effect_between_decision_and_record_is_decided_again(
    ledger: Ledger, recorded: int, accepted: bool
) -> None:
    start = NOW + 1_000
    submit(ledger, define())
    submit(ledger, define(definition=definition(kinds=["account"]), effective_from=format_time(start)))
    ledger.clock = SteppingClock(NOW + 10, start + recorded)
    body = {**change(), "setting": "beta.search"}
    if accepted:
        assert submit(ledger, body)[0].recorded_at == start + recorded
    else:
        with pytest.raises(BadSubmission) as refused:
            submit(ledger, body)
        assert refused.value.faults[0].pointer == "/setting"
        assert ledger.stream("org:acme") == []


@pytest.mark.parametrize(("recorded", "accepted"), [(-1, True), (0, True), (1, False)])
def test_a_change_cannot_precede_the_definition_that_came_with_it(
    ledger: Ledger, recorded: int, accepted: bool
) -> None:
    start = NOW + 1_000
    ledger.clock = SteppingClock(NOW + 10, start + recorded)
    body = {**change(), "setting": "beta.search", "effective_from": format_time(start), "reason": "planned"}
    if accepted:
        definition_receipt, receipt = submit(ledger, define(), body)
        assert definition_receipt.effective_from is not None
        assert receipt.effective_from is not None
        assert definition_receipt.effective_from <= receipt.effective_from
    else:
        with pytest.raises(BadSubmission, match="not defined yet"):
            submit(ledger, define(), body)


# Decisions that went stale


def meanwhile(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> list[int]:
    """Lets another writer act once between the next decision and its append; counts the appends that follow."""
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
    with open_ledger(database_url) as other:
        appends = meanwhile(ledger, monkeypatch, lambda: submit(other, change(value=False)))
        (receipt,) = submit(ledger, change())
    assert (receipt.version, appends) == (2, [2])


def test_a_decision_overtaken_by_another_subject_is_not_made_again(
    database_url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_ledger(database_url) as other:
        appends = meanwhile(ledger, monkeypatch, lambda: submit(other, change("org:other")))
        (receipt,) = submit(ledger, change())
    assert (receipt.position, appends) == (GENESIS + 2, [1])


def test_an_expected_version_overtaken_by_another_writer_is_a_conflict(
    database_url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_ledger(database_url) as other:
        meanwhile(ledger, monkeypatch, lambda: submit(other, change()))
        with pytest.raises(VersionConflict) as conflict:
            submit(ledger, change(expected_version=0))
    assert conflict.value.actual == 1


def test_a_change_retracted_by_another_writer_meanwhile_is_not_retracted_twice(
    database_url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    (receipt,) = submit(ledger, change())
    retraction = {"type": "change.retracted", "event_id": receipt.event_id, "reason": "a slip"}
    with open_ledger(database_url) as other:
        meanwhile(ledger, monkeypatch, lambda: submit(other, retraction))
        with pytest.raises(BadSubmission, match="retracted already"):
            submit(ledger, retraction)


def test_a_setting_defined_anew_by_another_writer_meanwhile_is_decided_by_the_new_definition(
    database_url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(ledger, define())
    with open_ledger(database_url) as other:
        meanwhile(ledger, monkeypatch, lambda: submit(other, define(definition=definition(kinds=["account"]))))
        with pytest.raises(BadSubmission, match="kind account"):
            submit(ledger, {**change(), "setting": "beta.search"})


# Many writers


@pytest.mark.parametrize("idempotency", [None, key("k")])
def test_whoever_keeps_being_overtaken_decides_under_the_lock(
    database_url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, idempotency: Idempotency | None
) -> None:
    locked = threading.Event()
    with open_ledger(database_url) as faster:
        streams = ledger._streams

        def overtaken(*arguments: Any) -> Any:
            found = streams(*arguments)
            overtaking = threading.Thread(target=overtake)
            overtaking.start()
            # Under the lock the faster writer waits; before it, it wins.
            overtaking.join(0.3 if locked.is_set() else 10)
            threads.append(overtaking)
            return found

        def overtake() -> None:
            submit(faster, change())

        threads: list[threading.Thread] = []
        monkeypatch.setattr(ledger, "_streams", overtaken)
        real = ledger.recorder.exclusive

        def exclusive() -> Any:
            locked.set()
            return real()

        monkeypatch.setattr(ledger.recorder, "exclusive", exclusive)
        (receipt,) = submit(ledger, change(), idempotency=idempotency)
        for thread in threads:
            thread.join(10)
    assert len(threads) == ATTEMPTS_UNLOCKED + 1
    assert receipt.version == ATTEMPTS_UNLOCKED + 1
    assert [entry.version for entry in ledger.stream("org:acme")] == list(range(1, ATTEMPTS_UNLOCKED + 3))


def test_what_is_refused_under_the_lock_writes_nothing_and_lets_it_go(ledger: Ledger) -> None:
    def write() -> None:
        with ledger.recorder.exclusive():
            submit(ledger, change())
            submit(ledger, change(value=1))

    with pytest.raises(BadSubmission):
        write()
    assert ledger.head().position == GENESIS
    submit(ledger, change())


def test_four_processes_write_at_once_and_no_reader_misses_an_event(database_url: str, ledger: Ledger) -> None:
    writers, count = 4, 60
    total = GENESIS + writers * count * 2
    followed: list[tuple[int, int]] = []
    stop = threading.Event()

    def follow() -> None:
        with open_ledger(database_url) as reader:
            after = 0
            while after < total and not stop.is_set():
                for entry in reader.page(after, 7):
                    followed.append((entry.position, entry.recorded_at))
                    after = entry.position

    reader = threading.Thread(target=follow)
    reader.start()
    try:
        with started(*(("write", database_url, writer, count) for writer in range(writers))) as processes:
            assert [process.wait(120) for process in processes] == [0] * writers
        reader.join(30)
    finally:
        stop.set()
        reader.join(10)
    assert [position for position, _ in followed] == list(range(1, total + 1))
    assert followed == sorted(followed, key=lambda seen: (seen[1], seen[0]))
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


def test_a_ledger_begun_by_four_at_once_is_begun_once(database_url: str) -> None:
    gate = threading.Barrier(4)

    def begin(_number: int) -> tuple[str, int]:
        gate.wait(30)
        with open_ledger(database_url, create=True) as ledger:
            return ledger.origin, ledger.head().position

    with ThreadPoolExecutor(4) as pool:
        answers = set(pool.map(begin, range(4)))
    assert len(answers) == 1
    assert answers.pop()[1] == GENESIS


# Immutability

FORBIDDEN = [
    "UPDATE {events} SET state = state",
    "UPDATE {events} SET recorded_at = 0 WHERE position = 1",
    "DELETE FROM {events}",
    "DELETE FROM {events} WHERE position = (SELECT max(position) FROM {events})",
]
FORBIDDEN_SQLITE = [
    "INSERT OR REPLACE INTO {events} SELECT * FROM {events} WHERE position = 1",
    "REPLACE INTO {events} SELECT position + 1, originator_id, originator_version, topic, state, recorded_at, leaf_hash"
    " FROM {events} ORDER BY position DESC LIMIT 1",
    "INSERT INTO {events} SELECT * FROM {events} WHERE position = 1"
    " ON CONFLICT (position) DO UPDATE SET recorded_at = 0",
    "INSERT INTO {events} SELECT 1000, 'org:x', 1, topic, state, recorded_at, leaf_hash FROM {events} LIMIT 1",
    "UPDATE OR REPLACE {events} SET position = 1 WHERE position = 2",
]
FORBIDDEN_POSTGRESQL = [
    "TRUNCATE {events}",
    "TRUNCATE {events} CASCADE",
    "INSERT INTO {events} SELECT * FROM {events} WHERE position = 1"
    " ON CONFLICT (position) DO UPDATE SET recorded_at = 0",
    "MERGE INTO {events} a USING {events} b ON a.position = b.position WHEN MATCHED THEN DELETE",
]


def test_the_database_itself_refuses_to_change_an_event(database_url: str, ledger: Ledger) -> None:
    submit(ledger, change())
    before = ledger.page(0)
    sqlite = database_url.startswith("sqlite")
    table = "events" if sqlite else "inforce.events"
    with closing(raw(database_url)) as connection:
        for statement in FORBIDDEN + (FORBIDDEN_SQLITE if sqlite else FORBIDDEN_POSTGRESQL):
            with pytest.raises((sqlite3.IntegrityError, psycopg.errors.IntegrityError), match="immutable"):
                connection.execute(statement.format(events=table))
            connection.rollback()
    assert ledger.page(0) == before


# The feed


def test_pages_follow_each_other_without_gap_or_repetition(ledger: Ledger) -> None:
    submit(ledger, *(change() for _ in range(20)))
    positions: list[int] = []
    while page := ledger.page(positions[-1] if positions else 0, 7):
        assert len(page) <= 7
        positions += [entry.position for entry in page]
    assert positions == list(range(1, GENESIS + 21))


def test_a_page_ends_where_it_is_told_to(ledger: Ledger) -> None:
    assert [entry.position for entry in ledger.page(2, 100, until=5)] == [3, 4, 5]
    assert ledger.page(GENESIS, 100) == []
    assert ledger.page(5, 100, until=5) == []


def test_an_event_is_found_by_its_id(ledger: Ledger) -> None:
    first, second = submit(ledger, change(), change())
    assert ledger.event(second.event_id).position == second.position
    assert ledger.event(first.event_id).position == first.position


def test_an_id_that_is_unknown_or_malformed_is_not_found(ledger: Ledger) -> None:
    (receipt,) = submit(ledger, change())
    unknown = [
        "",
        "1",
        "x" * 36,
        receipt.event_id.upper() + " ",
        receipt.event_id[:-1],
        receipt.event_id[:-1] + ("0" if receipt.event_id[-1] != "0" else "1"),
        "00000000-0000" + receipt.event_id[13:],
        "ffffffff-ffff" + receipt.event_id[13:],
        "00000000-0001" + receipt.event_id[13:],
    ]
    for event_id in unknown:
        assert ledger.find(event_id) is None
        with pytest.raises(NotFound):
            ledger.event(event_id)


def test_an_id_of_another_ledger_is_not_found_although_the_position_exists(ledger: Ledger, tmp_path: Any) -> None:
    (receipt,) = submit(ledger, change())
    other, _ = opened(f"sqlite:///{tmp_path}/other.db")
    with other:
        (foreign,) = submit(other, change())
        assert foreign.position == receipt.position
        assert ledger.find(foreign.event_id) is None


# The library's own way in


def test_the_library_reads_the_ledger_through_its_event_store(ledger: Ledger) -> None:
    receipts = submit(ledger, *(change(value=number % 2 == 0) for number in range(3)))
    recorder = ledger.recorder
    assert isinstance(recorder, SQLiteLedgerRecorder | PostgresLedgerRecorder)
    store = EventStore(LedgerMapper(f"urn:inforce:{ORIGIN}"), recorder)
    events = list(store.get("org:acme"))
    assert [event.event_id for event in events if isinstance(event, SettingChanged)] == [r.event_id for r in receipts]
    assert [event.originator_version for event in store.get("org:acme", gt=1, desc=True, limit=1)] == [3]


def test_the_library_reads_the_feed_as_notifications(ledger: Ledger) -> None:
    submit(ledger, change())
    recorder = ledger.recorder
    assert isinstance(recorder, SQLiteLedgerRecorder | PostgresLedgerRecorder)
    assert recorder.max_notification_id() == GENESIS + 1
    everything = recorder.select_notifications(None, 1000)
    assert [(n.id, n.state) for n in everything] == [(e.position, e.leaf) for e in ledger.page(0)]
    assert [n.id for n in recorder.select_notifications(2, 2)] == [2, 3]
    assert [n.id for n in recorder.select_notifications(2, 2, inclusive_of_start=False)] == [3, 4]
    assert [n.id for n in recorder.select_notifications(None, 9, stop=2)] == [1, 2]
    assert [n.id for n in recorder.select_notifications(None, 9, topics=["setting.changed"])] == [GENESIS + 1]


def test_the_library_writes_through_its_event_store(ledger: Ledger, clock: ManualClock) -> None:
    recorder = ledger.recorder
    assert isinstance(recorder, SQLiteLedgerRecorder | PostgresLedgerRecorder)
    store = EventStore(LedgerMapper(f"urn:inforce:{ORIGIN}"), recorder)
    submissions = parse_submissions(change())
    decided = decide(submissions, ledger._streams(submissions), now=NOW + 1, actor=OPERATOR, entropy=bytes)
    (recording,) = store.put(decided.drafts, decided=decided, clock=clock)
    assert recording.notification.id == GENESIS + 1
    assert ledger.head().position == GENESIS + 1
    with pytest.raises(Stale):
        store.put(decided.drafts, decided=decided, clock=clock)
    with pytest.raises(Stale):
        store.put((), decided=Decided((), {"org:acme": 0}, None), clock=clock)


# Reasons


def test_a_reason_is_kept_beside_the_event_and_bound_to_it(ledger: Ledger) -> None:
    reason = 'because "quoted" – ünïcode 🙂 \x00 \x01T \\ and a\nnew line'
    with_reason, without = submit(ledger, change(reason=reason), change())
    assert ledger.reasons([1, with_reason.position, without.position]) == {with_reason.position: reason}
    leaf = ledger.event(with_reason.event_id).leaf
    assert b"because" not in leaf
    kept = ledger.recorder.personal([with_reason.position])[with_reason.position]
    commitment = hashlib.sha256(kept.salt + kept.content.encode()).hexdigest()
    assert json.loads(leaf)["data"]["personal"] == {"commitment": commitment}
    assert "personal" not in json.loads(ledger.event(without.event_id).leaf)["data"]


def test_equal_reasons_have_different_commitments(ledger: Ledger) -> None:
    receipts = submit(ledger, change(reason="same"), change(reason="same"))
    commitments = {parse_leaf(ledger.event(receipt.event_id).leaf).data.personal for receipt in receipts}
    assert len(commitments) == 2


@pytest.mark.parametrize("stolen_by", ["another reason", "another event"])
def test_a_reason_that_was_tampered_with_is_found_out(database_url: str, ledger: Ledger, stolen_by: str) -> None:
    first, second = submit(ledger, change(reason="one"), change())
    table = "personal_data" if database_url.startswith("sqlite") else "inforce.personal_data"
    with closing(raw(database_url)) as connection:
        if stolen_by == "another reason":
            connection.execute(f'UPDATE {table} SET content = \'{{"reason":"two"}}\'')
        else:
            connection.execute(f"UPDATE {table} SET position = {second.position}")
        connection.commit()
    with pytest.raises(LedgerCorrupt):
        ledger.reasons([first.position, second.position])
