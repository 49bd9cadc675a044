"""Decides batches over a policy index: row by row while there are few rows, then with compiled code.

Numba compiles the kernel for some ten seconds where it was never used before, and a first look at a small log should
not wait for that. Where Numba is not installed, every row is decided row by row. Both ways give the same bytes.
Proved by tests/audit/kernel/test_batch_decider.py and tests/audit/test_without_numba.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyarrow as pa

from projections.audit.index.schema import PolicyIndex
from projections.audit.kernel.row_by_row import RowByRow
from projections.audit.numba_support import worth_compiling
from projections.audit.schemas import DecidedBatch

if TYPE_CHECKING:
    from projections.audit.kernel.kernel import Kernel

_ROW_COST: Final = 4
"""A row takes as long without compiled code as this many of the events or names that `worth_compiling` counts."""


class BatchDecider:
    """For one thread at a time."""

    def __init__(self, index: PolicyIndex) -> None:
        self._index = index
        self._rows = 0
        self._row_by_row: RowByRow | None = None
        self._kernel: Kernel | None = None

    def decide(self, batch: pa.RecordBatch) -> DecidedBatch:
        """`Kernel.decide`."""
        self._rows += batch.num_rows
        if worth_compiling(_ROW_COST * self._rows):
            if self._kernel is None:
                # Imported here because the compiled functions take 0.1 s to import, which a short log does without.
                from projections.audit.kernel.kernel import Kernel

                self._kernel, self._row_by_row = Kernel(self._index), None
            return self._kernel.decide(batch)
        if self._row_by_row is None:
            self._row_by_row = RowByRow(self._index)
        return self._row_by_row.decide(batch)
