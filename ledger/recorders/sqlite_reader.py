"""Reading a SQLite ledger, and the transactions that reads and writes share. See `sqlite` for the recorder itself."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from eventsourcing.persistence import Notification, PersistenceError
from eventsourcing.sqlite import SQLiteApplicationRecorder

from ledger.drafts import PersonalData
from ledger.errors import LedgerUnavailable
from ledger.recorders import sqlite_schema
from ledger.recorders.contract import EVENTS_TABLE, ChangeToken, Entry, Head, RawEvent
from ledger.recorders.sqlite_append import CachedPreconditions, preconditions_of
from ledger.recorders.sqlite_file import SQLiteLedgerDatastore, advice
from ledger.recorders.sqlite_schema import COLUMNS
from ledger.recorders.sqlite_watch import SQLiteWatch
from ledger.recorders.version_at import version_at_statement

_VERSION_AT: Final = version_at_statement(EVENTS_TABLE, ":subject", ":position")


class _OpenTransaction(threading.local):
    """This thread's transaction, if it has one that several calls share."""

    cursor: sqlite3.Cursor | None = None
    cached: CachedPreconditions | None = None


class SQLiteLedgerReader(SQLiteApplicationRecorder):
    datastore: SQLiteLedgerDatastore
    events_table: Final = EVENTS_TABLE

    def __init__(self, datastore: SQLiteLedgerDatastore) -> None:
        super().__init__(datastore, events_table_name=EVENTS_TABLE)
        self._open = _OpenTransaction()
        datastore.check_header()

    def construct_create_table_statements(self) -> list[str]:
        return [statement for step in sqlite_schema.STEPS for statement in step]

    @property
    def file(self) -> Path:
        return self.datastore.path

    def meta(self) -> dict[str, str]:
        with self.transaction(commit=False) as cursor:
            return sqlite_schema.read_meta(cursor, self.datastore.path)

    def head(self) -> Head:
        with self.transaction(commit=False) as cursor:
            return head_of(cursor)

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

    def entry(self, position: int) -> Entry | None:
        entries = self.page(position - 1, 1, position)
        return entries[0] if entries else None

    def page(self, after: int, limit: int, until: int | None = None) -> list[Entry]:
        return self._entries(
            f"SELECT {COLUMNS} FROM {EVENTS_TABLE} WHERE position > ? AND position <= ? ORDER BY position LIMIT ?",
            (after, _or_highest(until), limit),
        )

    def stream(
        self,
        subject: str,
        *,
        after: int = 0,
        until: int | None = None,
        limit: int | None = None,
        newest_first: bool = False,
        topic: str | None = None,
    ) -> list[Entry]:
        of_topic = "" if topic is None else " AND topic = ?"
        return self._entries(
            f"SELECT {COLUMNS} FROM {EVENTS_TABLE}"
            f" WHERE originator_id = ? AND originator_version > ? AND originator_version <= ?{of_topic}"
            f" ORDER BY originator_version {'DESC' if newest_first else 'ASC'} LIMIT ?",
            (subject, after, _or_highest(until), *([topic] if topic else []), -1 if limit is None else limit),
        )

    def _entries(self, statement: str, parameters: tuple[object, ...]) -> list[Entry]:
        with self.transaction(commit=False) as cursor:
            return [Entry(*row) for row in cursor.execute(statement, parameters)]

    def version_at(self, subject: str, position: int) -> int:
        with self.transaction(commit=False) as cursor:
            row = cursor.execute(_VERSION_AT, {"subject": subject, "position": position}).fetchone()
            return int(row[0])

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

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """The eventsourcing library's feed, with our positions instead of its row ids."""
        after = 0 if start is None else start - 1 if inclusive_of_start else start
        of_topics = f" AND topic IN ({','.join('?' * len(topics))})" if topics else ""
        entries = self._entries(
            f"SELECT {COLUMNS} FROM {EVENTS_TABLE} WHERE position > ? AND position <= ?{of_topics}"
            " ORDER BY position LIMIT ?",
            (after, _or_highest(stop), *topics, limit),
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

    def events_in_range(self, after: int, until: int, above: str = "", upto: str | None = None) -> list[RawEvent]:
        with self.transaction(commit=False) as cursor:
            # NOT INDEXED: in the order of the table. By the index of subjects, each event would be on another page.
            # Without `upto` the bound is a blob, because blobs sort behind every text.
            return cursor.execute(
                f"SELECT position, originator_id, originator_version, state FROM {EVENTS_TABLE} NOT INDEXED"
                " WHERE position > ? AND position <= ? AND originator_id > ? AND originator_id <= ? ORDER BY position",
                (after, until, above, b"" if upto is None else upto),
            ).fetchall()

    def leaves(self, after: int, until: int) -> bytes:
        # NOT INDEXED: in the order of the table, which is that of positions.
        where = f"FROM {EVENTS_TABLE} NOT INDEXED WHERE position > ? AND position <= ?"
        with self.transaction(commit=False) as cursor:
            try:
                # One row instead of thousands.
                row = cursor.execute(f"SELECT CAST(group_concat(state, x'0a') AS BLOB) {where}", (after, until))
                return row.fetchone()[0] or b""
            except sqlite3.DataError:
                # Together the leaves exceed the length limit of one value.
                rows = cursor.execute(f"SELECT state {where} ORDER BY position", (after, until))
                return b"\n".join([leaf for (leaf,) in rows])

    def leaves_of(self, subjects: Sequence[str], until: int) -> bytes:
        statement = (
            f"SELECT state FROM {EVENTS_TABLE} WHERE originator_id = ? AND position <= ? ORDER BY originator_version"
        )
        with self.transaction(commit=False) as cursor:
            rows = (row for subject in subjects for row in cursor.execute(statement, (subject, until)))
            return b"\n".join([leaf for (leaf,) in rows])

    def subjects_at(self, positions: Sequence[int]) -> list[str]:
        statement = f"SELECT originator_id FROM {EVENTS_TABLE} WHERE position = ?"
        with self.transaction(commit=False) as cursor:
            rows = (cursor.execute(statement, (position,)).fetchone() for position in positions)
            return sorted({str(row[0]) for row in rows if row is not None})

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
        """Raises SQLite's errors as `LedgerUnavailable`, except violated constraints."""
        path = self.datastore.path
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.DatabaseError, PersistenceError) as error:
            if isinstance(error, sqlite3.IntegrityError):
                raise
            raise LedgerUnavailable(f"the ledger {path} cannot be used: {advice(str(error), path)}") from error

    def close(self) -> None:
        self.datastore.close()


def head_of(cursor: sqlite3.Cursor) -> Head:
    row = cursor.execute(f"SELECT position, recorded_at FROM {EVENTS_TABLE} ORDER BY position DESC LIMIT 1").fetchone()
    return Head(0, None) if row is None else Head(row[0], row[1])


def _or_highest(until: int | None) -> int:
    return 2**63 - 1 if until is None else until
