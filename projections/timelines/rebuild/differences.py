"""What differs between two stored forms of a subject's timelines, in words of the domain. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from ledger.errors import LedgerCorrupt
from projections.temporal.changes import Change
from projections.timelines.contract import Axis, BlockRow, StoredRow, SubjectRow
from projections.timelines.encoding import timelines_of


class StepRow(NamedTuple):
    """`change` (a `Change` as JSON) is in force in [start, until). Instants in µs."""

    start: int
    until: int
    change: str


class Unlike(NamedTuple):
    """A subject whose rows cannot be read, or say the same in other bytes."""

    what: str


class Difference(NamedTuple):
    """What is not the same on both sides; None: it is not there. `setting` and `axis` None: it is about the whole
    subject."""

    subject: str
    setting: str | None
    axis: Axis | None
    live: StepRow | SubjectRow | Unlike | None
    rebuilt: StepRow | SubjectRow | Unlike | None


class Rows(NamedTuple):
    """All that one side stores of a subject."""

    row: StoredRow | None
    blocks: Sequence[BlockRow]


def differences(subject: str, live: Rows, rebuilt: Rows) -> Iterator[Difference]:
    """The subject's own first, then by setting, axis and start."""
    heads = [None if rows.row is None else SubjectRow(*rows.row[:3]) for rows in (live, rebuilt)]
    told = heads[0] != heads[1]
    if told:
        yield Difference(subject, None, None, heads[0], heads[1])
    try:
        ours, theirs = _steps(live), _steps(rebuilt)
    except LedgerCorrupt:
        yield Difference(subject, None, None, Unlike("rows that make no timelines"), heads[1])
        return
    for setting, axis, start in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get((setting, axis, start)), theirs.get((setting, axis, start))
        if one != other:
            told = True
            yield Difference(subject, setting, axis, one, other)
    if not told:
        yield Difference(subject, None, None, Unlike("the same steps in other bytes"), heads[1])


def _steps(rows: Rows) -> dict[tuple[str, Axis, int], StepRow]:
    if rows.row is None:
        return {}
    found = timelines_of(rows.row.subject, rows.row.settings, rows.blocks)
    axes: tuple[Axis, Axis] = ("current", "in_force")
    return {
        (setting, axis, step.start): StepRow(step.start, step.until, _json(step.change))
        for setting, both in found.items()
        for axis, timeline in zip(axes, both, strict=True)
        for step in timeline.steps()
        if step.change is not None
    }


def _json(change: Change) -> str:
    return msgspec.json.encode(change).decode()


def first_of(*found: Iterable[Difference], limit: int) -> tuple[Difference, ...]:
    """The first differences by subject, the subjects' own before those of their settings."""
    both = [difference for some in found for difference in some]
    return tuple(sorted(both, key=lambda one: (one.subject, one.setting or "", one.axis or ""))[:limit])
