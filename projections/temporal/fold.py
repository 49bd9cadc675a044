"""The fold: changes → step function over valid time. The law of projections/README.md, "Time model".

For one subject and one setting, in position order:

- a change with an end overwrites its whole period;
- a change without an end replaces the step that holds at its effective_from, from there to the end of that step, so
  that a change that is already scheduled later still happens;
- a clear is a change to no value;
- a retraction removes its change, and all others are folded again without it.

This is the bitemporal model of SQL:2011 and of R. T. Snodgrass, "Developing Time-Oriented Database Applications in
SQL" (1999). Proved by tests/temporal/test_bitemporal_cases.py (published examples) and tests/temporal/test_fold.py
(against a slow reference that shares no code with it).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from ledger.times import BEGINNING, END
from projections.temporal.changes import Assertion, Change, Retraction, same_change


class Step(NamedTuple):
    """`change` is in force in [start, until); None: no change ever covered that time. Instants in µs."""

    start: int
    until: int
    change: Change | None


class Timeline:
    """A step function over [BEGINNING, END): step i holds from starts[i] to starts[i + 1]. Grows by `apply`."""

    __slots__ = ("changes", "starts")

    def __init__(self, starts: list[int] | None = None, changes: list[Change | None] | None = None) -> None:
        self.starts: Final[list[int]] = [BEGINNING] if starts is None else starts
        self.changes: Final[list[Change | None]] = [None] if changes is None else changes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Timeline) and self.starts == other.starts and self.changes == other.changes

    def __hash__(self) -> int:
        raise TypeError("a Timeline grows, so it has no hash")

    def __repr__(self) -> str:
        return f"Timeline({list(self.steps())!r})"

    def at(self, instant: int) -> Change | None:
        """The change in force at `instant` (µs), which lies in [BEGINNING, END)."""
        return self.changes[bisect_right(self.starts, instant) - 1]

    def step(self, instant: int) -> Step:
        return self._step(bisect_right(self.starts, instant) - 1)

    def steps(self) -> Iterator[Step]:
        """All steps, in order, without gaps, from BEGINNING to END."""
        return map(self._step, range(len(self.starts)))

    def _step(self, index: int) -> Step:
        until = self.starts[index + 1] if index + 1 < len(self.starts) else END
        return Step(self.starts[index], until, self.changes[index])

    def copy(self) -> Timeline:
        return Timeline(list(self.starts), list(self.changes))

    def apply(self, change: Change) -> None:
        """Applies one more change, recorded after all before it."""
        start, until = change.effective_from, change.effective_until
        starts, changes = self.starts, self.changes
        last = starts[-1]
        if start < last:
            self._overwrite(start, self.step(start).until if until is None else until, change)
            return
        # The ordinary case, at the same cost however many steps there are: nothing is scheduled after `start`.
        resumed = changes[-1]
        if start > last:
            starts.append(start)
            changes.append(change)
        else:
            changes[-1] = change
        if until is not None:
            starts.append(until)
            changes.append(resumed)

    def _overwrite(self, start: int, until: int, change: Change | None) -> None:
        first = bisect_left(self.starts, start)
        last = bisect_right(self.starts, until) - 1
        resumed = self.changes[last]
        starts: list[int] = [start]
        changes: list[Change | None] = [change]
        if until < END and self.starts[last] != until:
            starts.append(until)
            changes.append(resumed)
        beyond = last if until < END and self.starts[last] == until else last + 1
        self.starts[first:beyond] = starts
        self.changes[first:beyond] = changes

    def splice(self, start: int, newer: Timeline) -> None:
        """Replaces everything from `start` (µs) on by `newer`. Neighbours of one change become one step."""
        length = bisect_left(self.starts, start)
        del self.starts[length:]
        del self.changes[length:]
        first = bisect_right(newer.starts, start) - 1
        starts = [start, *newer.starts[first + 1 :]]
        changes = newer.changes[first:]
        if self.changes and same_change(self.changes[-1], changes[0]):
            del starts[0]
            changes = changes[1:]
        self.starts.extend(starts)
        self.changes.extend(changes)


def fold_changes(changes: Iterable[Change]) -> Timeline:
    timeline = Timeline()
    for change in changes:
        timeline.apply(change)
    return timeline


def fold(assertions: Iterable[Assertion]) -> dict[str, Timeline]:
    """Setting → timeline of one subject, knowing exactly these of its changes and retractions, in position order."""
    known = list(assertions)
    retracted = {assertion.retracts for assertion in known if isinstance(assertion, Retraction)}
    timelines: dict[str, Timeline] = {}
    for assertion in known:
        # A setting whose changes were all retracted is still known: its timeline is empty, not absent.
        timeline = timelines.setdefault(assertion.setting, Timeline())
        if isinstance(assertion, Change) and assertion.event_id not in retracted:
            timeline.apply(assertion)
    return timelines


def deciding_retraction(known: list[Assertion], setting: str, at: int, after: int) -> Retraction | None:
    """The retraction of the change that decided at `at` (µs) with the ledger known up to position `after`."""
    early = fold(one for one in known if one.setting == setting and one.position <= after)
    deciding = early[setting].at(at) if setting in early else None
    if deciding is None:
        return None
    late = (one for one in known if isinstance(one, Retraction) and one.position > after)
    return next((retraction for retraction in late if retraction.retracts == deciding.event_id), None)
