"""Builds the hash table of subjects, and adds subjects to it. Pure."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from projections.audit.arrays import Int64s, UInt8s, UInt64s
from projections.audit.index.hashing import Hashes, hash_all, hash_ids
from projections.audit.index.schema import PREFIX_LENGTHS, Subjects
from projections.audit.numba_support import worth_compiling

SLOTS_MIN: Final = 16


def hashes_of(kinds: UInt8s, reference_offsets: Int64s, references: UInt8s) -> Hashes:
    """By code: the hashes of subjects in the form of `Subjects`."""
    starts = reference_offsets[:-1] + np.array(PREFIX_LENGTHS, np.int64)[kinds]
    lengths = reference_offsets[1:] - starts
    return hash_ids(kinds, references, starts, lengths, compiled=worth_compiling(len(kinds), hash_all))


def slots_for(kinds: UInt8s, reference_offsets: Int64s, references: UInt8s) -> UInt64s:
    """A new hash table, at most half full."""
    size = SLOTS_MIN
    while size < 2 * len(kinds):
        size *= 2
    slots = np.zeros(size, np.uint64)
    place(slots, hashes_of(kinds, reference_offsets, references), 0)
    return slots


def place(slots: UInt64s, hashes: Hashes, first_code: int) -> NDArray[np.int64]:
    """Adds new subjects, with codes from `first_code` on, to the table. Returns the place of each."""
    mask = np.uint64(len(slots) - 1)
    entries = hashes >> np.uint64(32) << np.uint64(32) | (
        np.arange(first_code + 1, first_code + 1 + len(hashes), dtype=np.uint64)
    )
    places = np.zeros(len(hashes), np.int64)
    waiting = np.arange(len(hashes))
    at = (hashes & mask).astype(np.int64)
    while len(waiting):
        free = slots[at] == 0
        # If several want one free slot, the last one written gets it and the others go on.
        slots[at[free]] = entries[waiting[free]]
        placed = free & (slots[at] == entries[waiting])
        places[waiting[placed]] = at[placed]
        waiting, at = waiting[~placed], (at[~placed] + 1) & int(mask)
    return places


def with_more(subjects: Subjects, kinds: UInt8s, reference_offsets: Int64s, references: UInt8s) -> Subjects:
    """The subjects and, after them, new ones in the form of `Subjects`."""
    if not len(kinds):
        return subjects
    all_kinds = np.concatenate([subjects.kinds, kinds])
    shift = subjects.reference_offsets[-1]
    offsets = np.concatenate([subjects.reference_offsets, reference_offsets[1:] + shift])
    content = np.concatenate([subjects.references, references])
    return Subjects(all_kinds, offsets, content, slots_for(all_kinds, offsets, content))
