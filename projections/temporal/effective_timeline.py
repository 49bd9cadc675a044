"""A setting in force over all of valid time, with what hindsight agrees with: made once, then read at any instant.

It is `effective` at every instant where the subject's own timeline or the definition's takes a step; between two of
them nothing changes. Proved by tests/test_courses.py.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final, NamedTuple

from projections.temporal.changes import Change
from projections.temporal.effective_state import SettingState, effective
from projections.temporal.fold import Timeline
from projections.temporal.in_force import Timelines

NOTHING: Final = Timelines(Timeline(), Timeline())
"""The timelines of what nothing was ever said about. Never to be extended."""

EFFECTIVE_STEPS_MAX: Final = 256
"""Of timelines with more steps no course is made: each event about the subject would have it all made anew."""


class EffectiveTimeline(NamedTuple):
    """Step i holds from starts[i] (µs) to starts[i + 1]. `settled[i]`: what is known now has the same events there."""

    starts: list[int]
    states: list[SettingState]
    settled: list[bool]

    def step(self, instant: int) -> int:
        return bisect_right(self.starts, instant) - 1

    def at(self, instant: int) -> tuple[SettingState, bool]:
        step = self.step(instant)
        return self.states[step], self.settled[step]


def effective_timeline(subject: str, setting: str, own: Timelines, definition: Timelines) -> EffectiveTimeline:
    """`own`: the subject's timelines of the setting; `definition`: the catalog's."""
    timelines = (own.in_force, own.current, definition.in_force, definition.current)
    starts = sorted({start for timeline in timelines for start in timeline.starts})
    points = [point(subject, setting, own, definition, start) for start in starts]
    return EffectiveTimeline(starts, [state for state, _ in points], [settled for _, settled in points])


def point(subject: str, setting: str, own: Timelines, definition: Timelines, instant: int) -> tuple[SettingState, bool]:
    """What the course says at `instant` (µs): for one look at timelines of many steps, of which none is made."""
    said, defined = own.in_force.at(instant), definition.in_force.at(instant)
    settled = _same(said, own.current.at(instant)) and _same(defined, definition.current.at(instant))
    return effective(subject, setting, said, defined), settled


def _same(one: Change | None, other: Change | None) -> bool:
    return one is other or (one is not None and other is not None and one.position == other.position)
