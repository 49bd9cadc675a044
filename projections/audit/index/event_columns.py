"""Events in columns, as far as decisions depend on them. Pure."""

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
"""Of what no decision depends on: such events only count for `since`."""
IS_CLEAR: Final = -2
IS_RETRACTION: Final = -1


@dataclass(frozen=True)
class NameColumns:
    """Texts, one behind the other: text i is bytes[starts[i] : starts[i] + lengths[i]], hashed as an id of its kind.

    kinds: uint8, kind codes; hashes: uint64; starts, lengths: int64. The bytes are of full references.
    """

    kinds: UInt8s
    hashes: UInt64s
    bytes: UInt8s
    starts: Int64s
    lengths: Int64s

    def taken(self, rows: NDArray[Any]) -> Self:
        """Only these, with no more bytes than they have."""
        lengths = self.lengths[rows]
        ends = np.cumsum(lengths)
        # For every byte where it comes from: what runs through a text begins anew at the next one.
        shift = np.repeat(self.starts[rows] - (ends - lengths), lengths)
        together = self.bytes[np.arange(len(shift)) + shift]
        return type(self)(self.kinds[rows], self.hashes[rows], together, ends - lengths, lengths)


@dataclass(frozen=True)
class EventColumns:
    """Events in position order.

    position: uint32; recorded_at, start, until: int64, µs (until END: without end; start of a retraction: its
    recorded_at). setting: uint8, a setting code or NO_SETTING. value: int32: IS_RETRACTION, IS_CLEAR, for the switches
    a BIT_* code, for links the row of the target in `names`, else a place in `raw`. retracts: uint32, a position or 0.
    subject: int32, the row in `names` of the subject. raw: values as JSON, each once.
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
