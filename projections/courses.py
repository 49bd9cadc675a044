"""A setting in force over all of valid time, with what hindsight agrees with: made once, then read at any instant.

It is `effective` at every instant where the subject's own timeline or the definition's takes a step; between two of
them nothing changes. Proved by tests/test_courses.py.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final, NamedTuple

from projections.changes import Change
from projections.fold import Timeline
from projections.in_force import Timelines
from projections.state import SettingState, effective

NOTHING: Final = Timelines(Timeline(), Timeline())
"""The timelines of what nothing was ever said about. Never to be extended."""


class Course(NamedTuple):
    """Step i holds from starts[i] (µs) to starts[i + 1]. `settled[i]`: what is known now has the same events there."""

    starts: list[int]
    states: list[SettingState]
    settled: list[bool]

    def at(self, instant: int) -> tuple[SettingState, bool]:
        step = bisect_right(self.starts, instant) - 1
        return self.states[step], self.settled[step]


def course(subject: str, setting: str, own: Timelines, definition: Timelines) -> Course:
    """`own`: the subject's timelines of the setting; `definition`: the catalog's."""
    timelines = (own.in_force, own.current, definition.in_force, definition.current)
    starts = sorted({start for timeline in timelines for start in timeline.starts})
    states: list[SettingState] = []
    settled: list[bool] = []
    for start in starts:
        said, defined = own.in_force.at(start), definition.in_force.at(start)
        states.append(effective(subject, setting, said, defined))
        settled.append(_same(said, own.current.at(start)) and _same(defined, definition.current.at(start)))
    return Course(starts, states, settled)


def _same(one: Change | None, other: Change | None) -> bool:
    return one is other or (one is not None and other is not None and one.position == other.position)
