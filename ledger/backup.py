"""A copy of a whole SQLite ledger while others write to it, checked before it has a name.

Copied is one moment: SQLite's backup reads through a read transaction that is held to the end. Writers go on meanwhile,
and what they write is not in the copy. The copy grows beside its name, is checked, flushed to disk, and only then
takes the name, in one step; whatever goes wrong before that leaves no part of it. Proved by tests/life/test_backup.py.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from ledger.codec import leaf_hash
from ledger.errors import BadInput, LedgerCorrupt, LedgerUnavailable, NotALedger
from ledger.opening import sqlite_path
from ledger.recorders.contract import IMPORTING
from ledger.recorders.sqlite_file import SQLiteLedgerDatastore, advice
from ledger.recorders.sqlite_schema import read_meta

PAGES_A_STEP: Final = 1000
EVENTS_A_STEP: Final = 10_000
COMPANIONS: Final = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a file under its name; of another database, it would be taken for this one's."""

Progress = Callable[[float, str], None]
"""Is told how much of all is done, from 0 to 1, and what is being done."""


class Backup(NamedTuple):
    """What a copy holds, seen in the copy itself. `leaf_hash` is the last event's, `recorded_at` in µs."""

    file: str
    bytes: int
    origin: str
    position: int
    recorded_at: int
    leaf_hash: str


def back_up(url: str, target: Path, *, overwrite: bool = False, progress: Progress | None = None) -> Backup:
    """Copies the ledger at `url` into the file `target`.

    Raises `BadInput` where the ledger is no SQLite file or the target must not be written, `LedgerUnavailable` where
    the ledger cannot be read or the copy not be written, and `LedgerCorrupt` where what was copied is not whole.
    """
    if not url.startswith("sqlite:"):
        raise BadInput(
            "a ledger in PostgreSQL is backed up by pg_dump --format=custom --schema=inforce; see Backup and restore "
            "in ledger/README.md"
        )
    source, read_only = sqlite_path(url)
    if not source.exists():
        raise LedgerUnavailable(f"there is no ledger at {source}; name one with --db")
    _require_free(target, source, overwrite)
    SQLiteLedgerDatastore(source).check_header()
    tell = progress or _unheard
    with _beside(target, source) as copy:
        with _translated(source, target):
            _copy(source, copy, read_only, lambda done: tell(done / 2, "copying"))
        # Pages are copied as they are: what is wrong with the copy is wrong with the ledger.
        made = _check(copy, source, lambda done: tell(0.5 + done / 2, "checking"))
        with _translated(source, target):
            _take_name(copy, target, overwrite)
    return made._replace(file=str(target))


def check_backup(path: Path, *, progress: Progress | None = None) -> Backup:
    """Reads all of a SQLite ledger that nobody writes to: SQLite's own structure, that every event is in its place and
    every leaf the one that was hashed.

    Raises `NotALedger` where there is none, `LedgerUnavailable` where it cannot be read, `LedgerCorrupt` where it is
    not whole.
    """
    tell = progress or _unheard
    if not path.is_file():
        raise LedgerUnavailable(f"there is no file {path}; name a backup of a ledger")
    SQLiteLedgerDatastore(path).check_header()
    return _check(path, path, lambda done: tell(done, "checking"))


def _check(path: Path, named: Path, tell: Callable[[float], None]) -> Backup:
    """`named`: the file that errors speak of."""
    with _translated(named, named), closing(_connected(path, _read_mode(path))) as connection:
        connection.execute("BEGIN")
        meta = _meta(connection, named)
        tell(0)
        _require_sound(connection, named)
        position, recorded_at, hash_ = _read_events(connection, named, lambda done: tell(0.5 + done / 2))
    return Backup(str(path), path.stat().st_size, meta["origin"], position, recorded_at, hash_.hex())


def _unheard(_done: float, _words: str) -> None:
    pass


def _require_free(target: Path, source: Path, overwrite: bool) -> None:
    if target.exists():
        if target.samefile(source):
            raise BadInput(f"{target} is the ledger itself; name another file")
        if not overwrite:
            raise BadInput(f"{target} is there already; name another file, or overwrite it with --force")
        if not target.is_file():
            raise BadInput(f"{target} is no file; name another")
    elif not target.parent.is_dir():
        raise BadInput(f"there is no folder {target.parent}; make it, or name another file")
    for name in COMPANIONS:
        companion = target.with_name(target.name + name)
        if companion.exists():
            raise BadInput(
                f"{companion} belongs to a database that was or is {target}, and would spoil a copy under that name; "
                "name another file"
            )


@contextmanager
def _beside(target: Path, source: Path) -> Iterator[Path]:
    """An empty file beside the target, as private as the source; gone with all that belongs to it at the end."""
    copy = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}")
    try:
        with _translated(source, target):
            os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, source.stat().st_mode & 0o777))
        yield copy
    finally:
        for name in ("", *COMPANIONS):
            copy.with_name(copy.name + name).unlink(missing_ok=True)


def _copy(source: Path, copy: Path, read_only: bool, tell: Callable[[float], None]) -> None:
    with closing(_connected(source, "mode=ro" if read_only else "mode=rw")) as ledger:
        # Held to the end: without it, every commit by another process makes the copy begin again.
        ledger.execute("BEGIN")
        _meta(ledger, source)
        with closing(_connected(copy, "mode=rw")) as into:
            # Nothing of a half-written copy is ever read, so it is flushed once, when it is whole.
            into.execute("PRAGMA synchronous=OFF")
            into.execute("PRAGMA journal_mode=MEMORY")
            ledger.backup(
                into, pages=PAGES_A_STEP, progress=lambda _status, left, total: tell(1 - left / total if total else 1)
            )


def _take_name(copy: Path, target: Path, overwrite: bool) -> None:
    with copy.open("rb") as file:
        os.fsync(file.fileno())
    if overwrite:
        copy.replace(target)
    else:
        _move(copy, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _move(copy: Path, target: Path) -> None:
    try:
        # Unlike a renaming, this fails where somebody else has made the file since.
        target.hardlink_to(copy)
    except FileExistsError:
        raise BadInput(f"{target} is there already; name another file, or overwrite it with --force") from None
    except OSError:
        # Not every file system knows links.
        copy.rename(target)


def _connected(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?{mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def _read_mode(path: Path) -> str:
    # Untouched, and nothing made beside it; unless it was opened as a ledger since, and its last events are elsewhere.
    return "mode=ro" if path.with_name(path.name + "-wal").exists() else "immutable=1"


def _meta(connection: sqlite3.Connection, path: Path) -> dict[str, str]:
    meta = read_meta(connection.cursor(), path)
    if not meta:
        raise NotALedger(f"there is no ledger in {path} yet; inforce serve, submit or import begins one")
    if IMPORTING in meta:
        raise LedgerUnavailable(f"an import into {path} is running or was cut off; wait for it, or run it again")
    return meta


def _require_sound(connection: sqlite3.Connection, path: Path) -> None:
    # In a thread, because Ctrl-C does not reach into SQLite, and a large file takes its time.
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(lambda: connection.execute("PRAGMA integrity_check(1)").fetchone())
        try:
            (said,) = asked.result()
        except BaseException:
            connection.interrupt()
            raise
    if said != "ok":
        raise LedgerCorrupt(f"{path} is damaged: {said.splitlines()[0]}; use another backup, or an export")


def _read_events(connection: sqlite3.Connection, path: Path, tell: Callable[[float], None]) -> tuple[int, int, bytes]:
    last = position = recorded_at = 0
    (last,) = connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()
    hash_: Any = b""
    rows = connection.execute("SELECT position, recorded_at, leaf_hash, state FROM events ORDER BY position")
    for place, at, kept, leaf in rows:
        if place != position + 1:
            raise LedgerCorrupt(f"{path} is not whole: after the event at position {position} comes that at {place}")
        # SQLite keeps a value of any type in any column.
        if type(at) is not int or at < recorded_at:
            raise LedgerCorrupt(f"{path} is not sound: the event at position {place} is older than the one before it")
        if type(leaf) is not bytes or leaf_hash(leaf) != kept:
            raise LedgerCorrupt(f"{path} is not sound: the event at position {place} is not the one that was hashed")
        position, recorded_at, hash_ = place, at, kept
        if not position % EVENTS_A_STEP:
            tell(position / last)
    if not position:
        raise NotALedger(f"there is no ledger in {path} yet; inforce serve, submit or import begins one")
    gap = connection.execute(
        "SELECT min(position) FROM events GROUP BY originator_id HAVING count(*) <> max(originator_version) LIMIT 1"
    ).fetchone()
    if gap is not None:
        raise LedgerCorrupt(f"{path} is not whole: the subject of the event at position {gap[0]} lacks a version")
    return position, recorded_at, hash_


@contextmanager
def _translated(source: Path, target: Path) -> Iterator[None]:
    """SQLite's and the system's errors as ours, in one line that names the file they concern."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise LedgerCorrupt(f"{source} is damaged ({error}); restore it from a backup or an export") from error
        path = target if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR) else source
        raise LedgerUnavailable(f"{path} cannot be used: {advice(str(error), path)}") from error
    except OSError as error:
        raise LedgerUnavailable(f"{target} cannot be written: {error.strerror}; nothing was left there") from error
