"""Which engine decides: the one that needs no compiling for as long as there are few rows, then the fast one.

Numba compiles for many seconds where it has never been used, and loads what it compiled for one. Proved by
tests/audit/kernel/test_starting.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from projections.audit.kernel.deciding import Engine, Kernel
from projections.audit.numba_support import worth_compiling
from projections.audit.schemas import Decided


class Starting:
    """For one thread at a time. `made`: the kernel with an engine; asked for one of each at most."""

    def __init__(self, made: Callable[[Engine], Kernel]) -> None:
        self._made = made
        self._rows = 0
        self._kernel: Kernel | None = None

    def decided(self, batch: pa.RecordBatch) -> Decided:
        """`Kernel.decided`."""
        self._rows += batch.num_rows
        wanted: Engine = "numba" if worth_compiling(self._rows) else "numpy"
        if self._kernel is None or self._kernel.engine != wanted:
            self._kernel = self._made(wanted)
        return self._kernel.decided(batch)
