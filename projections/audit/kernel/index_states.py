"""The states of a policy index in the form that `check` takes, for rows that are decided one by one.

The index does not hold whole events. So a deciding event has only its position here, and in place of its two instants
the later of the two. Proved by tests/audit/kernel/test_index_states.py.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from ledger.subjects import MUST_BE_KNOWN, kind_of
from ledger.times import BEGINNING, END
from projections.audit.arrays import Int64s
from projections.audit.index.schema import (
    ACCOUNT,
    ATTACHED_CODE,
    BIT_CLEARED,
    BIT_TRUE,
    BIT_UNSET,
    CLEARED,
    FLAGS_OF_MODEL,
    HOSTED,
    HOSTING,
    KINDS,
    MODEL,
    MODEL_REGIONS,
    NEVER_RECORDED,
    NULL,
    OTHER,
    OWNER_CODE,
    PASSED_THROUGH,
    RESIDENCY,
    SETTINGS,
    UNSET,
    PolicyIndex,
    kind_code,
)
from projections.audit.kernel.index_tables import agreement
from projections.decisions.directory import DIRECTORY_KINDS, Directory
from projections.temporal.changes import Assertion, Change, JsonValue, Retraction
from projections.temporal.coordinates import IN_FORCE
from projections.temporal.effective_state import SettingState, effective
from projections.temporal.fold import deciding_retraction

SPANS_MAX: Final = 100_000
"""States in memory: some 60 MB."""


class _StateSpan(NamedTuple):
    """A setting's state over [start, until), in µs. `may_differ`: whether hindsight may have another state."""

    start: int
    until: int
    state: SettingState
    may_differ: bool


class IndexStates:
    """The states on the index's axis or on the later one, on which everything recorded is known.

    Caches the last state of each setting: a log in the order of time asks for the same one again and again.
    """

    def __init__(self, index: PolicyIndex, *, later: bool = False) -> None:
        self._index = index
        self._later = later
        self._codes: dict[str, int | None] = {}
        self._spans: dict[tuple[str, str], _StateSpan] = {}
        catalogs = (index.later_catalog, index.catalog) if later else (index.catalog, index.later_catalog)
        self._catalog = catalogs[0]
        self._instants = self._catalog.at.tolist()
        self._agrees = agreement(*catalogs).tolist()
        self._directories = index.directory.directories(index.known_at)

    def at(self, instant: int) -> StatesAt:
        """The states at `instant` (µs)."""
        return StatesAt(self, self._spans, instant)

    def span(self, subject: str, setting: str, instant: int) -> _StateSpan:
        """The state of a setting at `instant`, and the span over which it stays the same; cached for the next rows."""
        if len(self._spans) >= SPANS_MAX:
            self._spans.clear()
            self._codes.clear()
        step = self._step(instant)
        own, start, until = self._own(subject, SETTINGS.index(setting), instant)
        start = max(start, self._instants[step])
        if step + 1 < len(self._instants):
            until = min(until, self._instants[step + 1])
        code = self.code(subject)
        may_differ = not self._agrees[step] or (code is not None and int(self._index.slices.later[code]) >= 0)
        state = effective(subject, setting, own, self._definition(setting, step))
        span = self._spans[subject, setting] = _StateSpan(start, until, state, may_differ)
        return span

    def definition(self, setting: str, instant: int) -> tuple[Mapping[str, Any] | None, bool]:
        """The definition's members, and whether hindsight may have another definition."""
        step = self._step(instant)
        change = self._demand(step) if setting == MUST_BE_KNOWN else self._definition(setting, step)
        members = None if change is None or not isinstance(change.value, dict) else change.value
        return members, not self._agrees[step]

    def directory(self, instant: int) -> tuple[Directory, bool]:
        """The regions and providers at `instant` (µs), and whether hindsight has others."""
        span = self._directories.span(instant)
        return span.later if self._later else span.in_force, not span.same

    def _directory_retraction(self, subject: str, setting: str, instant: int, after: int) -> Retraction | None:
        known_at = self._known_at(instant)
        assertions = self._index.directory.assertions.get(subject, ())
        known = [one for one in assertions if known_at is None or one.recorded_at <= known_at]
        return deciding_retraction(known, setting, instant, after)

    def _known_at(self, instant: int) -> int | None:
        """Only what was recorded by then (µs) counts; None: everything."""
        if self._later:
            return None
        known_at = self._index.known_at
        return instant if known_at == IN_FORCE else known_at

    def retraction_since(self, subject: str, setting: str, instant: int, after: int) -> Retraction | None:
        if kind_of(subject) in DIRECTORY_KINDS:
            return self._directory_retraction(subject, setting, instant, after)
        index, assertions = self._index, self._index.assertions
        code = self.code(subject)
        if code is None or index.slices.assertions_of[code] < 0:
            return None
        place = index.slices.assertions_of[code]
        first = int(assertions.start[place])
        rows = range(first, first + int(assertions.count[place]))
        known_at = self._known_at(instant)
        setting_code = SETTINGS.index(setting)
        known = [
            self._assertion(row, setting)
            for row in rows
            if assertions.setting[row] == setting_code and (known_at is None or assertions.recorded_at[row] <= known_at)
        ]
        return deciding_retraction(known, setting, instant, after)

    def known(self, subject: str, instant: int) -> tuple[bool, bool]:
        """Whether an event of the subject is known, and whether hindsight may say otherwise."""
        code = self.code(subject)
        first = NEVER_RECORDED if code is None else int(self._index.slices.first_recorded_at[code])
        known_at = None if self._later else instant if self._index.known_at == IN_FORCE else self._index.known_at
        known = first != NEVER_RECORDED if known_at is None else first <= known_at
        return known, not known and first != NEVER_RECORDED

    def demand(self, subject: str, instant: int) -> SettingState:
        """The state of `subjects.must_be_known` for a subject without events of its own."""
        step = self._step(instant)
        return effective(subject, MUST_BE_KNOWN, None, self._demand(step))

    def _demand(self, step: int) -> Change | None:
        catalog = self._catalog
        position, demands = int(catalog.demand_position[step]), int(catalog.demands[step])
        if position == 0:
            return None
        kinds: list[JsonValue] = [kind for bit, kind in enumerate(KINDS) if demands >> bit & 1]
        members: JsonValue = {"kinds": list(KINDS), "default": kinds, "protective": None}
        return self._change(MUST_BE_KNOWN, position, members)

    def code(self, subject: str) -> int | None:
        """The subject's code in the index, if it has one."""
        # The look-up is slow, and each of the subject's settings needs it.
        if subject not in self._codes:
            self._codes[subject] = self._index.subjects.code(subject)
        return self._codes[subject]

    def _step(self, instant: int) -> int:
        return max(bisect_right(self._instants, instant) - 1, 0)

    def _assertion(self, row: int, setting: str) -> Assertion:
        assertions = self._index.assertions
        position, recorded_at = int(assertions.position[row]), int(assertions.recorded_at[row])
        if retracts := int(assertions.retracts[row]):
            return Retraction(position, 0, str(position), recorded_at, "", setting, str(retracts))
        start, until = int(assertions.effective_from[row]), int(assertions.effective_until[row])
        return Change(
            position, 0, str(position), recorded_at, "", setting, None, start, None if until == END else until
        )

    def _definition(self, setting: str, step: int) -> Change | None:
        catalog, code = self._catalog, SETTINGS.index(setting)
        position = int(catalog.position[step, code])
        if position == 0:
            return None
        kinds = int(catalog.kinds[step, code])
        members = {
            "kinds": [kind for bit, kind in enumerate(KINDS) if kinds >> bit & 1],
            "default": self._value(code, int(catalog.default[step, code])),
            "protective": self._value(code, int(catalog.protective[step, code])),
        }
        return self._change(setting, position, members)

    def _own(self, subject: str, setting: int, instant: int) -> tuple[Change | None, int, int]:
        """The subject's own change at `instant`, and the span (µs) over which it decides."""
        nothing = None, BEGINNING, END
        index, slices = self._index, self._index.slices
        code = self.code(subject)
        if code is None:
            return nothing
        kind = kind_code(subject)
        is_link, is_model = setting >= OWNER_CODE, setting >= HOSTING
        # An account's link is `attached_to`, every other link is `owner`; only models have the settings of models.
        if (setting == ATTACHED_CODE) != (kind == ACCOUNT) if is_link else is_model != (kind == MODEL):
            return nothing
        table = "link" if is_link else "state"
        place = int(slices.later[code]) if self._later else -1
        starts = getattr(slices, f"later_{table}_start" if place >= 0 else f"{table}_start")
        counts = getattr(slices, f"later_{table}_count" if place >= 0 else f"{table}_count")
        first, count = (int(column[place if place >= 0 else code]) for column in (starts, counts))
        instants = (index.links if is_link else index.models if is_model else index.policies).at
        row, start, until = _row_at(instants, first, count, instant)
        if row is None:
            return None, start, until
        if is_link:
            value, position = index.links.target[row], index.links.position[row]
        elif is_model:
            value = index.models.values[row, setting - HOSTING]
            position = index.models.positions[row, setting - HOSTING]
        else:
            value, position = self._policy_value(setting, row), index.policies.positions[row, setting]
        return self._own_change(setting, value, position), start, until

    def _policy_value(self, setting: int, row: int) -> int:
        policies = self._index.policies
        if setting == RESIDENCY:
            return int(policies.regions[row])
        bits = int(policies.states[row]) >> 3 * setting & 7
        return {BIT_UNSET: UNSET, BIT_CLEARED: CLEARED}.get(bits, bits)

    def _own_change(self, setting: int, code: Any, position: Any) -> Change | None:
        if code == UNSET:
            return None
        value = None if code == CLEARED else self._value(setting, int(code))
        return self._change(SETTINGS[setting], int(position), value)

    def _change(self, setting: str, position: int, value: JsonValue) -> Change:
        since = int(self._index.since[position])
        return Change(position, 0, str(position), since, "", setting, value, since, None)

    def _value(self, setting: int, code: int) -> JsonValue:
        index = self._index
        if setting in (RESIDENCY, MODEL_REGIONS):
            if code == OTHER:
                return 0
            first, end = index.texts.set_offsets[max(code, 0) : max(code, 0) + 2]
            return None if code < 0 else [self._text(int(text)) for text in index.texts.members[first:end]]
        if setting < HOSTING:
            return _SWITCH.get(code)
        if code == NULL:
            return None
        if code == OTHER:
            # Not of the setting's type: neither a text nor a list nor a bool.
            return 0
        if setting in FLAGS_OF_MODEL:
            return code == BIT_TRUE
        if setting == HOSTING:
            return {HOSTED: "hosted", PASSED_THROUGH: "passthrough"}[code]
        return index.subjects.reference(code) if setting >= OWNER_CODE else self._text(code)

    def _text(self, code: int) -> str:
        offsets = self._index.texts.offsets
        return self._index.texts.bytes[offsets[code] : offsets[code + 1]].tobytes().decode()


_SWITCH = {BIT_TRUE: True, BIT_TRUE - 1: False, BIT_TRUE + 1: 0}


class StatesAt:
    """`projections.decisions.states.States` at one instant."""

    def __init__(self, states: IndexStates, spans: Mapping[tuple[str, str], _StateSpan], instant: int) -> None:
        self._states = states
        self._spans = spans
        self._instant = instant
        self.may_differ_in_hindsight = False
        """Whether a state that was read so far may differ with everything known."""

    def known(self, subject: str) -> bool:
        known, may_differ = self._states.known(subject, self._instant)
        self.may_differ_in_hindsight |= may_differ
        return known

    def setting(self, subject: str, setting: str) -> SettingState:
        if setting == MUST_BE_KNOWN:
            return self._states.demand(subject, self._instant)
        span = self._spans.get((subject, setting))
        if span is None or not span.start <= self._instant < span.until:
            span = self._states.span(subject, setting, self._instant)
        if span.may_differ:
            self.may_differ_in_hindsight = True
        return span.state

    def directory(self) -> Directory:
        directory, may_differ = self._states.directory(self._instant)
        self.may_differ_in_hindsight |= may_differ
        return directory

    def definition(self, setting: str) -> Mapping[str, Any] | None:
        members, may_differ = self._states.definition(setting, self._instant)
        self.may_differ_in_hindsight |= may_differ
        return members

    def retraction_since(self, subject: str, setting: str, after: int) -> Retraction | None:
        return self._states.retraction_since(subject, setting, self._instant, after)


def _row_at(instants: Int64s, first: int, count: int, instant: int) -> tuple[int | None, int, int]:
    """The row of a slice that holds at `instant` (None before the first row), and the span over which it holds."""
    of_slice = instants[first : first + count]
    place = int(np.searchsorted(of_slice, instant, "right"))
    until = int(of_slice[place]) if place < count else END
    return (first + place - 1, int(of_slice[place - 1]), until) if place else (None, BEGINNING, until)
