"""Bare ids to subjects' codes with NumPy: each step for all rows at once.

Proved by tests/audit/kernel/test_codes.py.
"""

from __future__ import annotations

import numpy as np

from projections.audit.index.hashing import hash_ids
from projections.audit.index.schema import PREFIX_LENGTHS, Int32s, Int64s
from projections.audit.kernel.rows import NO_CODE, NULL_ID, TextColumn
from projections.audit.kernel.tables import Bools, Names


def codes(kind: int, texts: TextColumn, names: Names) -> Int32s:
    """The code of each row's subject of `kind`, NULL_ID where the row names none, NO_CODE where it has no code."""
    found = np.full(len(texts.valid), NULL_ID, np.int32)
    rows = np.flatnonzero(texts.valid)
    starts = texts.offsets[rows].astype(np.int64)
    lengths = texts.offsets[rows + 1] - starts
    hashed = hash_ids(np.full(len(rows), kind, np.uint8), texts.bytes, starts, lengths)
    found[rows] = NO_CODE
    mask = np.uint64(len(names.slots) - 1)
    at = hashed & mask
    left = np.arange(len(rows))
    while len(left):
        entries = names.slots[at[left]]
        taken = entries != 0
        left, entries = left[taken], entries[taken]
        guesses = (entries & np.uint64(0xFFFFFFFF)).astype(np.int64) - 1
        alike = entries >> np.uint64(32) == hashed[left] >> np.uint64(32)
        alike[alike] = names.kinds[guesses[alike]] == kind
        here = left[alike]
        alike[alike] = _same(texts, starts[here], lengths[here], names, guesses[alike], PREFIX_LENGTHS[kind])
        found[rows[left[alike]]] = guesses[alike]
        left = left[~alike]
        at[left] = (at[left] + np.uint64(1)) & mask
    return found


def _same(texts: TextColumn, starts: Int64s, lengths: Int64s, names: Names, codes: Int64s, prefix: int) -> Bools:
    """Whether texts.bytes[starts[i] : … + lengths[i]] is the bare id of codes[i]."""
    firsts = names.offsets[codes] + prefix
    same: Bools = names.offsets[codes + 1] - firsts == lengths
    left = np.flatnonzero(same & (lengths > 0))
    at = 0
    while len(left):
        equal = texts.bytes[starts[left] + at] == names.references[firsts[left] + at]
        same[left[~equal]] = False
        at += 1
        left = left[equal & (lengths[left] > at)]
    return same
