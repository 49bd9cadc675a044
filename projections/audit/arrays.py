"""Arrays in the form that compiled code takes: read-only, without gaps, and as words of eight bytes.

Numba compiles a function anew for each combination of argument types. Arrays that are mapped from files are read-only
and others are not, which makes two types. So compiled code gets all of them as read-only, and one compilation serves
every index and every batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

_WORDS_FROM: Final = 16
Bools = NDArray[np.bool_]
Int8s = NDArray[np.int8]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
UInt8s = NDArray[np.uint8]
UInt32s = NDArray[np.uint32]
UInt64s = NDArray[np.uint64]
_Array = TypeVar("_Array", bound=NDArray[Any])


def all_sealed(columns: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    return map(sealed, columns)


def sealed(array: _Array) -> _Array:
    """The same array, read-only and without gaps."""
    plain = np.ascontiguousarray(array).view(np.ndarray)
    plain.flags.writeable = False
    return plain  # type: ignore[return-value] # of the same element type


def in_words(data: UInt8s) -> tuple[UInt8s, UInt64s]:
    """The same bytes, and the word of eight bytes that starts at each of them: uint64[bytes - 7].

    Fewer than 16 bytes are padded, because a view of a single word would have another type for Numba.
    """
    if len(data) < _WORDS_FROM:
        data = np.concatenate([data, np.zeros(_WORDS_FROM, np.uint8)])
    words: UInt64s = np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))
    words.flags.writeable = False
    return sealed(data), words
