"""The stored events, and reading them by stream, by page, by id, and with the eventsourcing library."""

import hashlib
import sqlite3
from typing import Any

import pytest
from eventsourcing.persistence import EventStore

from ledger.append.decide import SubmissionContext, decide
from ledger.append.submissions import parse_submissions
from ledger.built_in_catalog import BUILT_IN
from ledger.clock import ManualClock
from ledger.codec import LedgerMapper, decode, leaf_hash, parse_leaf, position_of
from ledger.drafts import AppendPlan
from ledger.errors import (
    NotFound,
)
from ledger.events import SettingChanged, SettingDefined
from ledger.opening import open_ledger
from ledger.recorders.contract import PreconditionFailed
from ledger.recorders.postgres import PostgresLedgerRecorder
from ledger.recorders.sqlite import SQLiteLedgerRecorder
from ledger.store import Ledger
from ledger.times import format_time
from tests.support.ledgers import GENESIS, NOW, OPERATOR, ORIGIN, change, define, open_with_clock, submit

# The record


def test_a_new_ledger_begins_with_the_built_in_catalog(ledger: Ledger) -> None:
    events = [decode(entry.leaf) for entry in ledger.page(0)]
    assert [event.setting for event in events if isinstance(event, SettingDefined)] == list(BUILT_IN)
    assert {event.recorded_at for event in events} == {NOW}
    assert [event.version for event in events] == list(range(1, GENESIS + 1))


def test_opening_again_records_no_second_catalog(database_url: str, ledger: Ledger) -> None:
    with open_ledger(database_url, create=True) as again:
        assert (again.head(), again.origin) == (ledger.head(), ORIGIN)


def test_a_receipt_describes_the_event(ledger: Ledger, clock: ManualClock) -> None:
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


# The feed


def test_pages_follow_each_other_without_gap_or_repetition(ledger: Ledger) -> None:
    submit(ledger, *(change() for _ in range(20)))
    positions: list[int] = []
    while page := ledger.page(positions[-1] if positions else 0, 7):
        assert len(page) <= 7
        positions += [entry.position for entry in page]
    assert positions == list(range(1, GENESIS + 21))


def test_a_page_ends_at_its_bound(ledger: Ledger) -> None:
    assert [entry.position for entry in ledger.page(2, 100, until=5)] == [3, 4, 5]
    assert ledger.page(GENESIS, 100) == []
    assert ledger.page(5, 100, until=5) == []


def test_an_event_is_found_by_its_id(ledger: Ledger) -> None:
    first, second = submit(ledger, change(), change())
    assert ledger.event(second.event_id).position == second.position
    assert ledger.event(first.event_id).position == first.position


def test_an_unknown_or_malformed_id_is_not_found(ledger: Ledger) -> None:
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
    other, _ = open_with_clock(f"sqlite:///{tmp_path}/other.db")
    with other:
        (foreign,) = submit(other, change())
        assert foreign.position == receipt.position
        assert ledger.find(foreign.event_id) is None


# The eventsourcing library


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
    streams = SubmissionContext(ledger.catalog(), recorder.versions(["org:acme", "catalog:settings"]))
    plan = decide(parse_submissions(change()), streams, now=NOW + 1, actor=OPERATOR, entropy=bytes)
    (recording,) = store.put(plan.drafts, plan=plan, clock=clock)
    assert recording.notification.id == GENESIS + 1
    assert ledger.head().position == GENESIS + 1
    with pytest.raises(PreconditionFailed):
        store.put(plan.drafts, plan=plan, clock=clock)
    with pytest.raises(PreconditionFailed):
        store.put((), plan=AppendPlan((), {"org:acme": 0}, None), clock=clock)


# Leaves in bulk


def test_leaves_come_in_position_order_and_by_subject(ledger: Ledger) -> None:
    for name in ("org:b", "org:a", "org:b"):
        submit(ledger, change(name))
    head = ledger.head().position
    leaves_in_order = [entry.leaf for entry in ledger.page(0)]
    assert ledger.recorder.leaves(0, head) == b"\n".join(leaves_in_order)
    assert ledger.recorder.leaves(3, 5) == b"\n".join(leaves_in_order[3:5])
    assert ledger.recorder.leaves(head, head) == b""
    of_b, of_a = (b"\n".join(entry.leaf for entry in ledger.stream(name)) for name in ("org:b", "org:a"))
    assert ledger.recorder.leaves_of(["org:b", "org:nobody", "org:a"], head) == of_b + b"\n" + of_a
    assert ledger.recorder.leaves_of(["org:b"], head - 1) == leaves_in_order[-3]
    assert ledger.recorder.leaves_of([], head) == b""


def test_leaves_that_exceed_the_limit_of_one_value_are_still_read(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = ledger.recorder
    if not isinstance(recorder, SQLiteLedgerRecorder):
        pytest.skip("PostgreSQL puts no values together")
    expected = recorder.leaves(0, GENESIS)
    with recorder.transaction(commit=False) as cursor:
        connection = cursor.connection
    before = connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2000)
    try:
        assert recorder.leaves(0, GENESIS) == expected
    finally:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, before)
