"""The embedded ledger: one SQLite file, WAL, synchronous=FULL.

A subclass of the eventsourcing library's recorder whose one table also holds position, recorded_at and leaf hash, so
that an event and its place are written by the same statement. The append lock is SQLite's own write lock, taken by
BEGIN IMMEDIATE before anything is read; a deferred BEGIN that reads first fails at once when another writer is quicker.
Proved by tests/contracts.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final

from eventsourcing.persistence import (
    Notification,
    PersistenceError,
    StoredEvent,
)
from eventsourcing.sqlite import (
    SQLiteApplicationRecorder,
)

from ledger.clock import Clock
from ledger.codec import complete, leaf_hash
from ledger.drafts import Decided, Idempotency, PersonalData
from ledger.errors import LedgerUnavailable, NotALedger
from ledger.recorders.contract import (
    EVENTS_TABLE,
    FORMAT,
    IMPORTING,
    Entry,
    Head,
    KnownSubmission,
    Recorded,
    Stale,
)
from ledger.recorders.sqlite_file import SQLiteLedgerDatastore, advice

APPLICATION_ID: Final = 0x494E4652
"""`INFR` in the file's header: says whose file it is, to us and to file(1)."""

_COLUMNS: Final = "position, originator_id, originator_version, topic, state, recorded_at, leaf_hash"
_IMMUTABLE: Final = "the ledger is immutable"

_TABLES: Final = (
    f"CREATE TABLE {EVENTS_TABLE} ("
    " position INTEGER PRIMARY KEY,"
    " originator_id TEXT NOT NULL,"
    " originator_version INTEGER NOT NULL,"
    " topic TEXT NOT NULL,"
    " state BLOB NOT NULL,"
    " recorded_at INTEGER NOT NULL,"
    " leaf_hash BLOB NOT NULL CHECK (length(leaf_hash) = 32),"
    " UNIQUE (originator_id, originator_version))",
    # REPLACE deletes without firing DELETE triggers, so an insert must be new by itself as well as next in line.
    f"CREATE TRIGGER {EVENTS_TABLE}_in_order BEFORE INSERT ON {EVENTS_TABLE}"
    f" WHEN NEW.position IS NOT (SELECT coalesce(max(position), 0) + 1 FROM {EVENTS_TABLE})"
    f" OR EXISTS (SELECT 1 FROM {EVENTS_TABLE} WHERE originator_id = NEW.originator_id"
    "  AND originator_version = NEW.originator_version)"
    f" BEGIN SELECT RAISE(ABORT, '{_IMMUTABLE}: an event must be the next one'); END",
    f"CREATE TRIGGER {EVENTS_TABLE}_no_update BEFORE UPDATE ON {EVENTS_TABLE}"
    f" BEGIN SELECT RAISE(ABORT, '{_IMMUTABLE}: no event is ever changed'); END",
    f"CREATE TRIGGER {EVENTS_TABLE}_no_delete BEFORE DELETE ON {EVENTS_TABLE}"
    f" BEGIN SELECT RAISE(ABORT, '{_IMMUTABLE}: no event is ever deleted'); END",
    "CREATE TABLE submissions ("
    " caller TEXT NOT NULL, key TEXT NOT NULL, body_sha256 BLOB NOT NULL,"
    " first_position INTEGER NOT NULL, event_count INTEGER NOT NULL, recorded_at INTEGER NOT NULL,"
    " PRIMARY KEY (caller, key)) WITHOUT ROWID",
    "CREATE TABLE personal_data (position INTEGER PRIMARY KEY, salt BLOB NOT NULL, content TEXT NOT NULL)",
    "CREATE TABLE ledger_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)


class SQLiteLedgerRecorder(SQLiteApplicationRecorder):
    datastore: SQLiteLedgerDatastore

    def __init__(self, datastore: SQLiteLedgerDatastore) -> None:
        super().__init__(datastore, events_table_name=EVENTS_TABLE)
        self._held = threading.local()
        datastore.check_header()

    def construct_create_table_statements(self) -> list[str]:
        return list(_TABLES)

    def meta(self) -> dict[str, str]:
        with self.transaction(commit=False) as cursor:
            application_id = cursor.execute("PRAGMA application_id").fetchone()[0]
            version = cursor.execute("PRAGMA user_version").fetchone()[0]
            tables = cursor.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            if application_id == 0 and version == 0 and tables == 0:
                return {}
            path = self.datastore.path
            if application_id != APPLICATION_ID:
                raise NotALedger(f"{path} is a SQLite file of another program; name another with --db")
            if version > FORMAT:
                raise NotALedger(
                    f"{path} has ledger format {version} and this inforce knows {FORMAT}; use a newer inforce"
                )
            return dict(cursor.execute("SELECT name, value FROM ledger_meta").fetchall())

    def create(self, meta: Mapping[str, str]) -> None:
        if self.meta():
            return
        with self._translated():
            self.datastore.make_wal()
        with self._writing() as cursor:
            if cursor.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                return
            for statement in self.create_table_statements:
                cursor.execute(statement)
            cursor.executemany("INSERT INTO ledger_meta VALUES (?, ?)", meta.items())
            cursor.execute(f"PRAGMA application_id={APPLICATION_ID}")
            cursor.execute(f"PRAGMA user_version={FORMAT}")

    def append(
        self, stored_events: Sequence[StoredEvent], decided: Decided, clock: Clock, idempotency: Idempotency | None
    ) -> Recorded | KnownSubmission:
        with self._writing() as cursor:
            if idempotency is not None:
                known = _known_submission(cursor, idempotency.caller, idempotency.key)
                if known is not None:
                    return known
            if _versions(cursor, decided.versions) != decided.versions:
                raise Stale
            head = _head(cursor)
            recorded_at = clock.now() if head.recorded_at is None else max(clock.now(), head.recorded_at + 1)
            if decided.recorded_at_max is not None and recorded_at > decided.recorded_at_max:
                raise Stale
            leaves = tuple(
                complete(stored.state, position, recorded_at)
                for position, stored in enumerate(stored_events, head.position + 1)
            )
            cursor.executemany(
                f"INSERT INTO {EVENTS_TABLE} ({_COLUMNS}) VALUES (?,?,?,?,?,?,?)",
                [
                    (position, s.originator_id, s.originator_version, s.topic, leaf, recorded_at, leaf_hash(leaf))
                    for position, (s, leaf) in enumerate(zip(stored_events, leaves, strict=True), head.position + 1)
                ],
            )
            _insert_personal(
                cursor,
                [
                    (position, draft.personal)
                    for position, draft in enumerate(decided.drafts, head.position + 1)
                    if draft.personal is not None
                ],
            )
            if idempotency is not None:
                cursor.execute(
                    "INSERT INTO submissions VALUES (?,?,?,?,?,?)",
                    (*idempotency, head.position + 1, len(leaves), recorded_at),
                )
        return Recorded(head.position + 1, recorded_at, leaves)

    def restore(
        self, entries: Sequence[Entry], personal: Sequence[tuple[int, PersonalData]], *, importing: str, last: bool
    ) -> None:
        try:
            with self._writing() as cursor:
                _require_importing(cursor, importing)
                cursor.executemany(f"INSERT INTO {EVENTS_TABLE} ({_COLUMNS}) VALUES (?,?,?,?,?,?,?)", entries)
                _insert_personal(cursor, personal)
                if last:
                    cursor.execute("DELETE FROM ledger_meta WHERE name = ?", (IMPORTING,))
        except sqlite3.IntegrityError:
            raise Stale from None

    def drop(self, importing: str | None) -> None:
        with self._writing() as cursor:
            _require_importing(cursor, importing)
            if importing is None and _head(cursor).position:
                raise Stale
            tables = cursor.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
            for (table,) in tables:
                cursor.execute(f'DROP TABLE "{table}"')
            cursor.execute("PRAGMA application_id=0")
            cursor.execute("PRAGMA user_version=0")

    def head(self) -> Head:
        with self.transaction(commit=False) as cursor:
            return _head(cursor)

    def entry(self, position: int) -> Entry | None:
        entries = self.page(position - 1, 1, position)
        return entries[0] if entries else None

    def page(self, after: int, limit: int, until: int | None = None) -> list[Entry]:
        with self.transaction(commit=False) as cursor:
            return _entries(
                cursor,
                f"SELECT {_COLUMNS} FROM {EVENTS_TABLE} WHERE position > ? AND position <= ? ORDER BY position LIMIT ?",
                (after, _highest(until), limit),
            )

    def stream(
        self,
        subject: str,
        *,
        after: int = 0,
        until: int | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> list[Entry]:
        with self.transaction(commit=False) as cursor:
            return _entries(
                cursor,
                f"SELECT {_COLUMNS} FROM {EVENTS_TABLE}"
                " WHERE originator_id = ? AND originator_version > ? AND originator_version <= ?"
                f" ORDER BY originator_version {'DESC' if newest_first else 'ASC'} LIMIT ?",
                (subject, after, _highest(until), -1 if limit is None else limit),
            )

    def versions(self, subjects: Iterable[str]) -> dict[str, int]:
        with self.transaction(commit=False) as cursor:
            return _versions(cursor, subjects)

    def known_submission(self, caller: str, key: str) -> KnownSubmission | None:
        with self.transaction(commit=False) as cursor:
            return _known_submission(cursor, caller, key)

    def personal(self, positions: Sequence[int]) -> dict[int, PersonalData]:
        found: dict[int, PersonalData] = {}
        with self.transaction(commit=False) as cursor:
            for position in positions:
                row = cursor.execute(
                    "SELECT salt, content FROM personal_data WHERE position = ?", (position,)
                ).fetchone()
                if row is not None:
                    found[position] = PersonalData(*row)
        return found

    @contextmanager
    def transaction(self, *, commit: bool) -> Iterator[sqlite3.Cursor]:
        held: sqlite3.Connection | None = getattr(self._held, "connection", None)
        if held is not None:
            with closing(held.cursor()) as one_more:
                yield one_more
            return
        with self._translated():
            if commit:
                with self.datastore.writing() as cursor, cursor as raw:
                    yield raw
            else:
                with self.datastore.transaction(commit=False) as cursor, cursor as raw:
                    yield raw

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with self._writing() as cursor:
            self._held.connection = cursor.connection
            try:
                yield
            finally:
                del self._held.connection

    def _writing(self) -> Any:
        return self.transaction(commit=True)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        path = self.datastore.path
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.DatabaseError, PersistenceError) as error:
            if isinstance(error, sqlite3.IntegrityError):
                raise
            raise LedgerUnavailable(f"the ledger {path} cannot be used: {advice(str(error), path)}") from error

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """The library's feed, over our positions instead of its row ids."""
        after = 0 if start is None else start - 1 if inclusive_of_start else start
        wanted = f" AND topic IN ({','.join('?' * len(topics))})" if topics else ""
        with self.transaction(commit=False) as cursor:
            entries = _entries(
                cursor,
                f"SELECT {_COLUMNS} FROM {EVENTS_TABLE} WHERE position > ? AND position <= ?{wanted}"
                " ORDER BY position LIMIT ?",
                (after, _highest(stop), *topics, limit),
            )
        return [
            Notification(
                id=entry.position,
                originator_id=entry.subject,
                originator_version=entry.version,
                topic=entry.topic,
                state=entry.leaf,
            )
            for entry in entries
        ]

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """The library's way in: `append` with its arguments as keywords, answering positions."""
        recorded = self.append(stored_events, idempotency=None, **kwargs)
        assert isinstance(recorded, Recorded)
        return range(recorded.first_position, recorded.first_position + len(recorded.leaves))

    def close(self) -> None:
        self.datastore.close()


def _entries(cursor: sqlite3.Cursor, statement: str, parameters: tuple[object, ...]) -> list[Entry]:
    cursor.row_factory = None
    return [Entry(*row) for row in cursor.execute(statement, parameters)]


def _head(cursor: sqlite3.Cursor) -> Head:
    row = cursor.execute(f"SELECT position, recorded_at FROM {EVENTS_TABLE} ORDER BY position DESC LIMIT 1").fetchone()
    return Head(0, None) if row is None else Head(row[0], row[1])


def _versions(cursor: sqlite3.Cursor, subjects: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for subject in subjects:
        row = cursor.execute(
            f"SELECT max(originator_version) FROM {EVENTS_TABLE} WHERE originator_id = ?", (subject,)
        ).fetchone()
        found[subject] = row[0] or 0
    return found


def _known_submission(cursor: sqlite3.Cursor, caller: str, key: str) -> KnownSubmission | None:
    row = cursor.execute(
        "SELECT body_sha256, first_position, event_count FROM submissions WHERE caller = ? AND key = ?", (caller, key)
    ).fetchone()
    return None if row is None else KnownSubmission(*row)


def _require_importing(cursor: sqlite3.Cursor, importing: str | None) -> None:
    tables = cursor.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'ledger_meta'").fetchone()[0]
    row = tables and cursor.execute("SELECT value FROM ledger_meta WHERE name = ?", (IMPORTING,)).fetchone()
    if not tables or (row[0] if row else None) != importing:
        raise Stale


def _insert_personal(cursor: sqlite3.Cursor, personal: Iterable[tuple[int, PersonalData]]) -> None:
    cursor.executemany(
        "INSERT INTO personal_data VALUES (?,?,?)", [(position, data.salt, data.content) for position, data in personal]
    )


def _highest(until: int | None) -> int:
    return 2**63 - 1 if until is None else until
