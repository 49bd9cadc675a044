"""Backing up a whole SQLite ledger while others write to it.

The copy grows under a temporary name beside the target, is checked and flushed to disk, and takes the target's name in
one step. If anything fails before that, no part of it remains. The copy shows one moment: SQLite's backup reads inside
a read transaction that is held to the end, so writers continue and their new events are not in the copy. Without that
transaction, every commit by another process would make the copy start over. Proved by tests/life/test_backup.py.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from ledger.check import fact_faults, faults_beside_events, pages_of_rows, personal_faults
from ledger.errors import BadInput, DamagedEvent, LedgerCorrupt, LedgerUnavailable, NotALedger
from ledger.opening import database_file, new_incarnation, sqlite_path
from ledger.private_files import open_private
from ledger.recorders.contract import IMPORTING, INCARNATION, Entry, Recorder
from ledger.recorders.soundness import sound_entries
from ledger.recorders.sqlite import SQLiteLedgerRecorder
from ledger.recorders.sqlite_file import SQLiteLedgerDatastore, advice, delete_securely, is_damage
from ledger.recorders.sqlite_place import COMPANIONS, read_mode
from ledger.recorders.sqlite_schema import altered_tables, read_meta

PAGES_A_STEP: Final = 1000

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
    report = progress or (lambda _done, _step: None)
    with _temporary_file(target, source) as copy:
        with _translated(source, target):
            _copy_file(source, copy, read_only, lambda done: report(done / 2, "copying"))
        # Pages are copied as they are, so damage in the copy is damage in the ledger.
        backup = _check_file(copy, source, target, lambda done: report(0.5 + done / 2, "checking"))
        with _translated(source, target):
            _rename(copy, target, overwrite)
    return backup


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
    """An empty private file beside the target. It and its companions are deleted at the end."""
    copy = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}")
    try:
        with _translated(source, target):
            open_private(copy, "xb").close()
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
        try:
            # Unlike a rename, this fails if another process has created the target meanwhile.
            target.hardlink_to(copy)
        except FileExistsError:
            raise BadInput(f"{target} exists already; name another file, or overwrite it with --force") from None
        except OSError:
            # Some file systems have no hard links.
            copy.rename(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _copy_file(source: Path, copy: Path, read_only: bool, report: Callable[[float], None]) -> None:
    """Copies one moment of the ledger in `source` into the empty file `copy`. Raises SQLite's errors, and those of a
    file that is not a ledger."""
    with closing(_connect(source, read_mode(source) if read_only else "mode=rw")) as ledger:
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
                progress=lambda _status, left, total: report(1 - left / total if total else 1),
            )
            # So that a server under whose file the copy is put notices.
            target.execute("INSERT OR REPLACE INTO ledger_meta VALUES (?, ?)", (INCARNATION, new_incarnation()))


def _check_file(path: Path, shown_path: Path, name: Path, report: Callable[[float], None]) -> Backup:
    """Reads the whole file, which nobody writes to: SQLite's own structure, the tables' definitions, the order of all
    events, each event's columns, leaf and hash, reasons, and idempotency keys. Not compared, because `--check` does and
    a rebuild makes them anew: the stored timelines and the log's tree; nor triggers and indexes, which opening the file
    looks at.

    `shown_path`: the file that errors name; `name`: the file that the answer names. Raises `NotALedger`,
    `LedgerUnavailable`, `LedgerCorrupt`."""
    with (
        _translated(shown_path, shown_path),
        closing(_connect(path, _read_mode(path))) as connection,
        closing(SQLiteLedgerRecorder(SQLiteLedgerDatastore(path, untouched=True))) as recorder,
    ):
        connection.execute("BEGIN")
        meta = _require_ledger(connection, shown_path)
        report(0)
        _require_integrity(connection, shown_path)
        if altered := altered_tables(connection.cursor()):
            raise LedgerCorrupt(f"{shown_path} is not sound: its table {altered[0]} is not defined as it was made")
        for fault in fact_faults(recorder):
            raise LedgerCorrupt(f"{shown_path} is not sound: {fault}")
        try:
            last = _require_sound(recorder, connection, shown_path, lambda done: report(0.5 + done / 2))
        except DamagedEvent as error:
            raise LedgerCorrupt(f"{shown_path} is not sound: {error.detail}") from error
        size = path.stat().st_size
        return Backup(str(name), size, meta["origin"], last.position, last.recorded_at, last.leaf_hash.hex())


@contextmanager
def _translated(source: Path, target: Path) -> Iterator[None]:
    """Raises errors of SQLite and of the system as ours, in one line that names the file concerned."""
    try:
        yield
    except sqlite3.Error as error:
        if is_damage(error):
            raise LedgerCorrupt(f"{source} cannot be used: {advice(str(error), source)}") from error
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        path = target if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR) else source
        raise LedgerUnavailable(f"{path} cannot be used: {advice(str(error), path)}") from error
    except OSError as error:
        raise LedgerUnavailable(f"{target} cannot be written: {error.strerror}; nothing was left there") from error


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?{mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    delete_securely(connection)
    return connection


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


def _require_sound(
    recorder: Recorder, connection: sqlite3.Connection, path: Path, report: Callable[[float], None]
) -> Entry:
    """The last event. Raises `NotALedger`, `LedgerCorrupt`."""
    (count,) = connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()
    last: Entry | None = None
    for rows in pages_of_rows(recorder):
        entries = sound_entries(rows)
        before = (0, 0) if last is None else (last.position, last.recorded_at)
        for entry in entries:
            place, at = entry.position, entry.recorded_at
            if place != before[0] + 1:
                raise LedgerCorrupt(f"{path} is not complete: the event at position {before[0]} is followed by {place}")
            if at < before[1]:
                raise LedgerCorrupt(f"{path} is not sound: the event at position {place} is older than the one before")
            before = place, at
        last = entries[-1]
        for fault in personal_faults(recorder, entries):
            raise LedgerCorrupt(f"{path} is not sound: {fault}")
        report(last.position / count)
    if last is None:
        raise _not_begun(path)
    for fault in faults_beside_events(recorder):
        raise LedgerCorrupt(f"{path} is not sound: {fault}")
    gap = connection.execute(
        "SELECT min(position) FROM events GROUP BY originator_id HAVING count(*) <> max(originator_version) LIMIT 1"
    ).fetchone()
    if gap is not None:
        raise LedgerCorrupt(f"{path} is not complete: the subject of the event at position {gap[0]} lacks a version")
    return last
