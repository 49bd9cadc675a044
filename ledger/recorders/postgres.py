"""The ledger in PostgreSQL, in its own schema, with synchronous_commit=on.

The recorder is a subclass of the eventsourcing library's recorder, but writes with its own statements: the library's
insert can commit events although Python raised after it, its sequence leaves gaps, and its retries can turn a
committed insert into a conflict. Here every append takes one advisory lock, then reads, assigns positions and inserts,
so positions are dense and follow the commit order; every error rolls back everything.
Proved by tests/contracts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

import psycopg
from eventsourcing.persistence import StoredEvent
from psycopg.rows import tuple_row

from ledger.clock import Clock
from ledger.drafts import PersonalData
from ledger.errors import LedgerUnavailable
from ledger.recorders import postgres_schema
from ledger.recorders.contract import IMPORTING, AppendRequest, Entry, Head, Outcome, Placement, PreconditionFailed
from ledger.recorders.postgres_append import APPEND, APPEND_LOCK, AppendCall
from ledger.recorders.postgres_reader import PostgresLedgerReader, unavailable
from ledger.recorders.postgres_schema import COLUMNS, EVENTS, HEAD, PgCursor
from ledger.recorders.postgres_server import CHANNEL, SCHEMA, PostgresLedgerDatastore, StatementConnection, is_read_only

_CREATE_LOCK: Final = 0x494E464F52434502

_LOCK_DURABLY: Final = (
    "SELECT pg_advisory_xact_lock(%s), CASE WHEN current_setting('synchronous_commit') = 'off'"
    " THEN set_config('synchronous_commit', 'on', true) END"
)
"""Accepted means durable, whatever the default of the server or the role is."""


class PostgresLedgerRecorder(PostgresLedgerReader):
    def __init__(self, datastore: PostgresLedgerDatastore) -> None:
        super().__init__(datastore)
        # Not the connection for reads: they need not wait for a commit.
        self._appending = StatementConnection(datastore.parameters)

    def create(self, meta: Mapping[str, str]) -> None:
        with self.transaction(commit=True) as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_CREATE_LOCK,))
            if not postgres_schema.read_format(cursor):
                postgres_schema.require_encoding(cursor)
                postgres_schema.create(cursor, meta)

    def migrate(self) -> None:
        with self.transaction(commit=False) as cursor:
            format_ = postgres_schema.read_format(cursor)
        while 0 < format_ < postgres_schema.FORMAT:
            try:
                with self.transaction(commit=True) as cursor:
                    cursor.execute(_LOCK_DURABLY, (APPEND_LOCK,))
                    format_ = postgres_schema.migrate(cursor)
            except LedgerUnavailable as error:
                if not is_read_only(error):
                    raise
                if format_ < postgres_schema.READS_FROM:
                    raise postgres_schema.unreadable(format_) from error
                return

    def append(self, requests: Sequence[AppendRequest], clock: Clock) -> list[Outcome]:
        if not requests:
            return []
        call = AppendCall(requests)
        shared = self._shared_connection()
        if shared is not None:
            with shared.cursor(row_factory=tuple_row) as cursor:
                row = cursor.execute(APPEND, call.arguments(clock.now())).fetchone()
            assert row is not None
        else:
            try:
                row = self._appending.write(APPEND, lambda: call.arguments(clock.now()))
            except psycopg.IntegrityError:
                raise
            except psycopg.Error as error:
                raise unavailable(error, error, commit=True) from error
        return call.outcomes(row)

    def restore(
        self, entries: Sequence[Entry], personal: Sequence[tuple[int, PersonalData]], *, importing: str, last: bool
    ) -> None:
        try:
            with self.transaction(commit=True) as cursor:
                cursor.execute(_LOCK_DURABLY, (APPEND_LOCK,))
                _require_importing(cursor, importing)
                with cursor.copy(f"COPY {EVENTS} ({COLUMNS}) FROM STDIN (FORMAT BINARY)") as copy:
                    copy.set_types(["int8", "text", "int8", "text", "bytea", "int8", "bytea"])
                    for entry in entries:
                        copy.write_row(entry)
                _insert_personal(cursor, personal)
                if last:
                    cursor.execute(f"DELETE FROM {SCHEMA}.ledger_meta WHERE name = %s", (IMPORTING,))
                    cursor.execute("SELECT pg_notify(%s, %s)", (CHANNEL, str(_head_of(cursor).position)))
        except psycopg.errors.IntegrityError:
            raise PreconditionFailed from None

    def drop(self, importing: str | None) -> None:
        with self.transaction(commit=True) as cursor:
            cursor.execute(_LOCK_DURABLY, (APPEND_LOCK,))
            _require_importing(cursor, importing)
            if importing is None and _head_of(cursor).position:
                raise PreconditionFailed
            postgres_schema.drop(cursor)

    def delete_file(self) -> None:
        self.close()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with self.transaction(commit=True) as cursor:
            cursor.execute(_LOCK_DURABLY, (APPEND_LOCK,))
            self._open.connection = cursor.connection
            try:
                yield
            finally:
                del self._open.connection

    def optimistic(self) -> AbstractContextManager[None]:
        # The append is one statement: a transaction around it would only add round trips.
        return nullcontext()

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """The eventsourcing library's write method, with the keywords `plan` and `clock`. Answers positions.

        Raises `PreconditionFailed` if the plan is stale.
        """
        templates = [stored.state for stored in stored_events]
        (outcome,) = self.append([AppendRequest(kwargs["plan"], templates, None)], kwargs["clock"])
        if not isinstance(outcome, Placement):
            raise PreconditionFailed
        return range(outcome.first_position, outcome.first_position + len(templates))

    def close(self) -> None:
        self._appending.close()
        super().close()


def _require_importing(cursor: PgCursor, importing: str | None) -> None:
    meta = postgres_schema.read_meta(cursor)
    if not meta or meta.get(IMPORTING) != importing:
        raise PreconditionFailed


def _insert_personal(cursor: PgCursor, personal: Iterable[tuple[int, PersonalData]]) -> None:
    rows = [(position, data.salt, data.content) for position, data in personal]
    if rows:
        cursor.execute(
            f"INSERT INTO {SCHEMA}.personal_data SELECT * FROM unnest(%s::bigint[], %s::bytea[], %s::text[])",
            [list(column) for column in zip(*rows, strict=True)],
        )


def _head_of(cursor: PgCursor) -> Head:
    row = cursor.execute(HEAD).fetchone()
    return Head(0, None) if row is None else Head(row[0], row[1])
