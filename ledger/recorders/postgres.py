"""The ledger in PostgreSQL, in its own schema, with synchronous_commit=on.

The recorder is a subclass of the eventsourcing library's recorder, but writes with its own statements: the library's
insert can commit events although Python raised after it, its sequence leaves gaps, and its retries can turn a
committed insert into a conflict. Here every append takes one advisory lock, then reads, assigns positions and inserts,
so positions are dense and follow the commit order; every error rolls back everything.

A read of one statement begins no transaction, because one statement sees one state of the ledger: it takes one round
trip instead of three. Proved by tests/contracts.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Final, LiteralString

import psycopg
from eventsourcing.persistence import PersistenceError
from eventsourcing.postgres import PostgresApplicationRecorder
from psycopg import IsolationLevel
from psycopg.rows import tuple_row

from ledger.clock import Clock
from ledger.drafts import PersonalData
from ledger.errors import LedgerCorrupt, LedgerUnavailable
from ledger.recorders import postgres_guard, postgres_schema
from ledger.recorders.append_guard import AppendGuard
from ledger.recorders.common import (
    COLUMNS,
    WRONG_FORMAT,
    refused_by_the_database,
    version_at_statement,
)
from ledger.recorders.contract import (
    EVENTS_TABLE,
    IMPORTING,
    SEALED,
    AppendPreconditions,
    AppendRequest,
    ChangeToken,
    Entry,
    Head,
    KnownSubmission,
    Outcome,
    PreconditionFailed,
)
from ledger.recorders.postgres_append import APPEND, MOVED, AppendCall
from ledger.recorders.postgres_bulk import PostgresBulkReads
from ledger.recorders.postgres_functions import APPEND_LOCK
from ledger.recorders.postgres_leader import INTEGRATOR_LOCK, PostgresLeaderLock
from ledger.recorders.postgres_restore import head_of, require_importing, restore_rows
from ledger.recorders.postgres_schema import PgCursor
from ledger.recorders.postgres_server import (
    CHANNEL,
    EVENTS,
    NOT_STORED,
    PRECONDITIONS,
    SCHEMA,
    VERSIONS,
    PostgresLedgerDatastore,
    PostgresWatch,
    StatementConnection,
    first_line,
    is_read_only,
    unavailable,
)

_CREATE_LOCK: Final = 0x494E464F52434502

_LAST_ROW: Final = f"SELECT {COLUMNS} FROM {EVENTS} ORDER BY position DESC LIMIT 1"
_LOCK_DURABLY: Final = (
    "SELECT pg_advisory_xact_lock(%s), CASE WHEN current_setting('synchronous_commit') = 'off'"
    " THEN set_config('synchronous_commit', 'on', true) END"
)
"""Accepted means durable, whatever the default of the server or the role is."""


class PostgresLedgerRecorder(PostgresBulkReads, PostgresApplicationRecorder):
    datastore: PostgresLedgerDatastore
    events_table = EVENTS
    submissions_table = f"{SCHEMA}.submissions"
    personal_table = f"{SCHEMA}.personal_data"
    _definition_faults = staticmethod(postgres_guard.definition_faults)
    PLACEHOLDER = "%s"
    EXISTING_TABLE = f"SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = '{SCHEMA}' AND tablename = ?"
    SEALS = f"position('\\x{SEALED.hex()}'::bytea IN e.state)"
    VERSION_AT = version_at_statement(EVENTS, "%(subject)s", "%(position)s")
    file: Final = None

    def __init__(self, datastore: PostgresLedgerDatastore) -> None:
        super().__init__(datastore, events_table_name=EVENTS_TABLE)
        self._open = threading.local()
        self._plans_outdated = False
        self.append_guard = AppendGuard()
        self._reading = StatementConnection(datastore.parameters)
        # Another connection, because reads need not wait for a commit.
        self._appending = StatementConnection(datastore.parameters)

    @property
    def place(self) -> str:
        parameters = self.datastore.parameters
        return "/".join(str(parameters.get(name, "")) for name in ("service", "host", "hostaddr", "port", "dbname"))

    @property
    def location(self) -> str:
        return f"in database {self._read('SELECT current_database()', ())[0][0]}"

    def meta(self) -> dict[str, str]:
        with self.transaction(commit=False) as cursor:
            return postgres_schema.read_meta(cursor)

    def body_key(self) -> bytes | None:
        with self.transaction(commit=False) as cursor:
            return postgres_schema.read_body_key(cursor)

    def head(self) -> Head:
        return self._last(self._read_dedicated(_LAST_ROW))

    def append_preconditions(
        self, subjects: Iterable[str], keys: Iterable[tuple[str, str]] = ()
    ) -> AppendPreconditions:
        pairs = list(keys)
        parameters = (list(subjects), [caller for caller, _ in pairs], [key for _, key in pairs])
        head, versions, known = Head(0, None), {}, {}
        for kind, name, key, body, number, second in self._read_dedicated(PRECONDITIONS, parameters):
            if kind == 0:
                head = Head(number, second)
            elif kind == 1:
                versions[name] = number
            else:
                known[name, key] = KnownSubmission(bytes(body), number, second)
        return AppendPreconditions(head, versions, known)

    def change_token(self) -> ChangeToken:
        # Only events are committed to a ledger, and each takes the next position. An import that starts over may reach
        # the same position again, at another time.
        head = self.head()
        return (head.position, head.recorded_at or 0)

    def change_token_nowait(self) -> None:
        """Always None: every read goes over the network."""

    def watch(self) -> PostgresWatch:
        return PostgresWatch(self.datastore.parameters)

    def versions(self, subjects: Iterable[str]) -> dict[str, int]:
        return dict(self._read(VERSIONS, (list(subjects),)))

    def personal(self, positions: Sequence[int]) -> dict[int, PersonalData]:
        rows = self._read(
            f"SELECT position, salt, content FROM {SCHEMA}.personal_data WHERE position = ANY(%s)", (list(positions),)
        )
        return {position: PersonalData(bytes(salt), content) for position, salt, content in rows}

    def max_notification_id(self) -> int | None:
        return self.head().position or None

    def create(self, meta: Mapping[str, str]) -> None:
        with self.transaction(commit=True) as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_CREATE_LOCK,))
            if not postgres_schema.read_format(cursor):
                postgres_schema.require_encoding(cursor)
                postgres_schema.create(cursor, meta)

    def add_fact(self, name: str, value: str) -> None:
        try:
            with self.transaction(commit=True) as cursor:
                cursor.execute(
                    f"INSERT INTO {SCHEMA}.ledger_meta VALUES (%s, %s) ON CONFLICT DO NOTHING", (name, value)
                )
        except LedgerUnavailable as error:
            if not is_read_only(error):
                raise

    def formats(self) -> tuple[int, int]:
        with self.transaction(commit=False) as cursor:
            return postgres_schema.read_format(cursor), postgres_schema.FORMAT

    def migrate(self) -> None:
        with self.transaction(commit=False) as cursor:
            format_ = postgres_schema.read_format(cursor)
        while 0 < format_ < postgres_schema.FORMAT:
            try:
                with self.transaction(commit=True) as cursor:
                    cursor.execute(_LOCK_DURABLY, (APPEND_LOCK,))
                    format_ = postgres_schema.migrate(cursor)
            except psycopg.IntegrityError as error:
                raise LedgerCorrupt(WRONG_FORMAT) from error
            except LedgerUnavailable as error:
                if "already exists" in error.detail:
                    raise LedgerCorrupt(WRONG_FORMAT) from error
                if not is_read_only(error):
                    raise
                if format_ < postgres_schema.READS_FROM:
                    raise postgres_schema.unreadable(format_) from error
                return

    def require_sound(self, acknowledged: int) -> None:
        """Nothing to do: the server checks its own files."""

    def guard(self) -> None:
        with self.transaction(commit=True) as cursor:
            # A ledger of an older format cannot be written, so there is nothing to guard.
            if postgres_schema.read_format(cursor) < postgres_schema.FORMAT or not postgres_guard.may_write(cursor):
                return
            postgres_guard.warn_of_foreign(cursor)
            broken = postgres_guard.broken(cursor)
        if not broken:
            return
        try:
            with self.transaction(commit=True) as cursor:
                cursor.execute(_LOCK_DURABLY, (APPEND_LOCK,))
                postgres_guard.repair(cursor)
        except LedgerUnavailable as error:
            if is_read_only(error):
                raise LedgerUnavailable(
                    f"{' and '.join(broken)} of the schema {SCHEMA}, which refuse a change of events, are missing, "
                    "altered or disabled, and this role may not make them again; open the ledger once as the role that "
                    "owns the schema"
                ) from error
            raise

    def latest_leaf(self, position: int) -> bytes | None:
        return entry.leaf if (entry := self.entry(position)) is not None else None

    def was_replaced(self) -> bool:
        # A connection to a server shows the database as it is.
        return False

    def _append(self, requests: Sequence[AppendRequest], clock: Clock) -> list[Outcome] | None:
        call = AppendCall(requests, self.append_guard)
        shared = self._shared_connection()
        try:
            if shared is None:
                row = self._appending.write(APPEND, lambda: call.arguments(clock.now()))
            else:
                if self._plans_outdated:
                    shared.execute("DISCARD PLANS")
                    self._plans_outdated = False
                with shared.cursor(row_factory=tuple_row) as cursor:
                    row = cursor.execute(APPEND, call.arguments(clock.now())).fetchone()
        except MOVED as error:
            if shared is None:
                return None
            raise LedgerUnavailable("the head moved while the ledger was locked; nothing was recorded") from error
        except psycopg.IntegrityError as error:
            raise refused_by_the_database(first_line(error)) from error
        except psycopg.Error as error:
            if error.sqlstate == NOT_STORED:
                # PostgreSQL keeps the plan of an INSERT that a rule made void, even when the rule is dropped.
                self._plans_outdated = True
                self._appending.reconnect()
            raise unavailable(error, error, commit=True) from error
        return None if row is None else call.outcomes(row)

    def restore(
        self, entries: Sequence[Entry], personal: Sequence[tuple[int, PersonalData]], *, importing: str, last: bool
    ) -> None:
        try:
            with self.transaction(commit=True) as cursor:
                cursor.execute(_LOCK_DURABLY, (APPEND_LOCK,))
                require_importing(cursor, importing)
                restore_rows(cursor, entries, personal)
                if last:
                    cursor.execute(f"DELETE FROM {SCHEMA}.ledger_meta WHERE name = %s", (IMPORTING,))
                    cursor.execute("SELECT pg_notify(%s, %s)", (CHANNEL, str(head_of(cursor).position)))
        except psycopg.errors.IntegrityError:
            raise PreconditionFailed from None

    def drop(self, importing: str | None) -> None:
        with self.transaction(commit=True) as cursor:
            cursor.execute(_LOCK_DURABLY, (APPEND_LOCK,))
            require_importing(cursor, importing)
            if importing is None and head_of(cursor).position:
                raise PreconditionFailed
            postgres_schema.drop(cursor)

    def integrator_lock(self) -> PostgresLeaderLock:
        return PostgresLeaderLock(self.datastore.parameters, INTEGRATOR_LOCK)

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

    def _shared_connection(self) -> psycopg.Connection[Any] | None:
        """The connection of this thread's transaction, if it has one that several calls share."""
        return getattr(self._open, "connection", None)

    def _read_dedicated(self, statement: LiteralString, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows of one short statement, on a connection that is not shared with large reads."""
        shared = self._shared_connection()
        if shared is not None:
            with shared.cursor(row_factory=tuple_row) as cursor:
                return cursor.execute(statement, parameters).fetchall()
        try:
            return self._reading.read(statement, parameters)
        except psycopg.Error as error:
            raise unavailable(error, error, commit=False) from error

    def _read(self, statement: str, parameters: Sequence[object] | Mapping[str, object]) -> list[tuple[Any, ...]]:
        """The rows of one statement, on a connection of the pool, so that no other read waits for them."""
        shared = self._shared_connection()
        if shared is not None:
            with shared.cursor(row_factory=tuple_row) as cursor:
                return cursor.execute(statement.encode(), parameters).fetchall()
        with self._translated(commit=False):
            for attempt in range(self.datastore.connections_max + 1):
                with self.datastore.get_connection() as connection:
                    connection.autocommit = True
                    try:
                        with connection.cursor(row_factory=tuple_row) as cursor:
                            return cursor.execute(statement.encode(), parameters).fetchall()
                    except psycopg.OperationalError:
                        # The server has closed this connection meanwhile: try the next one, as in `_begin`.
                        if attempt == self.datastore.connections_max or not connection.broken:
                            raise
        raise AssertionError("the last attempt returns or raises")

    @contextmanager
    def transaction(self, *, commit: bool) -> Iterator[PgCursor]:
        shared = self._shared_connection()
        if shared is not None:
            with shared.cursor(row_factory=tuple_row) as cursor:
                yield cursor
            return
        with self._translated(commit=commit), ExitStack() as stack:
            connection = self._begin(stack, commit)
            yield stack.enter_context(connection.cursor(row_factory=tuple_row))

    @contextmanager
    def _translated(self, *, commit: bool) -> Iterator[None]:
        """Raises the library's errors as `LedgerUnavailable`, except violated constraints."""
        try:
            yield
        except PersistenceError as error:
            cause = error.__cause__
            if isinstance(cause, psycopg.errors.IntegrityError):
                raise cause from None
            raise unavailable(error, cause, commit=commit) from error

    def _begin(self, stack: ExitStack, commit: bool) -> psycopg.Connection[Any]:
        """A pooled connection with a transaction, entered into `stack`. Connections that the server has closed, as all
        are after its restart, are skipped: nothing was sent on them yet."""
        for attempt in range(self.datastore.connections_max + 1):
            with ExitStack() as attempt_stack:
                connection = attempt_stack.enter_context(self.datastore.get_connection())
                # Several statements of one question must see one state of the ledger. Statements behind a lock must
                # see what its last holder committed, whatever level the server's or the role's default is.
                connection.isolation_level = IsolationLevel.READ_COMMITTED if commit else IsolationLevel.REPEATABLE_READ
                connection.read_only = None if commit else True
                try:
                    attempt_stack.enter_context(connection.transaction(force_rollback=not commit))
                except psycopg.OperationalError:
                    if attempt == self.datastore.connections_max or not connection.broken:
                        raise
                    continue
                stack.push(attempt_stack.pop_all())
                return connection
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        self._appending.close()
        self._reading.close()
        self.datastore.close()
