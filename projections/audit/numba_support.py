"""Numba, if it is installed: functions are compiled once, stored (`stored_code`), and run without Python's lock.

Compiling everything takes some ten seconds, once. Nobody waits for it: code that is not compiled gives the same results
until then, and another process compiles (`compile_ahead`). Work that would take longer than that waits instead.

A stored function is compiled anew only when the function's own file changes, or its arguments' types do. Constants and
the fields of named tuples may come from other files. So a compiled function that uses any has a last argument with the
default `constants_key(…)`: the value of a default is a part of what the code was made from.
Proved by tests/audit/test_numba_support.py and tests/audit/test_stored_code.py.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, Final, TypeVar, cast

import numpy as np

from projections.audit.stored_code import StoredCode, can_store, is_stored

AVAILABLE: Final = find_spec("numba") is not None
FEW = 20_000
"""Up to this many events, names or rows, code that is not compiled is faster: compiling takes seconds at first use, and
loading compiled code takes a fraction of a second."""
_WAIT_FROM: Final = 50
"""From so many times FEW on, waiting for the compiler is faster than going on without it."""
_PAUSE_S: Final = 0.1
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


def worth_compiling(count: int, *functions: Callable[..., Any]) -> bool:
    """Whether compiled code is faster for this many events, names or rows. The results are the same.

    `functions`: the compiled functions that the caller would call. While they are not compiled, the answer is no, and
    another process compiles them; for a large `count` the answer is yes, and the call waits for the compiler.
    """
    return count > FEW and are_ready(*functions, wait=count > _WAIT_FROM * FEW)


def are_ready(*functions: Callable[..., Any], wait: bool) -> bool:
    """Whether the caller can call these compiled functions, without waiting for the compiler or, with `wait`, at all.
    If they are not compiled, another process begins to compile them."""
    if not AVAILABLE or wait:
        return AVAILABLE
    return all(one.is_ready() for one in functions if isinstance(one, _Compiled)) or not _AHEAD.start()


def is_compiling() -> bool:
    """Whether this process has started the compiler in another one, and that is still at work."""
    return _AHEAD.is_running()


def finish_compiling(*functions: Callable[..., Any]) -> None:
    """Waits until these compiled functions are stored, if they can be stored."""
    while not are_ready(*functions, wait=False) and _AHEAD.is_running():
        time.sleep(_PAUSE_S)


class _Ahead:
    """`compile_ahead` in a process of its own, which outlives this one, so that the next finds what it made."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def start(self) -> bool:
        """Whether it is at work. It is started once; if it ended, or nothing can be stored, there is no use in it."""
        with self._lock:
            if self._process is None and can_store():
                # Isolated from this process: Ctrl-C in the terminal, and the end of the session, leave it alone.
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "projections.audit.compile_ahead"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    cwd="/",
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path)},
                )
        return self.is_running()

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None


_AHEAD: Final = _Ahead()


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
        self._is_ready = False

    def __call__(self, *arguments: Any) -> Any:
        return (self._ready or self.dispatcher())(*arguments)

    def is_ready(self) -> bool:
        """Whether a call need not wait for the compiler: the code is here or stored."""
        if not self._is_ready:
            self._is_ready = (self._made is not None and bool(self._made.signatures)) or is_stored(self.py_func)
        return self._is_ready

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

        made = numba.njit(**self._options)(self.py_func)
        if self._stored:
            # In place of Numba's own, which one user does not find if another wrote it, nor a worker of a cluster.
            made._cache = StoredCode(self.py_func)
        return made


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
