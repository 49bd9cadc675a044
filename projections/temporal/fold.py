"""The fold: changes → step function over valid time. The law of DESIGN.md section 3.

For one subject and one setting, in position order:

- a change with an end overwrites its whole period;
- a change without one replaces what is in force at its effective_from, from there on, for as long as that would have
  remained in force, so that what is already scheduled after it still happens;
- a clear is a change to no value;
- a retracted change is left out, and everything is folded again without it.

This is the bitemporal model of SQL:2011 and of R. T. Snodgrass, "Developing Time-Oriented Database Applications in
SQL" (1999). Proved by tests/test_bitemporal_cases.py (published examples) and tests/test_fold.py (against a slow
reference that shares no code with it).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from ledger.times import BEGINNING, END
from projections.temporal.changes import Assertion, Change, Retraction


class Step(NamedTuple):
    """`change` is in force in [start, until); None: nothing has ever been said about that time. Instants in µs."""

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
        index = bisect_right(self.starts, instant) - 1
        until = self.starts[index + 1] if index + 1 < len(self.starts) else END
        return Step(self.starts[index], until, self.changes[index])

    def steps(self) -> Iterator[Step]:
        """All steps, in order, without gaps, from BEGINNING to END."""
        for index, (start, change) in enumerate(zip(self.starts, self.changes, strict=True)):
            yield Step(start, self.starts[index + 1] if index + 1 < len(self.starts) else END, change)

    def copy(self) -> Timeline:
        return Timeline(list(self.starts), list(self.changes))

    def apply(self, change: Change) -> None:
        """Lets one more change, recorded after all before it, take its effect."""
        start, until = change.effective_from, change.effective_until
        starts, changes = self.starts, self.changes
        last = starts[-1]
        if start < last:
            self._overwrite(start, self.step(start).until if until is None else until, change)
            return
        # The ordinary case, at the cost of a step however many there are: nothing was to happen after it.
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
        """From `start` (µs) on, be `newer`; before it, stay as you are. Neighbours of one change become one step."""
        keep = bisect_left(self.starts, start)
        del self.starts[keep:]
        del self.changes[keep:]
        take = bisect_right(newer.starts, start) - 1
        starts = [start, *newer.starts[take + 1 :]]
        changes = newer.changes[take:]
        if self.changes and _same(self.changes[-1], changes[0]):
            del starts[0]
            changes = changes[1:]
        self.starts.extend(starts)
        self.changes.extend(changes)


def _same(one: Change | None, other: Change | None) -> bool:
    return one is other or (one is not None and other is not None and one.position == other.position)


def retraction_of_decided(known: list[Assertion], setting: str, at: int, after: int) -> Retraction | None:
    """The retraction of the change that decided at `at` (µs) for who knew the ledger up to position `after`."""
    early = fold(said for said in known if said.setting == setting and said.position <= after).get(setting)
    decided = None if early is None else early.at(at)
    late = (said for said in known if isinstance(said, Retraction) and said.position > after)
    return next((said for said in late if decided is not None and said.retracts == decided.event_id), None)


def fold(assertions: Iterable[Assertion]) -> dict[str, Timeline]:
    """Setting → timeline of one subject, knowing exactly these of its changes and retractions, in position order."""
    known = list(assertions)
    retracted = {assertion.retracts for assertion in known if isinstance(assertion, Retraction)}
    timelines: dict[str, Timeline] = {}
    for assertion in known:
        # A setting of which everything was retracted is still known of: its timeline is empty, not absent.
        timeline = timelines.setdefault(assertion.setting, Timeline())
        if isinstance(assertion, Change) and assertion.event_id not in retracted:
            timeline.apply(assertion)
    return timelines
