"""Finds the packages that an executor's Python lacks. Imports none of them itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec


def missing_packages(_rows: Iterable[int]) -> Iterator[str]:
    return (name for name in ("numpy", "pyarrow", "msgspec", "pydantic") if find_spec(name) is None)
