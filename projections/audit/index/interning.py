"""NameColumns → codes, as they are met: whatever is called the same has one code.

Compiled code puts them into the very hash table that the index has (see `layout.Subjects`); without any, a dict does.
Either compares bytes, never hashes alone.
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
        self._known: dict[bytes, int] | None = None if compiled else {}
        self._count = 0
        self._used = 0
        self._slots = np.zeros(2 * _ROOM, np.uint64)
        self._kinds = np.zeros(_ROOM, np.uint8)
        self._hashes = np.zeros(_ROOM, np.uint64)
        self._starts = np.zeros(_ROOM + 1, np.int64)
        self._bytes = np.zeros(_ROOM * _BYTES_EACH, np.uint8)

    def codes(self, names: NameColumns) -> NDArray[np.int32]:
        """Of these names; new ones come behind those there are."""
        codes = np.empty(len(names.kinds), np.int32)
        self._make_room(len(codes), int(names.lengths.sum()))
        if self._known is None:
            self._count = _add(
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
            code = codes[row] = self._known.setdefault(name, self._count)
            if code == self._count:
                self._kinds[code], self._hashes[code] = names.kinds[row], names.hashes[row]
                self._bytes[self._used : self._used + length] = names.bytes[start : start + length]
                self._count += 1
                self._used += length
                self._starts[self._count] = self._used
        return codes

    def _make_room(self, more: int, more_bytes: int) -> None:
        """For so many names, all of which may be new."""
        wanted = self._count + more
        if wanted > len(self._kinds):
            room = max(wanted, 2 * len(self._kinds))
            self._kinds = _grown(self._kinds, room)
            self._hashes = _grown(self._hashes, room)
            self._starts = _grown(self._starts, room + 1)
        if self._used + more_bytes > len(self._bytes):
            self._bytes = _grown(self._bytes, max(self._used + more_bytes, 2 * len(self._bytes)))
        size = len(self._slots)
        while size < 2 * wanted:
            size *= 2
        if size > len(self._slots) and self._known is None:
            self._slots = np.zeros(size, np.uint64)
            _fill(self._slots, self._hashes, self._count)

    @property
    def slots(self) -> UInt64s | None:
        """The table, as the index has it; None without compiled code."""
        return self._slots if self._known is None else None

    def names(self) -> NameColumns:
        """All of them, by code, without gaps between their bytes."""
        starts = self._starts[: self._count + 1]
        kinds, hashes = self._kinds[: self._count].copy(), self._hashes[: self._count].copy()
        return NameColumns(kinds, hashes, self._bytes[: self._used].copy(), starts[:-1].copy(), np.diff(starts))


def _grown(array: NDArray[_Scalar], room: int) -> NDArray[_Scalar]:
    more = np.zeros(room, array.dtype)
    more[: len(array)] = array
    return more


_Given = tuple[UInt8s, UInt64s, UInt8s, Int64s, Int64s]
_Kept = tuple[UInt8s, UInt64s, UInt8s, Int64s]


@compiled
def _fill(slots: UInt64s, hashes: UInt64s, count: int) -> None:
    mask = np.uint64(len(slots) - 1)
    for code in range(count):
        place = hashes[code] & mask
        while slots[place]:
            place = (place + np.uint64(1)) & mask
        slots[place] = hashes[code] >> _HALF << _HALF | np.uint64(code + 1)


@compiled
def _add(given: _Given, kept: _Kept, slots: UInt64s, count: int, codes: NDArray[np.int32]) -> int:
    """How many names there are then."""
    kinds, hashes, buffer, starts, lengths = given
    kept_kinds, kept_hashes, kept_bytes, kept_starts = kept
    mask = np.uint64(len(slots) - 1)
    for row in range(len(hashes)):
        place = hashes[row] & mask
        upper = hashes[row] >> _HALF
        while True:
            slot = slots[place]
            if slot == 0:
                codes[row] = count
                kept_kinds[count] = kinds[row]
                kept_hashes[count] = hashes[row]
                start = kept_starts[count]
                for byte in range(lengths[row]):
                    kept_bytes[start + byte] = buffer[starts[row] + byte]
                count += 1
                kept_starts[count] = start + lengths[row]
                slots[place] = upper << _HALF | np.uint64(count)
                break
            if slot >> _HALF == upper:
                # The bytes are the whole reference's, so they say the kind, too.
                code = np.int64(slot & _LOWER) - 1
                start = kept_starts[code]
                same = kept_starts[code + 1] - start == lengths[row]
                byte = 0
                while same and byte < lengths[row]:
                    same = kept_bytes[start + byte] == buffer[starts[row] + byte]
                    byte += 1
                if same:
                    codes[row] = code
                    break
            place = (place + np.uint64(1)) & mask
    return count
