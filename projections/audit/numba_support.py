"""Numba, if it is there: functions compiled once, kept beside the package, running without Python's lock.

Where the package's folder cannot be written, Numba keeps them in the user's cache folder (`NUMBA_CACHE_DIR` says
another); where there is none either, every process compiles for itself. What is kept is thrown away when the file of
the function itself changes, and only then: so a compiled function uses nothing of another file but what it is given,
and of tuples that it is given its file says which fields they have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

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
