"""Rows counted by code. Proved by tests/audit/io/test_counting.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from projections.audit.index.schema import Int32s
from projections.audit.kernel.tables import Int8s, sealed
from projections.audit.numba_support import compiled as _compiled


@_compiled
def _tally(codes: Any, columns: Any, width: Any, counts: Any) -> None:
    for at in range(len(codes)):
        if codes[at] >= 0:
            counts[np.int64(codes[at]) * width + columns[at]] += 1


def tally(codes: Int32s, columns: Int8s, counts: Any, *, width: int, compiled: bool) -> None:
    """Adds one to counts[code * width + column] for each row whose code is not negative."""
    if compiled:
        _tally(sealed(codes), sealed(columns), width, counts)
        return
    there = codes >= 0
    np.add.at(counts, codes[there].astype(np.int64) * width + columns[there], 1)
