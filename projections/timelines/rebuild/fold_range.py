"""Folds a range of subjects, from their events to their rows: the work of one process of a rebuild."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from msgspec import Raw, Struct

from ledger.errors import DamagedEvent, LedgerCorrupt
from ledger.recorders.contract import RawEvent, Recorder
from ledger.times import BEGINNING
from projections.temporal.changes import Assertion, read_entry, without_large_value
from projections.temporal.fold import Timeline
from projections.temporal.in_force import Timelines, extend
from projections.temporal.known_changes import KnownChanges
from projections.timelines.checksums import block_sum
from projections.timelines.contract import BlockRow, StoredRow
from projections.timelines.encoding import (
    BLOCK_STEPS,
    AppendedSetting,
    StoredSetting,
    TimelineSuffix,
    encode_setting,
    encode_settings,
)
from projections.timelines.rebuild.external_sort import (
    BUCKET_BYTES,
    HELD_BYTES,
    HELD_EVENTS,
    EncodedEvent,
    Sorter,
    SubjectRange,
    decode_assertion,
    decode_change,
)

READ_EVENTS: Final = 1_000
"""Positions read in one transaction. A long one makes SQLite's log grow, and more events than a processor's cache holds
take a third longer."""
READ_BYTES: Final = 2 * 1024 * 1024
"""Leaves that are read at once, about: large values end a read early."""


class ReadProgress(Struct, tag=True, array_like=True, gc=False):
    """How many more positions of the ledger were read, and how many of their events were of the range."""

    positions: int
    events: int


class FoldedRows(Struct, tag=True, array_like=True, gc=False):
    """Finished rows, in the order of their keys; made of so many events."""

    rows: list[StoredRow]
    blocks: list[BlockRow]
    events: int


def fold_ranges(
    recorder: Recorder,
    until: int,
    ranges: Sequence[SubjectRange],
    *,
    held_events: int = HELD_EVENTS,
    held_bytes: int = HELD_BYTES,
    bucket_bytes: int = BUCKET_BYTES,
) -> Iterator[ReadProgress | FoldedRows]:
    """The rows of all subjects in `ranges`, which follow each other, as of position `until`.

    Raises `LedgerCorrupt`, naming the position, at an event that is unreadable or out of its place.
    """
    above, upto = ranges[0].above, ranges[-1].upto
    with Sorter(ranges, held_events, held_bytes, bucket_bytes) as sorter:
        after = 0
        while after < until:
            end = min(after + recorder.page_length(after, READ_EVENTS, until, READ_BYTES), until)
            events = recorder.events_in_range(after, end, above, upto)
            added = sorter.add(map(_read, events))
            yield ReadProgress(end - after, added)
            after = end
        for bucket in sorter.buckets():
            yield fold_bucket(bucket)


def _read(event: RawEvent) -> tuple[str, Assertion]:
    position, subject, version, leaf, recorded_at = event
    assertion = read_entry(position, version, leaf)
    if assertion.recorded_at != recorded_at:
        raise DamagedEvent(position, "its time is not that of its row")
    return subject, without_large_value(assertion)


class _SettingEvents:
    """A subject's setting while its events come in.

    As long as each change only appends a step, `starts` and `changes` are the steps of both timelines. From the first
    event on that does more, everything goes to `rest`.
    """

    __slots__ = ("changes", "rest", "starts")

    def __init__(self) -> None:
        self.starts = [BEGINNING]
        self.changes: list[Raw | None] = [None]
        self.rest: list[EncodedEvent] = []


class _SubjectEvents:
    __slots__ = ("events", "last", "settings")

    def __init__(self, first: EncodedEvent) -> None:
        self.last = first
        self.events = 0
        self.settings: dict[str, _SettingEvents] = {}


def fold_bucket(bucket: Iterable[EncodedEvent]) -> FoldedRows:
    """The rows of the subjects in `bucket`, which holds all their events in position order. Raises `LedgerCorrupt`."""
    subjects: dict[str, _SubjectEvents] = {}
    for event in bucket:
        subject = subjects.get(event.subject)
        if subject is None:
            subject = subjects[event.subject] = _SubjectEvents(event)
        subject.last = event
        subject.events += 1
        setting = subject.settings.get(event.setting)
        if setting is None:
            setting = subject.settings[event.setting] = _SettingEvents()
        start = event.start
        if start is not None and start > setting.starts[-1] and not setting.rest:
            setting.starts.append(start)
            setting.changes.append(event.assertion)
        else:
            setting.rest.append(event)
    rows: list[StoredRow] = []
    blocks: list[BlockRow] = []
    for name, subject in sorted(subjects.items()):
        last = decode_assertion(subject.last)
        if last.version != subject.events:
            # Each event is at the position and version that its own leaf names, so comparing their number suffices.
            raise LedgerCorrupt(
                f"the subject of the event at position {last.position} is at version {last.version} and has"
                f" {subject.events} events up to there"
            )
        settings: dict[str, Raw | StoredSetting | AppendedSetting] = {}
        blocks_summed = 0
        for key, events in subject.settings.items():
            if len(events.starts) <= BLOCK_STEPS and not events.rest:
                settings[key] = AppendedSetting((0, events.starts, events.changes))
                continue
            stored, new_blocks = encode_setting(name, key, TimelineSuffix(0, _timelines(events), ()))
            if stored is not None:
                settings[key] = stored
            blocks += new_blocks
            blocks_summed += block_sum(new_blocks)
        rows.append(StoredRow(name, last.version, last.position, encode_settings(settings), blocks_summed))
    return FoldedRows(rows, sorted(blocks), sum(subject.events for subject in subjects.values()))


def _timelines(setting: _SettingEvents) -> Timelines:
    known = [decode_change(raw) for raw in setting.changes if raw is not None]
    timeline = Timeline(setting.starts, [None, *known])
    return extend(Timelines(timeline, timeline), KnownChanges(known), map(decode_assertion, setting.rest))
