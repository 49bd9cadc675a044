"""Copying and checking the file of a SQLite ledger.

The copy shows one moment: SQLite's backup reads inside a read transaction that is held to the end, so writers continue
and their new events are not in the copy. Without that transaction, every commit by another process would make the
copy start over. Proved by tests/life/test_backup.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from ledger.codec import leaf_hash
from ledger.errors import LedgerCorrupt, LedgerUnavailable, NotALedger
from ledger.recorders.contract import IMPORTING
from ledger.recorders.sqlite_file import advice
from ledger.recorders.sqlite_schema import read_meta

PAGES_A_STEP: Final = 1000
EVENTS_A_STEP: Final = 10_000

Progress = Callable[[float], None]
"""Called with the share of the work that is done, from 0 to 1."""


class Contents(NamedTuple):
    """The contents of a ledger's file. `leaf_hash` is the last event's, `recorded_at` in µs."""

    origin: str
    position: int
    recorded_at: int
    leaf_hash: bytes


def copy_file(source: Path, copy: Path, read_only: bool, progress: Progress) -> None:
    """Copies one moment of the ledger in `source` into the empty file `copy`. Raises SQLite's errors, and those of a
    file that is not a ledger."""
    with closing(_connect(source, "mode=ro" if read_only else "mode=rw")) as ledger:
        # Held to the end, as explained above.
        ledger.execute("BEGIN")
        _require_ledger(ledger, source)
        with closing(_connect(copy, "mode=rw")) as target:
            # A half-written copy is never read, so it is flushed once, when it is complete.
            target.execute("PRAGMA synchronous=OFF")
            target.execute("PRAGMA journal_mode=MEMORY")
            ledger.backup(
                target,
                pages=PAGES_A_STEP,
                progress=lambda _status, left, total: progress(1 - left / total if total else 1),
            )


def check_file(path: Path, shown_path: Path, progress: Progress) -> Contents:
    """Reads the whole file, which nobody writes to: SQLite's own structure, the order of all events, and the hash of
    every leaf. `shown_path`: the file that errors name. Raises `NotALedger`, `LedgerUnavailable`, `LedgerCorrupt`."""
    with translated(shown_path, shown_path), closing(_connect(path, _read_mode(path))) as connection:
        connection.execute("BEGIN")
        meta = _require_ledger(connection, shown_path)
        progress(0)
        _require_integrity(connection, shown_path)
        return Contents(meta["origin"], *_read_events(connection, shown_path, lambda done: progress(0.5 + done / 2)))


@contextmanager
def translated(source: Path, target: Path) -> Iterator[None]:
    """Raises errors of SQLite and of the system as ours, in one line that names the file concerned."""
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


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?{mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def _read_mode(path: Path) -> str:
    # `immutable` leaves the file untouched and creates nothing beside it. But if the file was opened as a ledger since,
    # its last events are in the -wal file.
    return "mode=ro" if path.with_name(path.name + "-wal").exists() else "immutable=1"


def _require_ledger(connection: sqlite3.Connection, path: Path) -> dict[str, str]:
    meta = read_meta(connection.cursor(), path)
    if not meta:
        raise _not_begun(path)
    if IMPORTING in meta:
        raise LedgerUnavailable(f"an import into {path} is running or was cut off; wait for it, or run it again")
    return meta


def _not_begun(path: Path) -> NotALedger:
    return NotALedger(f"there is no ledger in {path} yet; inforce serve, submit or import creates one")


def _require_integrity(connection: sqlite3.Connection, path: Path) -> None:
    # In a thread, because Ctrl-C does not reach into SQLite, and checking a large file takes long.
    with ThreadPoolExecutor(1) as thread:
        check = thread.submit(lambda: connection.execute("PRAGMA integrity_check(1)").fetchone())
        try:
            (result,) = check.result()
        except BaseException:
            connection.interrupt()
            raise
    if result != "ok":
        raise LedgerCorrupt(f"{path} is damaged: {result.splitlines()[0]}; use another backup, or an export")


def _read_events(connection: sqlite3.Connection, path: Path, progress: Progress) -> tuple[int, int, bytes]:
    """Position, recorded_at and leaf hash of the last event. Raises `NotALedger`, `LedgerCorrupt`."""
    last = position = recorded_at = 0
    (last,) = connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()
    last_hash: Any = b""
    rows = connection.execute("SELECT position, recorded_at, leaf_hash, state FROM events ORDER BY position")
    for place, at, stored_hash, leaf in rows:
        if place != position + 1:
            raise LedgerCorrupt(f"{path} is not complete: the event at position {position} is followed by {place}")
        # SQLite stores a value of any type in any column.
        if type(at) is not int or at < recorded_at:
            raise LedgerCorrupt(f"{path} is not sound: the event at position {place} is older than the one before it")
        if type(leaf) is not bytes or leaf_hash(leaf) != stored_hash:
            raise LedgerCorrupt(f"{path} is not sound: the event at position {place} does not match its hash")
        position, recorded_at, last_hash = place, at, stored_hash
        if not position % EVENTS_A_STEP:
            progress(position / last)
    if not position:
        raise _not_begun(path)
    gap = connection.execute(
        "SELECT min(position) FROM events GROUP BY originator_id HAVING count(*) <> max(originator_version) LIMIT 1"
    ).fetchone()
    if gap is not None:
        raise LedgerCorrupt(f"{path} is not complete: the subject of the event at position {gap[0]} lacks a version")
    return position, recorded_at, last_hash
