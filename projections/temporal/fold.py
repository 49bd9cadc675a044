"""The fold: changes → step function over valid time. The law of projections/README.md, "Time model".

For one subject and one setting, a change is *standing* (no end) or *temporary* (with one):

- a standing change is a regime: it holds from its effective_from until the next standing change in order of
  effective_from; of two with the same one, the later recorded counts. So what is already scheduled still happens;
- a temporary change is an exception, laid over regimes for its whole period; of overlapping exceptions, the later
  recorded counts;
- a standing change ends, from its effective_from on, every exception that was recorded before it and has begun by then.
  Exceptions that begin later still happen;
- a clear is a change to no value, standing or temporary;
- a retraction removes its change, and all others are folded again without it.

So from its effective_from on, a standing change leaves only the changes that begin later. This is the bitemporal model
of SQL:2011 and of R. T. Snodgrass, "Developing Time-Oriented Database Applications in SQL" (1999).

`decides` is the law at one instant. `Timeline.apply` adds one change to the steps. `fold_changes` folds all at once, in
n log n. Proved by tests/temporal/test_fold.py (against a slow reference that shares no code with it),
tests/temporal/test_law_cases.py and tests/temporal/test_bitemporal_cases.py (published examples).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
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

    def starts_after(self, instant: int) -> list[int]:
        """The starts (µs) of the steps that begin later than `instant`."""
        return self.starts[bisect_right(self.starts, instant) :]

    def copy(self) -> Timeline:
        return Timeline(list(self.starts), list(self.changes))

    def apply(self, change: Change) -> bool:
        """Applies one more change, recorded after all before it.

        False: nothing is altered, because the change ends an exception that may hide others. Call `restart`.
        """
        start, until = change.effective_from, change.effective_until
        starts, changes = self.starts, self.changes
        last = starts[-1]
        if start < last:
            if until is None:
                return self._begin_regime(change)
            self._overwrite(start, until, change)
            return True
        # The ordinary case, at the same cost however many steps there are: nothing is scheduled after `start`. The last
        # step is never an exception, because an exception has an end, and a step begins there.
        resumed = changes[-1]
        if start > last:
            starts.append(start)
            changes.append(change)
        else:
            changes[-1] = change
        if until is not None:
            starts.append(until)
            changes.append(resumed)
        return True

    def _begin_regime(self, change: Change) -> bool:
        """`apply` for a standing change with steps after its start.

        Where no exception is seen, none is hidden: so it replaces the regime of its start up to the next regime, and
        the exceptions in between stay.
        """
        start = change.effective_from
        first = bisect_right(self.starts, start) - 1
        replaced: list[Change | None] = [change]
        for index in range(first, len(self.starts)):
            seen = self.changes[index]
            if seen is not None and seen.effective_until is None and seen.effective_from > start:
                break
            begun = seen is None or seen.effective_from <= start
            if begun and seen is not None and seen.effective_until is not None:
                return False
            if index > first:
                replaced.append(change if begun else seen)
        if self.starts[first] < start:
            first += 1
            self.starts.insert(first, start)
            self.changes.insert(first, change)
        self.changes[first : first + len(replaced)] = replaced
        return True

    def restart(self, change: Change, later: Iterable[Change]) -> None:
        """Applies a standing change for which `apply` returned False.

        `later`: the known changes that begin after it, in position order. From its start on it leaves only these.
        """
        self.splice(change.effective_from, fold_changes([*later, change]))

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


def fold_changes(changes: Sequence[Change]) -> Timeline:
    """The timeline of these changes, which are known, not retracted and in position order."""
    timeline = Timeline()
    for change in changes:
        if not timeline.apply(change):
            return _painted(changes)
    return timeline


def _painted(changes: Sequence[Change]) -> Timeline:
    """`fold_changes` whatever hides what: regimes first, then the exceptions over them, each where no later recorded
    one lies."""
    regimes: dict[int, Change] = {}
    cuts: list[int] = []
    exceptions: list[tuple[int, int, Change]] = []
    for change in reversed(changes):
        start, until = change.effective_from, change.effective_until
        if until is None:
            if start not in regimes:
                regimes[start] = change
                insort(cuts, start)
            continue
        # The first standing change within it that was recorded later.
        cut = bisect_left(cuts, start)
        until = min(until, cuts[cut]) if cut < len(cuts) else until
        if start < until:
            exceptions.append((start, until, change))
    bounds = {bound for start, until, _ in exceptions for bound in (start, until)}
    starts = sorted({BEGINNING, *cuts, *bounds})
    steps: list[Change | None] = []
    regime = None
    for start in starts:
        regime = regimes.get(start, regime)
        steps.append(regime)
    number = {start: index for index, start in enumerate(starts)}
    # unpainted[i] leads to the first step from i on that no exception has painted yet.
    unpainted = list(range(len(starts) + 1))
    for start, until, change in exceptions:
        index, end = _root(unpainted, number[start]), number[until]
        while index < end:
            steps[index] = change
            unpainted[index] = index + 1
            index = _root(unpainted, index + 1)
    kept = [index for index, step in enumerate(steps) if index == 0 or step is not steps[index - 1]]
    return Timeline([starts[index] for index in kept], [steps[index] for index in kept])


def _root(leads: list[int], index: int) -> int:
    while leads[index] != index:
        leads[index] = leads[leads[index]]
        index = leads[index]
    return index


def fold(assertions: Iterable[Assertion]) -> dict[str, Timeline]:
    """Setting → timeline of one subject, knowing exactly these of its changes and retractions, in position order."""
    known = list(assertions)
    retracted = {assertion.retracts for assertion in known if isinstance(assertion, Retraction)}
    changes: dict[str, list[Change]] = {}
    for assertion in known:
        # A setting whose changes were all retracted is still known: its timeline is empty, not absent.
        of_setting = changes.setdefault(assertion.setting, [])
        if isinstance(assertion, Change) and assertion.event_id not in retracted:
            of_setting.append(assertion)
    return {setting: fold_changes(of_setting) for setting, of_setting in changes.items()}


def decides(changes: Sequence[Change], at: int) -> Change | None:
    """The change of one setting that decides at `at` (µs), of these, which are known, not retracted and in position
    order: the law at one instant."""
    # The start of the last regime that has begun by `at`, of the changes looked at so far.
    begun = BEGINNING - 1
    regime = None
    for change in reversed(changes):
        start, until = change.effective_from, change.effective_until
        if not begun < start <= at:
            continue
        if until is None:
            begun, regime = start, change
        elif at < until:
            return change
    return regime


def deciding_retraction(known: list[Assertion], setting: str, at: int, after: int) -> Retraction | None:
    """The retraction of the change that decided at `at` (µs) with the ledger known up to position `after`."""
    of_setting = [one for one in known if one.setting == setting]
    retractions = [one for one in of_setting if isinstance(one, Retraction)]
    early = {one.retracts for one in retractions if one.position <= after}
    changes = [
        one for one in of_setting if isinstance(one, Change) and one.position <= after and one.event_id not in early
    ]
    deciding = decides(changes, at)
    if deciding is None:
        return None
    late = (one for one in retractions if one.position > after)
    return next((retraction for retraction in late if retraction.retracts == deciding.event_id), None)
