"""Gives each name a code, in the order of first use: equal names have one code.

Compiled code keeps the names in the hash table that the index has (see `schema.Subjects`); without it a dict does.
Both compare bytes, never hashes alone.
"""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from projections.audit.arrays import Int64s, UInt8s, UInt64s
from projections.audit.index.event_columns import NameColumns
from projections.audit.numba_support import AVAILABLE, compiled

_Scalar = TypeVar("_Scalar", bound=np.generic)

_ROOM: Final = 1024
_BYTES_EACH: Final = 16
_HALF = np.uint64(32)
_LOWER = np.uint64(0xFFFFFFFF)


class Interner:
    """For one thread at a time."""

    def __init__(self, *, compiled: bool = AVAILABLE) -> None:
        self._codes: dict[bytes, int] | None = None if compiled else {}
        self._count = 0
        self._used = 0
        self._slots = np.zeros(2 * _ROOM, np.uint64)
        self._kinds = np.zeros(_ROOM, np.uint8)
        self._hashes = np.zeros(_ROOM, np.uint64)
        self._starts = np.zeros(_ROOM + 1, np.int64)
        self._bytes = np.zeros(_ROOM * _BYTES_EACH, np.uint8)

    def codes(self, names: NameColumns) -> NDArray[np.int32]:
        """The codes of these names; new names get the next codes."""
        codes = np.empty(len(names.kinds), np.int32)
        self._make_room(len(codes), int(names.lengths.sum()))
        if self._codes is None:
            self._count = add(
                (names.kinds, names.hashes, names.bytes, names.starts, names.lengths),
                (self._kinds, self._hashes, self._bytes, self._starts),
                self._slots,
                self._count,
                codes,
            )
            self._used = int(self._starts[self._count])
            return codes
        whole = names.bytes.tobytes()
        for row, (start, length) in enumerate(zip(names.starts.tolist(), names.lengths.tolist(), strict=True)):
            name = whole[start : start + length]
            code = codes[row] = self._codes.setdefault(name, self._count)
            if code == self._count:
                self._kinds[code], self._hashes[code] = names.kinds[row], names.hashes[row]
                self._bytes[self._used : self._used + length] = names.bytes[start : start + length]
                self._count += 1
                self._used += length
                self._starts[self._count] = self._used
        return codes

    def _make_room(self, more: int, more_bytes: int) -> None:
        """Makes room for so many names and bytes, all of which may be new."""
        needed = self._count + more
        if needed > len(self._kinds):
            room = max(needed, 2 * len(self._kinds))
            self._kinds = _enlarged(self._kinds, room)
            self._hashes = _enlarged(self._hashes, room)
            self._starts = _enlarged(self._starts, room + 1)
        if self._used + more_bytes > len(self._bytes):
            self._bytes = _enlarged(self._bytes, max(self._used + more_bytes, 2 * len(self._bytes)))
        size = len(self._slots)
        while size < 2 * needed:
            size *= 2
        if size > len(self._slots) and self._codes is None:
            self._slots = np.zeros(size, np.uint64)
            _fill(self._slots, self._hashes, self._count)

    @property
    def slots(self) -> UInt64s | None:
        """The hash table, in the form of the index; None without compiled code."""
        return self._slots if self._codes is None else None

    def names(self) -> NameColumns:
        """All names by code, without gaps between their bytes."""
        starts = self._starts[: self._count + 1]
        kinds, hashes = self._kinds[: self._count].copy(), self._hashes[: self._count].copy()
        return NameColumns(kinds, hashes, self._bytes[: self._used].copy(), starts[:-1].copy(), np.diff(starts))


def _enlarged(array: NDArray[_Scalar], room: int) -> NDArray[_Scalar]:
    larger = np.zeros(room, array.dtype)
    larger[: len(array)] = array
    return larger


_New = tuple[UInt8s, UInt64s, UInt8s, Int64s, Int64s]
_Stored = tuple[UInt8s, UInt64s, UInt8s, Int64s]


@compiled
def _fill(slots: UInt64s, hashes: UInt64s, count: int) -> None:
    mask = np.uint64(len(slots) - 1)
    for code in range(count):
        place = hashes[code] & mask
        while slots[place]:
            place = (place + np.uint64(1)) & mask
        slots[place] = hashes[code] >> _HALF << _HALF | np.uint64(code + 1)


@compiled
def add(new: _New, stored: _Stored, slots: UInt64s, count: int, codes: NDArray[np.int32]) -> int:
    """Adds the new names. Returns how many names there are then."""
    kinds, hashes, buffer, starts, lengths = new
    stored_kinds, stored_hashes, stored_bytes, stored_starts = stored
    mask = np.uint64(len(slots) - 1)
    for row in range(len(hashes)):
        place = hashes[row] & mask
        upper = hashes[row] >> _HALF
        while True:
            slot = slots[place]
            if slot == 0:
                codes[row] = count
                stored_kinds[count] = kinds[row]
                stored_hashes[count] = hashes[row]
                start = stored_starts[count]
                for byte in range(lengths[row]):
                    stored_bytes[start + byte] = buffer[starts[row] + byte]
                count += 1
                stored_starts[count] = start + lengths[row]
                slots[place] = upper << _HALF | np.uint64(count)
                break
            if slot >> _HALF == upper:
                # The bytes are those of the whole reference, with the kind.
                code = np.int64(slot & _LOWER) - 1
                start = stored_starts[code]
                same = stored_starts[code + 1] - start == lengths[row]
                byte = 0
                while same and byte < lengths[row]:
                    same = stored_bytes[start + byte] == buffer[starts[row] + byte]
                    byte += 1
                if same:
                    codes[row] = code
                    break
            place = (place + np.uint64(1)) & mask
    return count
