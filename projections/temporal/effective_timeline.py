"""The effective timeline of a setting in force, marking where hindsight agrees: built once, then read at any instant.

Effective state changes only where the subject's own timeline or the definition's takes a step, so it is computed once
for each of these instants. Proved by tests/temporal/test_effective_timeline.py.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final, NamedTuple

from projections.temporal.changes import same_change
from projections.temporal.effective_state import SettingState, effective
from projections.temporal.fold import Timeline
from projections.temporal.in_force import Timelines

NO_TIMELINES: Final = Timelines(Timeline(), Timeline())
"""The timelines of a setting without any change. Never extend these: they are shared."""

EFFECTIVE_STEPS_MAX: Final = 256
"""Longer timelines get no effective timeline: each event about the subject would rebuild all of it."""


class EffectiveTimeline(NamedTuple):
    """Step i holds from starts[i] (µs) to starts[i + 1].

    `same_in_hindsight[i]`: the same events decide there with everything known now.
    """

    starts: list[int]
    states: list[SettingState]
    same_in_hindsight: list[bool]

    def step(self, instant: int) -> int:
        return bisect_right(self.starts, instant) - 1


def effective_timeline(subject: str, setting: str, changes: Timelines, definitions: Timelines) -> EffectiveTimeline:
    """`changes`: the subject's timelines of the setting; `definitions`: the catalog's."""
    timelines = (changes.in_force, changes.current, definitions.in_force, definitions.current)
    starts = sorted({start for timeline in timelines for start in timeline.starts})
    steps = [effective_at(subject, setting, changes, definitions, start) for start in starts]
    return EffectiveTimeline(starts, [state for state, _ in steps], [same for _, same in steps])


def effective_at(
    subject: str, setting: str, changes: Timelines, definitions: Timelines, instant: int
) -> tuple[SettingState, bool]:
    """(state, same in hindsight) at `instant` (µs), without an effective timeline."""
    change, definition = changes.in_force.at(instant), definitions.in_force.at(instant)
    same = same_change(change, changes.current.at(instant)) and same_change(definition, definitions.current.at(instant))
    return effective(subject, setting, change, definition), same
