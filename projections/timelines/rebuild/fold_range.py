"""A range of subjects, from their events to their rows: what one process of a rebuild does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from msgspec import Raw, Struct

from ledger.errors import LedgerCorrupt
from ledger.recorders.contract import Recorder
from ledger.times import BEGINNING
from projections.temporal.changes import read_entry
from projections.temporal.fold import Timeline
from projections.temporal.in_force import Timelines, extend
from projections.timelines.contract import BlockRow, StoredRow
from projections.timelines.encoding import BLOCK_STEPS, Part, Ready, Stored, encoded, stored_form
from projections.timelines.rebuild.external_sort import HELD_EVENTS, Range, Said, Sorter, read_change, read_said

READ_EVENTS: Final = 1_000
"""Positions looked through at a time, each time in a transaction of its own: a long one keeps SQLite's log growing, and
more events than a processor's cache holds take a third longer."""


class Read(Struct, tag=True, array_like=True, gc=False):
    """So many more positions of the ledger were looked through, and of these so many events were of the range."""

    positions: int
    events: int


class Folded(Struct, tag=True, array_like=True, gc=False):
    """Finished rows, in the order of their keys; made of so many events."""

    rows: list[StoredRow]
    blocks: list[BlockRow]
    events: int


def fold_ranges(
    recorder: Recorder, until: int, ranges: Sequence[Range], *, held_events: int = HELD_EVENTS
) -> Iterator[Read | Folded]:
    """The rows of all subjects in `ranges`, which follow each other, as of position `until`.

    Raises `LedgerCorrupt`, naming the position, at an event that cannot be read or is out of its place.
    """
    above, upto = ranges[0].above, ranges[-1].upto
    with Sorter(ranges, held_events) as sorter:
        for after in range(0, until, READ_EVENTS):
            end = min(after + READ_EVENTS, until)
            told = recorder.events_in_range(after, end, above, upto)
            added = sorter.add(
                (subject, read_entry(position, version, leaf)) for position, subject, version, leaf in told
            )
            yield Read(end - after, added)
        for bucket in sorter.buckets():
            yield fold_bucket(bucket)


class _Setting:
    """What was said about a subject's setting: first, steps of both timelines as long as each change only goes on from
    the one before; `more`, everything from the first one on that does not."""

    __slots__ = ("changes", "more", "starts")

    def __init__(self) -> None:
        self.starts = [BEGINNING]
        self.changes: list[Raw | None] = [None]
        self.more: list[Said] = []


class _Subject:
    """`last`: of what was said about it."""

    __slots__ = ("events", "last", "settings")

    def __init__(self, first: Said) -> None:
        self.last = first
        self.events = 0
        self.settings: dict[str, _Setting] = {}


def fold_bucket(bucket: Iterable[Said]) -> Folded:
    """The rows of the subjects of which all is said in `bucket`, in position order. Raises `LedgerCorrupt`."""
    subjects: dict[str, _Subject] = {}
    for said in bucket:
        subject = subjects.get(said.subject)
        if subject is None:
            subject = subjects[said.subject] = _Subject(said)
        subject.last = said
        subject.events += 1
        setting = subject.settings.get(said.setting)
        if setting is None:
            setting = subject.settings[said.setting] = _Setting()
        start = said.start
        if start is not None and start > setting.starts[-1] and not setting.more:
            setting.starts.append(start)
            setting.changes.append(said.assertion)
        else:
            setting.more.append(said)
    rows: list[StoredRow] = []
    blocks: list[BlockRow] = []
    for name, subject in sorted(subjects.items()):
        last = read_said(subject.last)
        if last.version != subject.events:
            # Each is where its own bytes say, so their number is enough.
            raise LedgerCorrupt(f"{name} is at version {last.version} and has {subject.events} events up to there")
        settings: dict[str, Raw | Stored | Ready] = {}
        for of, said_of in subject.settings.items():
            if len(said_of.starts) <= BLOCK_STEPS and not said_of.more:
                settings[of] = Ready((0, said_of.starts, said_of.changes))
                continue
            stored, cut = stored_form(name, of, Part(0, _timelines(said_of), False))
            if stored is not None:
                settings[of] = stored
            blocks += cut
        rows.append(StoredRow(name, last.version, last.position, encoded(settings)))
    return Folded(rows, sorted(blocks), sum(subject.events for subject in subjects.values()))


def _timelines(setting: _Setting) -> Timelines:
    known = [read_change(raw) for raw in setting.changes if raw is not None]
    timeline = Timeline(setting.starts, [None, *known])
    return extend(Timelines(timeline, timeline), known, map(read_said, setting.more))
