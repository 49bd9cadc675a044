"""Events in columns: the parts of them that decisions depend on. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from projections.audit.arrays import (
    Int64s,
    UInt8s,
    UInt32s,
    UInt64s,
)
from projections.audit.index.schema import (
    ATTACHED_CODE,
    HOSTING,
    OWNER_CODE,
    RESIDENCY,
)

NO_SETTING: Final = 255
"""In place of a setting that no decision depends on: such an event only counts for `since`."""
IS_CLEAR: Final = -2
IS_RETRACTION: Final = -1


@dataclass(frozen=True)
class NameColumns:
    """References of subjects: reference i is bytes[starts[i] : starts[i] + lengths[i]].

    kinds: uint8, kind codes; hashes: uint64, of the bare ids; starts, lengths: int64.
    """

    kinds: UInt8s
    hashes: UInt64s
    bytes: UInt8s
    starts: Int64s
    lengths: Int64s

    def take(self, rows: NDArray[Any]) -> Self:
        """Only these references, with no bytes of others."""
        lengths = self.lengths[rows]
        ends = np.cumsum(lengths)
        # By byte, how far it moves: the same distance for all bytes of one reference.
        shift = np.repeat(self.starts[rows] - (ends - lengths), lengths)
        content = self.bytes[np.arange(len(shift)) + shift]
        return type(self)(self.kinds[rows], self.hashes[rows], content, ends - lengths, lengths)


@dataclass(frozen=True)
class EventColumns:
    """Events in position order.

    position: uint32. recorded_at, start, until: int64, µs (until END: without end; a retraction starts at its
    recorded_at). setting: uint8, a setting code or NO_SETTING. value: int32, IS_RETRACTION, IS_CLEAR, a BIT_* code of a
    switch, the row of a link's target in `names`, or a place in `raw`. retracts: uint32, a position or 0. subject:
    int32, the subject's row in `names`. raw: values as JSON, each once.
    """

    position: UInt32s
    recorded_at: Int64s
    start: Int64s
    until: Int64s
    setting: UInt8s
    value: NDArray[np.int32]
    retracts: UInt32s
    subject: NDArray[np.int32]
    names: NameColumns
    raw: list[bytes]


ARRAYS: Final = tuple(field.name for field in fields(EventColumns))[:8]


def is_link(setting: UInt8s) -> NDArray[np.bool_]:
    linked: NDArray[np.bool_] = (setting == OWNER_CODE) | (setting == ATTACHED_CODE)
    return linked


def is_raw(setting: UInt8s) -> NDArray[np.bool_]:
    raw: NDArray[np.bool_] = (setting == RESIDENCY) | ((setting >= HOSTING) & (setting < OWNER_CODE))
    return raw
