"""Machine code that Numba made, stored so that it is made once: by any process, for every process that may read it.

The first of these folders that can be written takes new code, and all of them are searched: the one that
`NUMBA_CACHE_DIR` names, and no other if it is set; the package's own, so that all users of an installation find what
its owner compiled; the user's cache folder; a folder of the user's below the system's temporary ones, which outlives a
task on a cluster. A package inside a zip, as Spark ships it, is searched, too.

A file's name says what its code was made from: the source and constants, Numba, Python and the processor. So a file is
never out of date, and a process can see what is stored without importing Numba. Code is loaded only from a folder that
nobody else may write, because loading a file can run it. Proved by tests/audit/test_stored_code.py.
"""

from __future__ import annotations

import fcntl
import hashlib
import linecache
import os
import pickle
import platform
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from ledger.private_files import FILE_MODE, FOLDER_MODE

IN_PACKAGE: Final = ("__pycache__", "compiled")
_PACKAGE: Final = "projections.audit"
_READABLE_FOLDER: Final = 0o755
_READABLE_FILE: Final = 0o644
_OTHERS_WRITE: Final = 0o022
_UNUSED_S: Final = 30 * 86_400
"""Code of another version of a function is removed once nothing has used it for so long."""


class _Folder(NamedTuple):
    """`trusted`: named by the user, so its owner and mode are not looked at."""

    path: Path
    folder_mode: int = FOLDER_MODE
    file_mode: int = FILE_MODE
    trusted: bool = False


@cache
def name_of(function: Callable[..., Any]) -> str:
    """The name that all files with code of this function begin with."""
    source = "".join(linecache.getlines(function.__code__.co_filename, function.__globals__))
    made_from = (source, function.__code__.co_code, function.__defaults__, _environment())
    digest = hashlib.sha256(repr(made_from).encode()).hexdigest()[:24]
    return f"{function.__module__.rpartition('.')[2]}.{function.__name__}-{digest}."


def is_stored(function: Callable[..., Any]) -> bool:
    name = name_of(function)
    return any(file.name.startswith(name) for folder in _searched() for file in _files(folder))


def stored_files() -> Iterator[tuple[str, bytes]]:
    """(name, content) of everything that is stored for this environment, to be shipped with the package."""
    seen = set()
    for folder in _searched():
        for file in _files(folder):
            if file.name not in seen:
                seen.add(file.name)
                with suppress(OSError):
                    yield file.name, file.read_bytes()


def can_store() -> bool:
    return _writable() is not None


def lock_file(name: str) -> IO[bytes] | None:
    """A file to lock, beside the code. None: nothing can be stored. Code is made under its lock, so that it is made by
    one process while others wait; the lock ends with the process."""
    folder = _writable()
    if folder is None:
        return None
    with suppress(OSError):
        return open(folder.path / f"{name}lock", "ab", opener=_opener(folder.file_mode))
    return None


class StoredCode:
    """The cache of one function, in the form that a Numba dispatcher takes."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = name_of(function)
        self._lock: IO[bytes] | None = None

    @property
    def cache_path(self) -> str | None:
        folder = _writable()
        return None if folder is None else str(folder.path)

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """The compiled function, or None. Then the caller compiles it, and calls `save_overload`."""
        target_context.refresh()
        name = self._file_name(signature, target_context.codegen())
        code = _load(name, target_context)
        if code is None:
            self._release()
            self._lock = lock_file(self._name)
            if self._lock is not None:
                fcntl.flock(self._lock, fcntl.LOCK_EX)
                # Another process may have made it while this one waited.
                code = _load(name, target_context)
        if code is not None:
            self._release()
        return code

    def save_overload(self, signature: Any, code: Any) -> None:
        from numba.core.serialize import dumps

        folder = _writable()
        try:
            if folder is not None and not code.lifted and not code.library.has_dynamic_globals:
                with suppress(OSError):
                    _write(folder, self._file_name(signature, code.codegen), dumps(code._reduce()))
        finally:
            self._release()

    def enable(self) -> None:
        """Numba calls it; this cache is always enabled."""

    disable = flush = enable

    def _file_name(self, signature: Any, codegen: Any) -> str:
        key = hashlib.sha256(repr((signature, codegen.magic_tuple())).encode()).hexdigest()[:24]
        return f"{self._name}{key}"

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _load(name: str, target_context: Any) -> Any:
    from numba.core.compiler import CompileResult

    for folder in _searched():
        file = folder / name
        try:
            content = file.read_bytes()
            if isinstance(file, Path):
                with suppress(OSError):
                    os.utime(file)
            return CompileResult._rebuild(target_context, *pickle.loads(content))  # noqa: S301 - see `_is_safe`
        except (OSError, KeyError):
            continue
        except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, ImportError, RuntimeError):
            # A damaged file: the function is compiled again, and the file replaced.
            continue
    return None


def _write(folder: _Folder, name: str, content: bytes) -> None:
    temporary = folder.path / f".{secrets.token_hex(8)}"
    try:
        with open(temporary, "xb", opener=_opener(folder.file_mode)) as file:
            # The umask does not count here: other users read the package's own folder.
            os.fchmod(file.fileno(), folder.file_mode)
            file.write(content)
            now = os.fstat(file.fileno()).st_mtime
        temporary.replace(folder.path / name)
    finally:
        temporary.unlink(missing_ok=True)
    function = name.partition("-")[0]
    for old in folder.path.glob(f"{function}-*"):
        with suppress(OSError):
            if old.stat().st_mtime < now - _UNUSED_S:
                old.unlink()


def _opener(mode: int) -> Callable[[str, int], int]:
    return lambda path, flags: os.open(path, flags, mode)


def _folders() -> Iterator[_Folder]:
    """The folders that may be written, the best one first."""
    named = os.environ.get("NUMBA_CACHE_DIR")
    if named:
        yield _Folder(Path(named, "inforce"), trusted=True)
        return
    package = files(_PACKAGE)
    if isinstance(package, Path):
        yield _Folder(package.joinpath(*IN_PACKAGE), _READABLE_FOLDER, _READABLE_FILE)
    with suppress(RuntimeError):
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        yield _Folder(Path(caches, "inforce", "compiled"))
    yield _Folder(Path(tempfile.gettempdir(), f"inforce-compiled-{os.geteuid()}"))


def _searched() -> Iterator[Traversable]:
    for folder in _folders():
        if folder.trusted or _is_safe(folder.path):
            yield folder.path
    package = files(_PACKAGE)
    if not isinstance(package, Path):
        yield package.joinpath(*IN_PACKAGE)


def _is_safe(folder: Path) -> bool:
    """Whether nobody but this user, root and the package's owner may write the folder."""
    owners = {0, os.geteuid()}
    with suppress(OSError):
        owners.add(os.stat(__file__).st_uid)
    try:
        status = os.stat(folder, follow_symlinks=False)
    except OSError:
        return False
    return status.st_uid in owners and not status.st_mode & _OTHERS_WRITE


def _files(folder: Traversable) -> list[Traversable]:
    try:
        return [file for file in folder.iterdir() if file.name.count(".") == 2 and not file.name.endswith(".lock")]
    except (OSError, KeyError, ValueError):
        return []


@cache
def _first_writable(_folders_key: tuple[_Folder, ...]) -> _Folder | None:
    for folder in _folders_key:
        with suppress(OSError):
            _make(folder)
            if (folder.trusted or _is_safe(folder.path)) and os.access(folder.path, os.W_OK):
                return folder
    return None


def _writable() -> _Folder | None:
    return _first_writable(tuple(_folders()))


def _make(folder: _Folder) -> None:
    for above in [*reversed(folder.path.parents), folder.path]:
        if not above.is_dir():
            with suppress(FileExistsError):
                above.mkdir()
                above.chmod(folder.folder_mode)


@cache
def _environment() -> tuple[str, ...]:
    """The facts about this process on which compiled code depends."""
    system = (sys.implementation.cache_tag or "", sys.platform, platform.machine(), _processor())
    return version("numba"), version("llvmlite"), *system


def _processor() -> str:
    """The facts that Linux gives of the first processor; elsewhere the name of the architecture."""
    with suppress(OSError), open("/proc/cpuinfo") as lines:
        facts = {}
        for line in lines:
            name, _, value = line.partition(":")
            if not name.strip():
                break
            facts[name.strip()] = value.strip()
        return repr([facts.get(name) for name in ("model name", "flags", "CPU part", "Features")])
    return platform.processor()
