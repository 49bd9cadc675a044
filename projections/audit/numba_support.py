"""Numba, if it is installed: functions are compiled once, stored beside the package, and run without Python's lock.

Where the package's folder cannot be written, Numba stores them in the user's cache folder (`NUMBA_CACHE_DIR` names
another); where there is none either, every process compiles for itself.

Numba compiles a stored function anew only when the function's own file changes, or its arguments' types do. Constants
and the fields of named tuples may come from other files. So a compiled function that uses any has a last argument with
the default `constants_key(…)`: the value of a default is a part of the types.
Proved by tests/audit/test_numba_support.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

import numpy as np

try:
    import numba
except ImportError:  # pragma: no cover - the tests' environment has it
    numba = None

AVAILABLE: Final = numba is not None
FEW: Final = 20_000
"""So many events, names or rows are done sooner without compiled code than it is compiled, which takes seconds at first
use, or even loaded."""
MISSING: Final = (
    "Numba is not installed, so this audit decides its requests one by one, which is many times slower; "
    "install it with pip install 'inforce[audit]' on CPython"
)
"""What a command or the process of an audit says once, where there is no Numba."""
_Function = TypeVar("_Function", bound=Callable[..., Any])


def constants_key(module: Mapping[str, Any], *tuples: type[tuple[Any, ...]]) -> int:
    """A number that is another one when a constant of the module (its `globals()`) or a field's name changes.

    Constants have names in upper case; `tuples` are the named tuples that the compiled functions are called with.
    """
    constants = [
        (name, value.tolist() if isinstance(value, np.ndarray | np.generic) else value)
        for name, value in sorted(module.items())
        if name.isupper()
    ]
    fields = [(one.__name__, *getattr(one, "_fields", ())) for one in tuples]
    return int.from_bytes(hashlib.sha256(repr((constants, fields)).encode()).digest()[:7])


def worth_compiling(count: int) -> bool:
    """Whether compiled code is sooner done with so many events, names or rows. It makes no other difference."""
    return AVAILABLE and count > FEW


def compiled(function: _Function) -> _Function:
    """The function as it is, where there is no Numba: then slower code does the same, and nothing calls this one.

    It must make no array: arrays are passed without counting who holds them, which took most of the time. What it calls
    becomes a part of it, which is up to twice as fast as calls with so many arrays are.
    """
    if numba is None:
        return function
    options = {"nogil": True, "forceinline": True, "_nrt": False}
    try:
        made = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        # No folder to keep it in.
        made = numba.njit(**options)(function)
    return cast("_Function", made)


def part(function: _Function) -> _Function:
    """`compiled`, for what nothing else calls than what is compiled: it is kept as a part of that, and not for
    itself."""
    if numba is None:
        return function
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return cast("_Function", numba.njit(nogil=True, forceinline=True, _nrt=False, **options)(function))
