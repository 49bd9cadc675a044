"""Which allocator Arrow's columns lie in."""

from __future__ import annotations

from contextlib import suppress

import pyarrow as pa


def hold_little() -> None:
    """For the whole process: of those that Arrow brings along, the one that keeps least of what was given back. An
    audit then holds a tenth less at its peak. Where it was not built in, all stays as it is."""
    with suppress(NotImplementedError):
        pa.set_memory_pool(pa.jemalloc_memory_pool())
