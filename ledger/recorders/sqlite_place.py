"""The place of a SQLite ledger: its file, the files that belong beside it, and whether anything can still write it.

Proved by tests/faults/test_places.py.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ledger.errors import LedgerUnavailable, NotALedger

COMPANIONS: Final = ("-wal", "-shm", "-journal")
"""Suffixes of the files that SQLite keeps beside a database. Left over from another database, they would be taken for
parts of this one."""

_WRITE_BITS: Final = 0o222


def database_uri(path: Path, *, read_only: bool) -> str:
    """SQLite's URI of the file. Raises as `read_mode`."""
    return f"{path.absolute().as_uri()}?{read_mode(path) if read_only else 'mode=rwc'}"


def read_mode(path: Path) -> str:
    """The part of a URI that opens the file for reading only.

    Raises `LedgerUnavailable` if a -wal beside it holds its last events and nothing can be written there.
    """
    if not cannot_change(path):
        return "mode=ro"
    wal, shm = (companion(path, suffix) for suffix in ("-wal", "-shm"))
    if not _bytes(wal):
        # Otherwise SQLite makes a -shm file to read. It then looks for no -wal either.
        return "mode=ro&immutable=1"
    if shm.exists():
        return "mode=ro"
    raise LedgerUnavailable(
        f"{path} lies where nothing can be written, and {wal} beside it holds its last events; copy both files to a "
        "folder that you may write, and open the copy there"
    )


def cannot_change(path: Path) -> bool:
    """Whether no process can write the file: the file system is read-only, or neither the file nor its folder may be
    written by anybody (root, who may, is asked as well)."""
    try:
        file, folder = os.stat(path), os.stat(os.path.dirname(os.path.realpath(path)))
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            return True
    except OSError:
        return False
    if not (file.st_mode | folder.st_mode) & _WRITE_BITS:
        return True
    # Made immutable (chattr +i): no -wal can appear beside it either.
    return os.geteuid() == 0 and not os.access(os.path.dirname(os.path.realpath(path)), os.W_OK)


def companion(path: Path, suffix: str) -> Path:
    # SQLite puts them beside the file that a link names.
    real = Path(os.path.realpath(path))
    return real.with_name(real.name + suffix)


def require_no_orphans(path: Path) -> None:
    """For a file that is missing or empty. Raises `LedgerUnavailable` if companions lie where it should: they hold
    events, and SQLite would delete them when a new ledger is begun."""
    orphans = [file for suffix in COMPANIONS if (file := companion(path, suffix)).exists()]
    # Only now: another process may be making the ledger, and makes the file before its companions.
    empty = path.exists()
    if empty:
        if _bytes(path):
            return
        # It may have a journal already, but no -wal with content.
        orphans = [file for file in orphans if file.name.endswith("-wal") and _bytes(file)]
    if orphans:
        names, them = " and ".join(map(str, orphans)), "them" if len(orphans) > 1 else "it"
        raise LedgerUnavailable(
            f"{path} {'is empty' if empty else 'is not there'}, but beside it lies what may hold the last events of a "
            f"ledger: {names}; put the ledger's file back, or move {them} away to begin a new one"
        )


def check_header(path: Path) -> None:
    """Raises `NotALedger` if the file is of another kind, `LedgerUnavailable` if it cannot be read or was taken away
    from the files beside it."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        header = b""
    except OSError as error:
        raise LedgerUnavailable(
            f"{path} cannot be read ({error.strerror}); make it readable or name another file with --db"
        ) from None
    if not header:
        require_no_orphans(path)
    elif header[:16] != b"SQLite format 3\x00":
        raise NotALedger(f"{path} is not a SQLite file, so it is not a ledger; name another file with --db")


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
