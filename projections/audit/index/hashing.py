"""The hash that leads to a subject's code: 64 bits over its kind and the UTF-8 bytes of its bare id.

A record names bare ids of a known kind, so a look-up builds no reference. The bytes are hashed as little-endian words
of eight, the last word filled with zeros; the length is hashed first, so that the zeros are never mistaken for content.
The hash need not withstand an attacker: every look-up compares the bytes.

Two forms of one function: `hash_id` in Python, and `hash_at` to be compiled by Numba (uncompiled, NumPy's scalars would
warn of the intended overflow). `hash_ids` uses the one or the other.
Proved by tests/audit/index/test_hashing.py.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from projections.audit.numba_support import AVAILABLE, compiled

KIND_SEEDS: Final = (
    0x9E3779B97F4A7C15,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0xD6E8FEB86659FD93,
    0xA0761D6478BD642F,
    0xE7037ED1A0B428DB,
)
"""By kind code (see `schema.KINDS`)."""
MULTIPLIER: Final = 0xFF51AFD7ED558CCD
FINAL: Final = 0xC4CEB9FE1A85EC53
_MASK: Final = 0xFFFFFFFFFFFFFFFF
_SEEDS: Final = np.array(KIND_SEEDS, np.uint64)

Bytes = NDArray[np.uint8]
Hashes = NDArray[np.uint64]


def hash_id(kind: int, id_: bytes) -> int:
    """`kind`: its code; `id_`: the bare id."""
    mixed = (KIND_SEEDS[kind] ^ len(id_)) * MULTIPLIER & _MASK
    for at in range(0, len(id_), 8):
        mixed = (mixed ^ int.from_bytes(id_[at : at + 8], "little")) * MULTIPLIER & _MASK
        mixed ^= mixed >> 29
    mixed = mixed * FINAL & _MASK
    return mixed ^ mixed >> 32


def hash_ids(
    kinds: NDArray[np.uint8],
    buffer: Bytes,
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    *,
    compiled: bool = AVAILABLE,
) -> Hashes:
    """The hashes of the ids buffer[starts[i] : starts[i] + lengths[i]] of kinds[i]."""
    if compiled:
        hashes = np.empty(len(starts), np.uint64)
        hash_all(kinds, buffer, starts, lengths, hashes)
        return hashes
    rows = zip(kinds.tolist(), starts.tolist(), lengths.tolist(), strict=True)
    content = buffer.tobytes()
    return np.array([hash_id(kind, content[start : start + length]) for kind, start, length in rows], np.uint64)


def hash_at(kind: int, buffer: Bytes, start: int, length: int) -> np.uint64:
    """The hash of buffer[start : start + length], to be compiled."""
    multiplier = np.uint64(MULTIPLIER)
    mixed = (_SEEDS[kind] ^ np.uint64(length)) * multiplier
    at = 0
    while at < length:
        word = np.uint64(0)
        shift = np.uint64(0)
        for index in range(start + at, start + min(at + 8, length)):
            word |= np.uint64(buffer[index]) << shift
            shift += np.uint64(8)
        mixed = (mixed ^ word) * multiplier
        mixed ^= mixed >> np.uint64(29)
        at += 8
    mixed *= np.uint64(FINAL)
    hashed: np.uint64 = mixed ^ (mixed >> np.uint64(32))
    return hashed


_hash_at = compiled(hash_at)


@compiled
def hash_all(
    kinds: NDArray[np.uint8],
    buffer: Bytes,
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    hashes: Hashes,
) -> None:
    for row in range(len(starts)):
        hashes[row] = _hash_at(kinds[row], buffer, starts[row], lengths[row])
