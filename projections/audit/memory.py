"""What an audit's process does without: memory that Arrow's allocators keep, and pandas."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

import numpy as np
import pyarrow as pa

_M_MMAP_THRESHOLD: Final = -3
_LARGE: Final = 1 << 20


def hold_little() -> None:
    """For the whole process: of the allocators that Arrow brings along the one that keeps least of what was given back,
    with which an audit holds a tenth less at its peak (where it was not built in, all stays as it is); large arrays of
    NumPy each in a mapping of its own, which goes when it is freed, and leaves no hole: 50 MB of a long audit; and no
    pandas, which Arrow imports, where it is installed, when it is first shown an array: 45 MB and a quarter of a second
    for nothing that an audit asks for."""
    with suppress(NotImplementedError):
        pa.set_memory_pool(pa.jemalloc_memory_pool())
    with suppress(OSError, AttributeError):
        # Of glibc, whose own threshold rises with what is freed; elsewhere there is no such function.
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        # Arrow looks twice: its Python and its C++, each once.
        pa.array(np.zeros(1))
        pa.array(["a text"])
    finally:
        sys.meta_path.remove(finder)


class _NoPandas(MetaPathFinder):
    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "pandas":
            raise ImportError
        return None
