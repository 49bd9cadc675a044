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
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, Final, TypeVar, cast

import numpy as np

AVAILABLE: Final = find_spec("numba") is not None
FEW: Final = 20_000
"""Up to this many events, names or rows, code that is not compiled is faster: compiling takes seconds at first use, and
loading compiled code takes a fraction of a second."""
MISSING: Final = (
    "Numba is not installed, so this audit decides its requests one by one, which is many times slower; "
    "install it with pip install numba on CPython"
)
"""The warning that a command, or the process of an audit, gives once if Numba is missing."""
_CONSTANT: Final = (int, float, str, bytes, tuple, list, np.ndarray, np.generic)
_Function = TypeVar("_Function", bound=Callable[..., Any])


def constants_key(module: Mapping[str, Any], *tuples: type[tuple[Any, ...]]) -> int:
    """A number that changes with any constant of a module (its `globals()`) and with any field's name.

    Constants have names in upper case, and must be defined before the call. `tuples`: the named tuples that the
    compiled functions take.
    """
    constants = [
        (name, value.tolist() if isinstance(value, np.ndarray | np.generic) else value)
        for name, value in sorted(module.items())
        if name.isupper() and isinstance(value, _CONSTANT)
    ]
    fields = [(one.__name__, *getattr(one, "_fields", ())) for one in tuples]
    return int.from_bytes(hashlib.sha256(repr((constants, fields)).encode()).digest()[:7])


def worth_compiling(count: int) -> bool:
    """Whether compiled code is faster for this many events, names or rows. The results are the same."""
    return AVAILABLE and count > FEW


class _Compiled:
    """A function that Numba compiles when it is first called. Until then Numba is not even imported: that takes 0.3 s
    and 40 MB, which an audit of a short log does without."""

    def __init__(self, function: Callable[..., Any], options: Mapping[str, bool], *, stored: bool) -> None:
        self.py_func = function
        self._options = options
        self._stored = stored
        self._made: Any = None
        self._ready: Any = None
        """The same, once the functions that it calls have their own forms too: from then on any thread may call it."""

    def __call__(self, *arguments: Any) -> Any:
        return (self._ready or self.dispatcher())(*arguments)

    def dispatcher(self) -> Any:
        """Numba's own form of the function. Numba looks up the functions that it calls among the module's globals, so
        these get their own forms, too."""
        with _LOCK:
            if self._made is None:
                self._made = self._make()
                names = self.py_func.__globals__
                names |= {name: one.dispatcher() for name, one in list(names.items()) if isinstance(one, _Compiled)}
                self._ready = self._made
            return self._made

    def _make(self) -> Any:
        import numba

        if self._stored:
            # Numba raises RuntimeError where there is no folder to store compiled code in.
            with suppress(RuntimeError):
                return numba.njit(cache=True, **self._options)(self.py_func)
        return numba.njit(**self._options)(self.py_func)


_LOCK: Final = threading.RLock()
_OPTIONS: Final = {"nogil": True, "forceinline": True, "_nrt": False}


def compiled(function: _Function) -> _Function:
    """Compiles a function when it is first called. Without Numba, returns it as it is; slower code is used instead.

    The function must not create arrays: it takes arrays without reference counts, whose upkeep took most of the time.
    The compiled functions that it calls are inlined, which is up to twice as fast as calls with so many arrays.
    """
    return cast("_Function", _Compiled(function, _OPTIONS, stored=True)) if AVAILABLE else function


def part(function: _Function) -> _Function:
    """`compiled`, for a function that only compiled functions call: it is inlined there and not stored by itself. It
    has no entry point from Python, which would take as long to compile as all the rest."""
    options = _OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return cast("_Function", _Compiled(function, options, stored=False)) if AVAILABLE else function
