"""Rows → order, by compiled code where there is any: rows are many subjects' with a few each, so they are counted to
their subject and ordered among themselves. NumPy, which sorts them all, comes to the same."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from projections.audit.index.schema import Int64s
from projections.audit.numba_support import compiled, worth_compiling

_FEW: Final = 48
"""So many rows are ordered by insertion."""

Order = NDArray[np.int64]


def ordered(groups: NDArray[Any], keys: NDArray[Any], count: int) -> Order:
    """The rows in the order of `groups` (0 .. `count` - 1), then `keys`, then as they are."""
    if not worth_compiling(len(groups)):
        return np.lexsort((keys, groups))
    order = np.empty(len(groups), np.int64)
    ends = np.zeros(count + 1, np.int64)
    _ordered(groups, keys, ends, order)
    starts = np.concatenate([[0], ends[:-1]])
    for group in np.flatnonzero(ends - starts > _FEW).tolist():
        part = order[starts[group] : ends[group]]
        order[starts[group] : ends[group]] = part[np.argsort(keys[part], kind="stable")]
    return order


@compiled
def _ordered(groups: NDArray[Any], keys: NDArray[Any], ends: Int64s, order: Order) -> None:
    """Groups of many are left in the order of their rows. `ends`: in the end, where each group ends."""
    rows = len(groups)
    for row in range(rows):
        ends[groups[row] + 1] += 1
    for group in range(1, len(ends)):
        ends[group] += ends[group - 1]
    # From here on where the next row of each group belongs, and in the end where the group ends.
    for row in range(rows):
        group = groups[row]
        order[ends[group]] = row
        ends[group] += 1
    start = 0
    for group in range(len(ends) - 1):
        end = ends[group]
        if end - start <= _FEW:
            for place in range(start + 1, end):
                row = order[place]
                key = keys[row]
                before = place - 1
                while before >= start and keys[order[before]] > key:
                    order[before + 1] = order[before]
                    before -= 1
                order[before + 1] = row
        start = end
