"""The embedded ledger: one SQLite file in WAL mode with synchronous=FULL.

The recorder is a subclass of the eventsourcing library's recorder whose one table also holds position, recorded_at and
leaf hash, so one statement writes an event and its place. The append lock is SQLite's own write lock, taken by BEGIN
IMMEDIATE before anything is read: a deferred BEGIN that reads first fails at once if another writer is quicker.
Proved by tests/contracts.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from eventsourcing.persistence import PersistenceError
from eventsourcing.sqlite import SQLiteApplicationRecorder

from ledger.clock import Clock
from ledger.drafts import PersonalData
from ledger.errors import LedgerCorrupt, LedgerUnavailable
from ledger.recorders import sqlite_guard, sqlite_schema
from ledger.recorders.append_guard import AppendGuard, is_in_leaf
from ledger.recorders.common import COLUMNS, WRONG_FORMAT, version_at_statement
from ledger.recorders.contract import (
    EVENTS_TABLE,
    IMPORTING,
    SEALED,
    AppendPreconditions,
    AppendRequest,
    ChangeToken,
    Entry,
    Head,
    Outcome,
    PreconditionFailed,
)
from ledger.recorders.sqlite_append import (
    CachedPreconditions,
    append,
    fetched,
    insert_events,
    insert_personal,
    preconditions_of,
    refused,
    require_stored,
)
from ledger.recorders.sqlite_bulk import SQLiteBulkReads
from ledger.recorders.sqlite_file import SQLiteLedgerDatastore, advice, is_damage, is_read_only
from ledger.recorders.sqlite_leader import SQLiteLeaderLock
from ledger.recorders.sqlite_place import COMPANIONS
from ledger.recorders.sqlite_wal import require_whole_log
from ledger.recorders.sqlite_watch import SQLiteWatch, WalIndex

LOCK_SUFFIX: Final = "-log-lock"
_LAST_ROW: Final = f"SELECT {COLUMNS} FROM {EVENTS_TABLE} ORDER BY position DESC LIMIT 1"


class _OpenTransaction(threading.local):
    """This thread's transaction, if it has one that several calls share."""

    cursor: sqlite3.Cursor | None = None
    cached: CachedPreconditions | None = None


class SQLiteLedgerRecorder(SQLiteBulkReads, SQLiteApplicationRecorder):
    datastore: SQLiteLedgerDatastore
    events_table = EVENTS_TABLE
    submissions_table = "submissions"
    personal_table = "personal_data"
    _definition_faults = staticmethod(sqlite_guard.definition_faults)
    PLACEHOLDER = "?"
    EXISTING_TABLE = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?"
    SEALS = f"instr(e.state, x'{SEALED.hex()}')"
    VERSION_AT = version_at_statement(EVENTS_TABLE, ":subject", ":position")

    def __init__(self, datastore: SQLiteLedgerDatastore) -> None:
        super().__init__(datastore, events_table_name=EVENTS_TABLE)
        self._open = _OpenTransaction()
        self.append_guard = AppendGuard()
        self._checked_stamp: tuple[int, int] | None = None
        self._replaced = False
        self._incarnation: str | None = None
        datastore.check_header()

    def construct_create_table_statements(self) -> list[str]:
        return [text for step in sqlite_schema.STEPS for text in step if isinstance(text, str)]

    @property
    def file(self) -> Path:
        return self.datastore.path

    @property
    def place(self) -> str:
        return str(self.datastore.path.absolute())

    @property
    def location(self) -> str:
        return f"at {self.datastore.path}"

    def meta(self) -> dict[str, str]:
        with self.transaction(commit=False) as cursor:
            return sqlite_schema.read_meta(cursor, self.datastore.path)

    def body_key(self) -> bytes | None:
        with self.transaction(commit=False) as cursor:
            return sqlite_schema.read_body_key(cursor, self.datastore.path)

    def head(self) -> Head:
        return self._last(self._read(_LAST_ROW, ()))

    def change_token(self) -> ChangeToken:
        change_token = self.change_token_nowait()
        if change_token is not None:
            return change_token
        with self._translated():
            return self.datastore.data_version()

    def change_token_nowait(self) -> ChangeToken | None:
        return self.datastore.data_version_nowait()

    def watch(self) -> SQLiteWatch:
        return SQLiteWatch(self.change_token, self.head)

    def _read(self, statement: str, parameters: Sequence[object] | Mapping[str, object]) -> list[tuple[Any, ...]]:
        with self.transaction(commit=False) as cursor:
            return fetched(cursor, statement, parameters)

    def versions(self, subjects: Iterable[str]) -> dict[str, int]:
        with self.transaction(commit=False) as cursor:
            return dict(preconditions_of(cursor, subjects, ()).versions)

    def personal(self, positions: Sequence[int]) -> dict[int, PersonalData]:
        personal: dict[int, PersonalData] = {}
        with self.transaction(commit=False) as cursor:
            for position in positions:
                row = cursor.execute(
                    "SELECT salt, content FROM personal_data WHERE position = ?", (position,)
                ).fetchone()
                if row is not None:
                    personal[position] = PersonalData(*row)
        return personal

    def create(self, meta: Mapping[str, str]) -> None:
        if self.meta():
            return
        with self._translated():
            self.datastore.make_wal()
        with self.transaction(commit=True) as cursor:
            if sqlite_schema.is_empty(cursor):
                sqlite_schema.create(cursor, meta)

    def add_fact(self, name: str, value: str) -> None:
        try:
            with self.transaction(commit=True) as cursor:
                cursor.execute("INSERT INTO ledger_meta VALUES (?, ?) ON CONFLICT DO NOTHING", (name, value))
        except LedgerUnavailable as error:
            if not is_read_only(error):
                raise

    def formats(self) -> tuple[int, int]:
        with self.transaction(commit=False) as cursor:
            return sqlite_schema.read_format(cursor, self.datastore.path), sqlite_schema.FORMAT

    def migrate(self) -> None:
        path = self.datastore.path
        with self.transaction(commit=False) as cursor:
            format_ = sqlite_schema.read_format(cursor, path)
        while 0 < format_ < sqlite_schema.FORMAT:
            try:
                with self.transaction(commit=True) as cursor:
                    format_ = sqlite_schema.migrate(cursor, path)
            except sqlite3.IntegrityError as error:
                raise LedgerCorrupt(WRONG_FORMAT) from error
            except LedgerUnavailable as error:
                if "already exists" in error.detail:
                    raise LedgerCorrupt(WRONG_FORMAT) from error
                if not is_read_only(error):
                    raise
                if format_ < sqlite_schema.READS_FROM:
                    raise sqlite_schema.unreadable(format_, path) from error
                return

    def require_sound(self, acknowledged: int) -> None:
        path = self.datastore.path
        with self.transaction(commit=False) as cursor:
            is_ledger = sqlite_schema.read_format(cursor, path)
            index = WalIndex.of(path)
            if index is not None:
                require_whole_log(path, index.frames, head_of(cursor).position if is_ledger else 0, acknowledged)
            if is_ledger:
                sqlite_guard.require_structure(cursor, path)

    def guard(self) -> None:
        path = self.datastore.path
        if self.datastore.read_only:
            return
        with self.transaction(commit=False) as cursor:
            broken = sqlite_guard.broken(cursor, path)
        if not broken:
            return
        try:
            with self.transaction(commit=True) as cursor:
                sqlite_guard.repair(cursor, path)
        except LedgerUnavailable as error:
            if is_read_only(error):
                raise LedgerUnavailable(
                    f"the triggers of the ledger {path} that refuse a change of events are missing or altered, and "
                    "cannot be made again in a file that may not be written; make it writable, or only read it with "
                    "?mode=ro"
                ) from error
            raise

    def latest_leaf(self, position: int) -> bytes | None:
        with self._translated():
            return self.datastore.reread(position)[1]

    def was_replaced(self) -> bool:
        self.datastore.require_same_file()
        before, stamp = self._checked_stamp, self.datastore.stamp
        if self._replaced:
            return True
        if stamp is None or stamp == before or self.append_guard.acknowledging:
            return False
        head = self.append_guard.remembered()
        with self._translated():
            incarnation, leaf = self.datastore.reread(0 if head is None else head.position)
        if before is not None and (
            stamp[1] < before[1]
            or incarnation != self._incarnation
            or (head is not None and not is_in_leaf(head, leaf))
        ):
            # Until a restart: a checkpoint can make the mixture look whole.
            self._replaced = True
            return True
        self._checked_stamp, self._incarnation = stamp, incarnation
        return False

    def _append(self, requests: Sequence[AppendRequest], clock: Clock) -> list[Outcome] | None:
        self.datastore.require_same_file()
        if self.datastore.stamp != self._checked_stamp and self.was_replaced():
            return None
        shared = self._open
        if shared.cursor is None:
            with self.transaction(commit=True) as cursor, refused():
                return append(cursor, requests, clock, self.append_guard, None)
        # The append changes the state that was read.
        cached, shared.cached = shared.cached, None
        if not self.datastore.upgrade_to_write(shared.cursor):
            cached = None
        with refused():
            return append(shared.cursor, requests, clock, self.append_guard, cached)

    def append_preconditions(
        self, subjects: Iterable[str], keys: Iterable[tuple[str, str]] = ()
    ) -> AppendPreconditions:
        shared = self._open
        if shared.cursor is None:
            with self._translated(), self.datastore.reading() as cursor:
                return preconditions_of(cursor, subjects, keys)
        key_set = frozenset(keys)
        preconditions = preconditions_of(shared.cursor, subjects, key_set)
        shared.cached = CachedPreconditions(preconditions, key_set)
        return preconditions

    def restore(
        self, entries: Sequence[Entry], personal: Sequence[tuple[int, PersonalData]], *, importing: str, last: bool
    ) -> None:
        try:
            with self.transaction(commit=True) as cursor:
                _require_importing(cursor, importing)
                after = head_of(cursor).position
                insert_events(cursor, entries)
                insert_personal(cursor, personal)
                require_stored(cursor, after, list(entries), personal)
                if last:
                    cursor.execute("DELETE FROM ledger_meta WHERE name = ?", (IMPORTING,))
        except sqlite3.IntegrityError:
            raise PreconditionFailed from None

    def drop(self, importing: str | None) -> None:
        with self.transaction(commit=True) as cursor:
            _require_importing(cursor, importing)
            if importing is None and head_of(cursor).position:
                raise PreconditionFailed
            sqlite_schema.drop(cursor)

    def integrator_lock(self) -> SQLiteLeaderLock:
        return SQLiteLeaderLock(self.file.absolute().with_name(self.file.name + LOCK_SUFFIX))

    def delete_file(self) -> None:
        self.close()
        for companion in (*COMPANIONS, ""):
            self.file.with_name(self.file.name + companion).unlink(missing_ok=True)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with self.transaction(commit=True) as cursor, self._shared(cursor):
            yield

    @contextmanager
    def optimistic(self) -> Iterator[None]:
        with self._translated(), self.datastore.optimistic() as cursor, self._shared(cursor):
            yield

    @contextmanager
    def _shared(self, cursor: sqlite3.Cursor | None) -> Iterator[None]:
        """Makes `cursor` the transaction of all this thread's calls during the block."""
        self._open.cursor = cursor
        try:
            yield
        finally:
            self._open.cursor = self._open.cached = None

    @contextmanager
    def transaction(
        self, *, commit: bool, durable: bool = True, patience_s: float | None = None
    ) -> Iterator[sqlite3.Cursor]:
        """A cursor whose rows are tuples. `durable`, `patience_s`: see `SQLiteLedgerDatastore.writing`."""
        shared = self._open
        if shared.cursor is not None:
            if commit:
                shared.cached = None
            with closing(shared.cursor.connection.cursor()) as another:
                yield another
            return
        with self._translated():
            if commit:
                with self.datastore.writing(durable=durable, patience_s=patience_s) as raw:
                    yield raw
            else:
                self.datastore.require_same_file()
                with self.datastore.transaction(commit=False) as cursor, cursor as raw:
                    raw.row_factory = None
                    yield raw

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raises SQLite's errors as `LedgerUnavailable` or `LedgerCorrupt`, except violated constraints."""
        path = self.datastore.path
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.DatabaseError, PersistenceError) as error:
            if isinstance(error, sqlite3.IntegrityError):
                raise
            detail = f"the ledger {path} cannot be used: {advice(str(error), path)}"
            raise LedgerCorrupt(detail) if is_damage(error) else LedgerUnavailable(detail) from error
        except UnicodeDecodeError as error:
            # Even a message of SQLite may quote a damaged definition.
            raise LedgerCorrupt(f"the file {path} is damaged: it holds a text that is no UTF-8") from error

    def close(self) -> None:
        self.datastore.close()


def head_of(cursor: sqlite3.Cursor) -> Head:
    row = cursor.execute(f"SELECT position, recorded_at FROM {EVENTS_TABLE} ORDER BY position DESC LIMIT 1").fetchone()
    return Head(0, None) if row is None else Head(row[0], row[1])


def _require_importing(cursor: sqlite3.Cursor, importing: str | None) -> None:
    tables = cursor.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'ledger_meta'").fetchone()[0]
    row = tables and cursor.execute("SELECT value FROM ledger_meta WHERE name = ?", (IMPORTING,)).fetchone()
    if not tables or (row[0] if row else None) != importing:
        raise PreconditionFailed
