"""Collects the columns of many batches of events into one, in which each name and raw value stands once."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from projections.audit.arrays import UInt64s
from projections.audit.index.event_columns import ARRAYS, NO_SETTING, EventColumns, NameColumns, is_link, is_raw
from projections.audit.index.interning import Interner
from projections.audit.index.schema import KINDS, NAMED_KINDS_MAX, OTHER_KIND, RELEVANT, SETTINGS
from projections.audit.numba_support import AVAILABLE

_DECIDES = np.zeros((OTHER_KIND + 1, NO_SETTING + 1), np.bool_)
"""By the codes of a subject's kind and of a setting: whether a decision can depend on it."""
for _kind, _settings in RELEVANT.items():
    _DECIDES[KINDS.index(_kind), list(map(SETTINGS.index, _settings))] = True


class EventCollector:
    """Has room for `events` events. Several threads may add batches at once."""

    def __init__(self, events: int, *, compiled: bool = AVAILABLE) -> None:
        self._lock = threading.Lock()
        self._interner = Interner(compiled=compiled)
        self._raw: dict[bytes, int] = {}
        no_numbers, no_bytes = np.zeros(0, np.int64), np.zeros(0, np.uint8)
        self._columns = EventColumns(
            position=np.zeros(events, np.uint32),
            recorded_at=np.zeros(events, np.int64),
            start=np.zeros(events, np.int64),
            until=np.zeros(events, np.int64),
            setting=np.full(events, NO_SETTING, np.uint8),
            value=np.zeros(events, np.int32),
            retracts=np.zeros(events, np.uint32),
            subject=np.full(events, -1, np.int32),
            names=NameColumns(no_bytes, np.zeros(0, np.uint64), no_bytes, no_numbers, no_numbers),
            raw=[],
        )

    def put(self, first: int, batch: EventColumns) -> None:
        """Adds a batch whose first event is row `first`. A setting that no decision depends on becomes NO_SETTING."""
        there = np.flatnonzero(batch.subject >= 0)
        kinds = batch.names.kinds[batch.subject[there]]
        decides, counts = np.zeros(len(batch.subject), np.bool_), np.zeros(len(batch.subject), np.bool_)
        decides[there] = _DECIDES[kinds, batch.setting[there]]
        counts[there] = decides[there] | (kinds <= NAMED_KINDS_MAX)
        with self._lock:
            codes = self._interner.codes(batch.names)
            places = np.array([self._raw.setdefault(one, len(self._raw)) for one in batch.raw], np.int32)
        rows = slice(first, first + len(batch.position))
        columns = self._columns
        columns.position[rows] = batch.position
        columns.recorded_at[rows] = batch.recorded_at
        columns.start[rows] = batch.start
        columns.until[rows] = batch.until
        columns.setting[rows] = np.where(decides, batch.setting, NO_SETTING)
        columns.value[rows] = _renumbered(batch, codes, places)
        columns.retracts[rows] = batch.retracts
        columns.subject[rows] = np.where(counts, codes[batch.subject] if len(codes) else -1, -1)

    @property
    def slots(self) -> UInt64s | None:
        """The hash table of the names, if compiled code made one (see `Interner`)."""
        return self._interner.slots

    def columns(self) -> EventColumns:
        """All events, at the rows at which they were added."""
        return replace(self._columns, names=self._interner.names(), raw=list(self._raw))


def _renumbered(batch: EventColumns, names: NDArray[np.int32], raw: NDArray[np.int32]) -> NDArray[np.int32]:
    value = batch.value.copy()
    link = is_link(batch.setting) & (value >= 0)
    value[link] = names[value[link]]
    other = is_raw(batch.setting) & (value >= 0)
    value[other] = raw[value[other]]
    return value


def in_position_order(columns: EventColumns) -> EventColumns:
    order = np.argsort(columns.position)
    return replace(columns, **{name: getattr(columns, name)[order] for name in ARRAYS})
