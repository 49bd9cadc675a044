"""The states of an index, as `check` asks for them: for single rows that no engine decides by itself.

A deciding event is here what is left of it in the index: its position, and in place of both its instants the later of
the two. Proved by tests/audit/kernel/test_states.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ledger.times import END
from projections.audit.index.schema import (
    ATTACHED_CODE,
    BIT_CLEARED,
    BIT_TRUE,
    BIT_UNSET,
    CLEARED,
    HOSTED,
    HOSTING,
    KINDS,
    MODEL_REGIONS,
    NULL,
    OTHER,
    OWNER_CODE,
    PASSED_THROUGH,
    RESIDENCY,
    SETTINGS,
    UNSET,
    Int64s,
    PolicyIndex,
    kind_code,
)
from projections.temporal.changes import Assertion, Change, JsonValue, Retraction
from projections.temporal.coordinates import IN_FORCE
from projections.temporal.effective_state import SettingState, effective
from projections.temporal.fold import retraction_of_decided


class IndexStates:
    """Answers as `projections.temporal.effective_state.States`, at `at` (µs) on the index's axis, or on the later
    one."""

    def __init__(self, index: PolicyIndex, at: int, *, later: bool = False) -> None:
        self._index = index
        self._at = at
        self._later = later
        self._codes: dict[str, int | None] = {}
        self._catalog = index.later_catalog if later else index.catalog
        self._step = _row_at(self._catalog.at, 0, len(self._catalog.at), at) or 0

    def setting(self, subject: str, setting: str) -> SettingState:
        return effective(subject, setting, self._own(subject, SETTINGS.index(setting)), self._definition(setting))

    def definition(self, setting: str) -> Mapping[str, Any] | None:
        change = self._definition(setting)
        return None if change is None or not isinstance(change.value, dict) else change.value

    def taken_back(self, subject: str, setting: str, after: int) -> Retraction | None:
        index, said = self._index, self._index.said
        code = self._code(subject)
        if code is None or index.slices.said_of[code] < 0:
            return None
        first = int(said.start[index.slices.said_of[code]])
        rows = range(first, first + int(said.count[index.slices.said_of[code]]))
        known_at = None if self._later else self._at if index.known_at == IN_FORCE else index.known_at
        wanted = SETTINGS.index(setting)
        known = [
            self._assertion(row, setting)
            for row in rows
            if said.setting[row] == wanted and (known_at is None or said.recorded_at[row] <= known_at)
        ]
        return retraction_of_decided(known, setting, self._at, after)

    def _code(self, subject: str) -> int | None:
        # Asked for each of its settings, and looking it up is slow here.
        if subject not in self._codes:
            self._codes[subject] = self._index.subjects.code(subject)
        return self._codes[subject]

    def _assertion(self, row: int, setting: str) -> Assertion:
        said = self._index.said
        position, recorded_at = int(said.position[row]), int(said.recorded_at[row])
        if said.retracts[row]:
            return Retraction(position, 0, str(position), recorded_at, "", setting, str(int(said.retracts[row])))
        start, until = int(said.effective_from[row]), int(said.effective_until[row])
        return Change(
            position, 0, str(position), recorded_at, "", setting, None, start, None if until == END else until
        )

    def _definition(self, setting: str) -> Change | None:
        catalog, step, code = self._catalog, self._step, SETTINGS.index(setting)
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

    def _own(self, subject: str, setting: int) -> Change | None:
        index, slices = self._index, self._index.slices
        code = self._code(subject)
        if code is None:
            return None
        table = "link" if setting >= OWNER_CODE else "state"
        place = int(slices.later[code]) if self._later else -1
        starts = getattr(slices, f"later_{table}_start" if place >= 0 else f"{table}_start")
        counts = getattr(slices, f"later_{table}_count" if place >= 0 else f"{table}_count")
        first, count = (int(column[place if place >= 0 else code]) for column in (starts, counts))
        if setting >= OWNER_CODE:
            # The one link of a kind is of the setting that the kind has.
            if (setting == ATTACHED_CODE) != (kind_code(subject) == KINDS.index("account")):
                return None
            row = _row_at(index.links.at, first, count, self._at)
            return None if row is None else self._said(setting, index.links.target[row], index.links.position[row])
        of_model = setting >= HOSTING
        if of_model != (kind_code(subject) == KINDS.index("model")):
            return None
        if of_model:
            row = _row_at(index.models.at, first, count, self._at)
            if row is None:
                return None
            place = setting - HOSTING
            return self._said(setting, index.models.values[row, place], index.models.positions[row, place])
        row = _row_at(index.policies.at, first, count, self._at)
        if row is None:
            return None
        bits = int(index.policies.states[row]) >> 3 * setting & 7
        if setting == RESIDENCY:
            return self._said(setting, index.policies.regions[row], index.policies.positions[row, setting])
        value = {BIT_UNSET: UNSET, BIT_CLEARED: CLEARED}.get(bits, bits)
        return self._said(setting, value, index.policies.positions[row, setting])

    def _said(self, setting: int, code: Any, position: Any) -> Change | None:
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
            first, end = index.texts.set_offsets[max(code, 0) : max(code, 0) + 2]
            return None if code < 0 else [self._text(int(text)) for text in index.texts.members[first:end]]
        if setting < HOSTING:
            return _SWITCH.get(code)
        if code == NULL:
            return None
        if code == OTHER:
            # Of no type that is asked for: neither text nor list nor bool.
            return 0
        if setting == HOSTING:
            return {HOSTED: "hosted", PASSED_THROUGH: "passthrough"}[code]
        return index.subjects.reference(code) if setting >= OWNER_CODE else self._text(code)

    def _text(self, code: int) -> str:
        offsets = self._index.texts.offsets
        return self._index.texts.bytes[offsets[code] : offsets[code + 1]].tobytes().decode()


_SWITCH = {BIT_TRUE: True, BIT_TRUE - 1: False, BIT_TRUE + 1: 0}


def _row_at(instants: Int64s, first: int, count: int, at: int) -> int | None:
    row = first + int(np.searchsorted(instants[first : first + count], at, "right")) - 1
    return row if row >= first else None
