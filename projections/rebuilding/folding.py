"""A range of subjects, from their events to their rows: what one process of a rebuild does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from ledger.errors import LedgerCorrupt
from ledger.recorders.contract import Recorder
from projections.changes import Assertion
from projections.in_force import fold_both
from projections.rebuilding.sorting import HELD_EVENTS, Range, Sorter
from projections.runner import read_entry
from projections.timelines.contract import BlockRow, StoredRow
from projections.timelines.form import Part, encoded, stored_form

READ_EVENTS: Final = 20_000
"""Positions looked through at a time, each time in a transaction of its own: a long one keeps SQLite's log growing."""


class Read(NamedTuple):
    """So many more positions of the ledger were looked through, and of these so many events were of the range."""

    positions: int
    events: int


class Folded(NamedTuple):
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
            told = recorder.told(after, end, above, upto)
            sorter.add([(subject, read_entry(position, version, leaf)) for position, subject, version, leaf in told])
            yield Read(end - after, len(told))
        for bucket in sorter.buckets():
            yield _folded(bucket)


def _folded(bucket: Mapping[str, list[Assertion]]) -> Folded:
    rows: list[StoredRow] = []
    blocks: list[BlockRow] = []
    events = 0
    for subject, said in bucket.items():
        last = said[-1]
        if last.version != len(said):
            # Each is where its own bytes say, so their number is enough.
            raise LedgerCorrupt(f"{subject} is at version {last.version} and has {len(said)} events up to there")
        events += len(said)
        settings = {}
        for setting, timelines in fold_both(said).items():
            stored, cut = stored_form(subject, setting, Part(0, timelines, False))
            if stored is not None:
                settings[setting] = stored
            blocks += cut
        rows.append(StoredRow(subject, last.version, last.position, encoded(settings)))
    return Folded(rows, sorted(blocks), events)
