"""The differences between two stored forms of a subject's timelines, in words of the domain. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from ledger.errors import LedgerCorrupt
from projections.temporal.changes import large_value_json
from projections.timelines.contract import Axis, BlockRow, StoredRow, SubjectRow
from projections.timelines.encoding import decode_timelines

DIFFERENCES_MAX: Final = 10
_encode: Final = msgspec.json.Encoder(enc_hook=large_value_json).encode


class StepRow(NamedTuple):
    """`change` (a `Change` as JSON) is in force in [start, until). Instants in µs."""

    start: int
    until: int
    change: str


class Unlike(NamedTuple):
    """A subject whose rows cannot be read, or hold the same steps in other bytes."""

    what: str


class RowDifference(NamedTuple):
    """One difference between the sides; None: the row or step is missing there.

    `setting` and `axis` None: the difference is about the whole subject.
    """

    subject: str
    setting: str | None
    axis: Axis | None
    live: StepRow | SubjectRow | Unlike | None
    rebuilt: StepRow | SubjectRow | Unlike | None


class SubjectRows(NamedTuple):
    """All that one side stores of a subject."""

    row: StoredRow | None
    blocks: Sequence[BlockRow]


def differences(subject: str, live: SubjectRows, rebuilt: SubjectRows) -> Iterator[RowDifference]:
    """The subject's own difference first, then those of its steps by setting, axis and start."""
    heads = [None if rows.row is None else SubjectRow(*rows.row[:3]) for rows in (live, rebuilt)]
    differs = heads[0] != heads[1]
    if differs:
        yield RowDifference(subject, None, None, heads[0], heads[1])
    try:
        live_steps, rebuilt_steps = _steps(live), _steps(rebuilt)
    except LedgerCorrupt:
        yield RowDifference(subject, None, None, Unlike("rows that make no timelines"), heads[1])
        return
    for key in sorted(live_steps.keys() | rebuilt_steps.keys()):
        one, other = live_steps.get(key), rebuilt_steps.get(key)
        if one != other:
            differs = True
            setting, axis, _ = key
            yield RowDifference(subject, setting, axis, one, other)
    if not differs:
        yield RowDifference(subject, None, None, Unlike("the same steps in other bytes"), heads[1])


def _steps(rows: SubjectRows) -> dict[tuple[str, Axis, int], StepRow]:
    if rows.row is None:
        return {}
    timelines = decode_timelines(rows.row.subject, rows.row.settings, rows.blocks)
    axes: tuple[Axis, Axis] = ("current", "in_force")
    return {
        (setting, axis, step.start): StepRow(step.start, step.until, _encode(step.change).decode())
        for setting, both in timelines.items()
        for axis, timeline in zip(axes, both, strict=True)
        for step in timeline.steps()
        if step.change is not None
    }


def first_of(*groups: Iterable[RowDifference]) -> tuple[RowDifference, ...]:
    """The first differences by subject, the subjects' own before those of their settings."""
    merged = [difference for group in groups for difference in group]
    return tuple(sorted(merged, key=lambda one: (one.subject, one.setting or "", one.axis or ""))[:DIFFERENCES_MAX])
