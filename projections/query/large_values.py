"""Reads large values, which timelines leave in their events, for decisions and answers.

The states read last stay in memory, so that decisions that rest on one value share it. An answer that is sent a page at
a time reads the values of its page only (`read` is the hook of its encoder).
Proved by tests/query/test_large_values.py and tests/api/memory/test_large_subjects.py.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from msgspec.structs import replace

from ledger.errors import LedgerCorrupt
from ledger.store import Ledger
from projections.temporal.changes import (
    Change,
    JsonValue,
    LargeValue,
    large_value_position,
    read_assertion,
    value_bytes,
)
from projections.temporal.effective_state import SettingState

KEPT_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of the states in memory, by `value_bytes`; and one state more, however large it is."""


class LargeValues:
    """The large values of one ledger. Safe to use from many threads."""

    def __init__(self, ledger: Ledger, bytes_max: int = KEPT_BYTES_MAX) -> None:
        self._ledger = ledger
        self._bytes_max = bytes_max
        self._bytes = 0
        # Position of the event → the state that it decides.
        self._states: OrderedDict[int, SettingState] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, value: object) -> JsonValue:
        """The value that a `LargeValue` stands for. Raises `LedgerUnavailable`, and `LedgerCorrupt` if its event has no
        value any more; `TypeError` for anything else, as the hook of an encoder does."""
        if not isinstance(value, LargeValue):
            raise TypeError(f"{type(value).__name__} has no JSON")
        position = large_value_position(value)
        entry = self._ledger.recorder.entry(position)
        assertion = None if entry is None else read_assertion(entry.leaf)
        if not isinstance(assertion, Change) or assertion.value is None:
            raise LedgerCorrupt(f"the event at position {position} has no value; run inforce rebuild")
        return assertion.value

    def value(self, value: JsonValue) -> JsonValue:
        return self.read(value) if isinstance(value, LargeValue) else value

    def change(self, change: Change) -> Change:
        """The change with its value."""
        return replace(change, value=self.read(change.value)) if isinstance(change.value, LargeValue) else change

    def state(self, state: SettingState) -> SettingState:
        """The state with its value."""
        if not isinstance(state.value, LargeValue) or state.change is None:
            return state
        position = state.change.position
        with self._lock:
            kept = self._states.get(position)
            if kept is not None:
                self._states.move_to_end(position)
                return kept
        change = self.change(state.change)
        whole = SettingState(state.subject, state.setting, change.value, state.source, change)
        with self._lock:
            if position not in self._states:
                self._states[position] = whole
                self._bytes += value_bytes(whole.value)
                while self._bytes > self._bytes_max and len(self._states) > 1:
                    _, oldest = self._states.popitem(last=False)
                    self._bytes -= value_bytes(oldest.value)
            return self._states[position]
