"""EventColumns that come in parts, put together in place: with names and raw values that stand in several only once."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from projections.audit.arrays import UInt64s
from projections.audit.index.event_columns import NO_SETTING, EventColumns, NameColumns, is_link, is_raw
from projections.audit.index.interning import Interner
from projections.audit.index.schema import (
    ACCOUNT,
    ATTACHED_CODE,
    HOSTING,
    KEY,
    MODEL,
    ORG,
    OTHER_KIND,
    OWNER_CODE,
    PROJECT,
)
from projections.audit.numba_support import AVAILABLE

_ASKED = np.zeros((OTHER_KIND + 1, NO_SETTING + 1), np.bool_)
"""Whether a decision can ask for a setting of a subject, by its kind's code and the setting's."""
_ASKED[[ACCOUNT, ORG], :HOSTING] = True
_ASKED[MODEL, HOSTING:OWNER_CODE] = True
_ASKED[[KEY, PROJECT], OWNER_CODE] = True
_ASKED[ACCOUNT, ATTACHED_CODE] = True


class EventCollector:
    """Of so many events. Parts may be put by several threads at once."""

    def __init__(self, events: int, *, compiled: bool = AVAILABLE) -> None:
        self._lock = threading.Lock()
        self._naming = Interner(compiled=compiled)
        self._raw: dict[bytes, int] = {}
        none, no_names = np.zeros(0, np.int64), np.zeros(0, np.uint8)
        self._columns = EventColumns(
            position=np.zeros(events, np.uint32),
            recorded_at=np.zeros(events, np.int64),
            start=np.zeros(events, np.int64),
            until=np.zeros(events, np.int64),
            setting=np.full(events, NO_SETTING, np.uint8),
            value=np.zeros(events, np.int32),
            retracts=np.zeros(events, np.uint32),
            subject=np.full(events, -1, np.int32),
            names=NameColumns(no_names, np.zeros(0, np.uint64), no_names, none, none),
            raw=[],
        )

    def put(self, first: int, part: EventColumns) -> None:
        """`first`: the row of the part's first event. What no decision asks for becomes NO_SETTING."""
        asked = part.subject >= 0
        asked[asked] = _ASKED[part.names.kinds[part.subject[asked]], part.setting[asked]]
        with self._lock:
            codes = self._naming.codes(part.names)
            places = np.array([self._raw.setdefault(one, len(self._raw)) for one in part.raw], np.int32)
        rows = slice(first, first + len(part.position))
        gathered = self._columns
        gathered.position[rows] = part.position
        gathered.recorded_at[rows] = part.recorded_at
        gathered.start[rows] = part.start
        gathered.until[rows] = part.until
        gathered.setting[rows] = np.where(asked, part.setting, NO_SETTING)
        gathered.value[rows] = _renumbered(part, codes, places)
        gathered.retracts[rows] = part.retracts
        gathered.subject[rows] = np.where(asked, codes[part.subject] if len(codes) else -1, -1)

    @property
    def slots(self) -> UInt64s | None:
        """The hash table of the columns' names, if it was made (see `Interner`)."""
        return self._naming.slots

    def columns(self) -> EventColumns:
        """All of them, with the events where they were put; in position order if they were put so."""
        gathered = self._columns
        return EventColumns(
            gathered.position,
            gathered.recorded_at,
            gathered.start,
            gathered.until,
            gathered.setting,
            gathered.value,
            gathered.retracts,
            gathered.subject,
            self._naming.names(),
            list(self._raw),
        )


def _renumbered(part: EventColumns, names: NDArray[np.int32], raw: NDArray[np.int32]) -> NDArray[np.int32]:
    value = part.value.copy()
    link = is_link(part.setting) & (value >= 0)
    value[link] = names[value[link]]
    other = is_raw(part.setting) & (value >= 0)
    value[other] = raw[value[other]]
    return value


def in_position_order(columns: EventColumns) -> EventColumns:
    order = np.argsort(columns.position)
    return EventColumns(
        columns.position[order],
        columns.recorded_at[order],
        columns.start[order],
        columns.until[order],
        columns.setting[order],
        columns.value[order],
        columns.retracts[order],
        columns.subject[order],
        columns.names,
        columns.raw,
    )
