"""Effective state: every setting of a subject at (at, known_at), each with its source.

A subject's own value shows where it has one (`explicit`); elsewhere the catalog's default of that moment does
(`default`). Unset and explicitly set to the default stay different. Where the setting is not for the subject's kind
the source is `not_applicable`, and where the catalog did not hold it then, or nothing was known yet, `undefined`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, Protocol

from ledger.subjects import kind_of
from ledger.times import END
from projections.temporal.changes import Change, JsonValue, Retraction
from projections.temporal.fold import Timeline

Source = Literal["explicit", "default", "not_applicable", "undefined"]


class _SettingState(NamedTuple):
    subject: str
    setting: str
    value: JsonValue
    source: Source
    change: Change | None
    cleared_by: Change | None = None


class SettingState(_SettingState):
    """What a setting of a subject came to, and why. `change` is the deciding event: the subject's own, or for a
    default the definition; None where the source is `undefined`. `cleared_by`: the clear that a default shows
    through, if there is one."""

    written: bytes | None = None
    """Its JSON, once it was wanted: many decisions rest on the same state. Kept by `projections.decisions.encoding`."""

    @property
    def newest(self) -> Change | None:
        """The last event that made it so: the deciding one, or the clear that brought the default back."""
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


class States(Protocol):
    """Effective state at one (at, known_at): all that scope and check may ask."""

    def setting(self, subject: str, setting: str) -> SettingState: ...

    def definition(self, setting: str) -> Mapping[str, Any] | None:
        """The definition's members (`kinds`, `default`, `protective`, …), or None where there is none."""

    def taken_back(self, subject: str, setting: str, after: int) -> Retraction | None:
        """The retraction, later than position `after`, of the change that decided there. None: it still stands."""


def effective(subject: str, setting: str, own: Change | None, definition: Change | None) -> SettingState:
    """`own`: the step of the subject's timeline; `definition`: of the catalog's; both at one (at, known_at)."""
    if definition is None or definition.value is None:
        return SettingState(subject, setting, None, "undefined", None)
    members: Any = definition.value
    if kind_of(subject) not in members["kinds"]:
        return SettingState(subject, setting, members["default"], "not_applicable", definition)
    if own is None or own.value is None:
        return SettingState(subject, setting, members["default"], "default", definition, own)
    return SettingState(subject, setting, own.value, "explicit", own)


def intervals(subject: str, setting: str, own: Timeline, definition: Timeline) -> Iterator[Interval]:
    """The setting over all of valid time, half-open, gapless; neighbours with one deciding event are one interval."""
    pending: Interval | None = None
    for start in sorted({*own.starts, *definition.starts}):
        state = effective(subject, setting, own.at(start), definition.at(start))
        interval = Interval(setting, state.value, state.source, start, END, state.change)
        if pending is not None:
            if (pending.source, pending.change) == (interval.source, interval.change):
                continue
            yield pending._replace(until=start)
        pending = interval
    assert pending is not None, "a timeline begins at BEGINNING"
    yield pending
