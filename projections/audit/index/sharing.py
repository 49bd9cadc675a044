"""Work that goes in parts, done by several threads: NumPy and compiled code leave Python's lock alone for long."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

THREADS: Final = 2
_Part = TypeVar("_Part")


def in_threads(work: Callable[[_Part], None], parts: Iterable[_Part]) -> None:
    """Raises what the first part that fails raises, once all have ended."""
    with ThreadPoolExecutor(THREADS) as pool:
        for _done in pool.map(work, parts):
            pass
