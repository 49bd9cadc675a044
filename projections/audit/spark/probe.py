"""Whether an executor's Python has what deciding needs. Imports nothing that it may not have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec


def missing(_rows: Iterable[int]) -> Iterator[str]:
    return (name for name in ("numpy", "pyarrow", "msgspec", "pydantic") if find_spec(name) is None)
