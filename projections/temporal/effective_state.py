"""Effective state: every setting of a subject at (at, known_at), each with its source.

The subject's own value counts where there is one (`explicit`), else the catalog's default of that moment (`default`).
Unset and explicitly set to the default stay different. The source is `not_applicable` if the setting is not for the
subject's kind, and `undefined` if the catalog did not define the setting at that moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from ledger.subjects import kind_of
from ledger.times import END
from projections.temporal.changes import Change, JsonValue
from projections.temporal.fold import Timeline

Source = Literal["explicit", "default", "not_applicable", "undefined"]


class _SettingState(NamedTuple):
    subject: str
    setting: str
    value: JsonValue
    source: Source
    change: Change | None
    cleared_by: Change | None = None
    observed: JsonValue = None


class SettingState(_SettingState):
    """The value of a subject's setting, and the event that decided it.

    `change`: the subject's own deciding change, or the definition if the source is `default` or `not_applicable`; None
    if the source is `undefined`. `cleared_by`: the clear that lets a default show through, if there is one. `observed`:
    in the evidence of a decision, what a log says in place of the value.
    """

    encoded: bytes | None = None
    """Its JSON, cached by `projections.decisions.encoding`: many decisions share one state."""

    @property
    def newest(self) -> Change | None:
        """The later of the deciding event and the clear that brought the default back."""
        if self.cleared_by is None or self.change is None or self.change.position > self.cleared_by.position:
            return self.change
        return self.cleared_by


class Interval(NamedTuple):
    """One setting over [start, until) of valid time, in µs; BEGINNING and END stand for no bound."""

    setting: str
    value: JsonValue
    source: Source
    start: int
    until: int
    change: Change | None


def effective(subject: str, setting: str, change: Change | None, definition: Change | None) -> SettingState:
    """`change`: the step of the subject's timeline; `definition`: of the catalog's; both at one (at, known_at)."""
    if definition is None or definition.value is None:
        return SettingState(subject, setting, None, "undefined", None)
    members: Any = definition.value
    if kind_of(subject) not in members["kinds"]:
        return SettingState(subject, setting, members["default"], "not_applicable", definition)
    if change is None or change.value is None:
        return SettingState(subject, setting, members["default"], "default", definition, change)
    return SettingState(subject, setting, change.value, "explicit", change)


class NextState(NamedTuple):
    """The next change of a setting: `state` holds from `start` (µs) on."""

    start: int
    state: SettingState

    @property
    def deciding(self) -> Change | None:
        """The event that then decides: the change, or the clear or the definition behind a default."""
        return self.state.cleared_by or self.state.change


def next_state(subject: str, setting: str, changes: Timeline, definitions: Timeline, at: int) -> NextState | None:
    """The first state after `at` (µs) that another event decides. None: nothing changes any more."""

    def state_at(instant: int) -> SettingState:
        return effective(subject, setting, changes.at(instant), definitions.at(instant))

    now = state_at(at)
    for start in sorted({*changes.starts_after(at), *definitions.starts_after(at)}):
        state = state_at(start)
        if (state.source, state.change) != (now.source, now.change):
            return NextState(start, state)
    return None


def intervals(subject: str, setting: str, changes: Timeline, definitions: Timeline) -> Iterator[Interval]:
    """The setting over all of valid time: half-open intervals without gaps, one for each run of one deciding event."""
    pending: Interval | None = None
    for start in sorted({*changes.starts, *definitions.starts}):
        state = effective(subject, setting, changes.at(start), definitions.at(start))
        interval = Interval(setting, state.value, state.source, start, END, state.change)
        if pending is not None:
            if (pending.source, pending.change) == (interval.source, interval.change):
                continue
            yield pending._replace(until=start)
        pending = interval
    assert pending is not None, "a timeline begins at BEGINNING"
    yield pending
