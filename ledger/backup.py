"""Backing up a whole SQLite ledger while others write to it.

The copy grows under a temporary name beside the target, is checked and flushed to disk, and takes the target's name in
one step. If anything fails before that, no part of it remains. Proved by tests/life/test_backup.py.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ledger.errors import BadInput, LedgerUnavailable
from ledger.opening import database_file, sqlite_path
from ledger.recorders.sqlite_backup import Contents, check_file, copy_file, translated
from ledger.recorders.sqlite_file import COMPANIONS, SQLiteLedgerDatastore

Progress = Callable[[float, str], None]
"""Called with the share of all work that is done, from 0 to 1, and with the name of the current step."""


class Backup(NamedTuple):
    """The contents of a copy, read from the copy itself. `leaf_hash` is the last event's, `recorded_at` in µs."""

    file: str
    bytes: int
    origin: str
    position: int
    recorded_at: int
    leaf_hash: str


def back_up(url: str, target: Path, *, overwrite: bool = False, progress: Progress | None = None) -> Backup:
    """Copies the ledger at `url` into the file `target`.

    Raises `BadInput` if the ledger is not a SQLite file or the target must not be written, `LedgerUnavailable` if the
    ledger cannot be read or the copy cannot be written, and `LedgerCorrupt` if the copied data is damaged.
    """
    if database_file(url) is None:
        raise BadInput(
            "a ledger in PostgreSQL is backed up by pg_dump --format=custom --schema=inforce; see Backup and restore "
            "in ledger/README.md"
        )
    source, read_only = sqlite_path(url)
    if not source.exists():
        raise LedgerUnavailable(f"there is no ledger at {source}; name one with --db")
    _require_free(target, source, overwrite)
    SQLiteLedgerDatastore(source).check_header()
    report = progress or _ignore
    with _temporary_file(target, source) as copy:
        with translated(source, target):
            copy_file(source, copy, read_only, lambda done: report(done / 2, "copying"))
        # Pages are copied as they are, so damage in the copy is damage in the ledger.
        contents = check_file(copy, source, lambda done: report(0.5 + done / 2, "checking"))
        backup = _backup(target, copy, contents)
        with translated(source, target):
            _rename(copy, target, overwrite)
    return backup


def check_backup(path: Path, *, progress: Progress | None = None) -> Backup:
    """Reads and checks a whole SQLite ledger that nobody writes to: see `check_file`.

    Raises `NotALedger` if it is not a ledger, `LedgerUnavailable` if it cannot be read, `LedgerCorrupt` if it is
    damaged.
    """
    report = progress or _ignore
    if not path.is_file():
        raise LedgerUnavailable(f"there is no file {path}; name a backup of a ledger")
    SQLiteLedgerDatastore(path).check_header()
    contents = check_file(path, path, lambda done: report(done, "checking"))
    return _backup(path, path, contents)


def _backup(name: Path, file: Path, contents: Contents) -> Backup:
    origin, position, recorded_at, leaf_hash = contents
    with translated(name, name):
        return Backup(str(name), file.stat().st_size, origin, position, recorded_at, leaf_hash.hex())


def _ignore(_done: float, _step: str) -> None:
    pass


def _require_free(target: Path, source: Path, overwrite: bool) -> None:
    if target.exists():
        if target.samefile(source):
            raise BadInput(f"{target} is the ledger itself; name another file")
        if not overwrite:
            raise BadInput(f"{target} exists already; name another file, or overwrite it with --force")
        if not target.is_file():
            raise BadInput(f"{target} is not a file; name another")
    elif not target.parent.is_dir():
        raise BadInput(f"there is no folder {target.parent}; create it, or name another file")
    for suffix in COMPANIONS:
        companion = target.with_name(target.name + suffix)
        if companion.exists():
            raise BadInput(
                f"{companion} belongs to a database that was or is {target}, and would damage a copy under that name; "
                "name another file"
            )


@contextmanager
def _temporary_file(target: Path, source: Path) -> Iterator[Path]:
    """An empty file beside the target, with the source's permissions. It and its companions are deleted at the end."""
    copy = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}")
    try:
        with translated(source, target):
            os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, source.stat().st_mode & 0o777))
        yield copy
    finally:
        for suffix in ("", *COMPANIONS):
            copy.with_name(copy.name + suffix).unlink(missing_ok=True)


def _rename(copy: Path, target: Path, overwrite: bool) -> None:
    with copy.open("rb") as file:
        os.fsync(file.fileno())
    if overwrite:
        copy.replace(target)
    else:
        _rename_if_free(copy, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _rename_if_free(copy: Path, target: Path) -> None:
    try:
        # Unlike a rename, this fails if another process has created the target meanwhile.
        target.hardlink_to(copy)
    except FileExistsError:
        raise BadInput(f"{target} exists already; name another file, or overwrite it with --force") from None
    except OSError:
        # Some file systems have no hard links.
        copy.rename(target)
