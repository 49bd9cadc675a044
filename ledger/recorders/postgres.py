"""The ledger in PostgreSQL, in a schema of its own, with synchronous_commit=on.

A subclass of the eventsourcing library's recorder with the writing done natively: the library's own insert can commit
events although Python raised after it, its sequence leaves gaps, and its retries can turn a committed insert into a
conflict. Here every append takes one advisory lock and then reads, decides the places, and inserts in that order, so
positions are dense and position order is commit order; whatever raises rolls everything back.
Proved by tests/contracts.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Final, LiteralString

import psycopg
from eventsourcing.persistence import Notification, PersistenceError, StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder
from psycopg import IsolationLevel
from psycopg.rows import tuple_row
from psycopg_pool import PoolTimeout

from ledger.clock import Clock
from ledger.drafts import PersonalData
from ledger.errors import LedgerUnavailable
from ledger.recorders import postgres_schema
from ledger.recorders.contract import (
    EVENTS_TABLE,
    IMPORTING,
    AppendPreconditions,
    ChangeToken,
    Entry,
    Head,
    KnownSubmission,
    Outcome,
    Proposal,
    RawEvent,
    Recorded,
    Stale,
)
from ledger.recorders.postgres_append import APPEND, APPEND_LOCK, Call
from ledger.recorders.postgres_schema import COLUMNS, EVENTS, PgCursor
from ledger.recorders.postgres_server import (
    SCHEMA,
    Line,
    NotConnected,
    PostgresLedgerDatastore,
    first_line,
    is_read_only,
)
from ledger.recorders.postgres_watch import CHANNEL, PostgresWatch
from ledger.recorders.searching import version_at_statement

_CREATE_LOCK: Final = 0x494E464F52434502

_HEAD: Final = f"SELECT position, recorded_at FROM {EVENTS} ORDER BY position DESC LIMIT 1"

_STANDING: Final = (
    f"(SELECT 0, NULL, NULL, NULL::bytea, position, recorded_at FROM {EVENTS} ORDER BY position DESC LIMIT 1)"
    " UNION ALL SELECT 1, wanted, NULL, NULL, coalesce((SELECT max(originator_version) FROM"
    f" {EVENTS} WHERE originator_id = wanted), 0), NULL FROM unnest(%b::text[]) AS wanted"
    " UNION ALL SELECT 2, caller, key, body_sha256, first_position, event_count"
    f" FROM unnest(%b::text[], %b::text[]) AS asked(caller, key) JOIN {SCHEMA}.submissions USING (caller, key)"
)

_VERSIONS: Final = (
    f"SELECT wanted, coalesce((SELECT max(originator_version) FROM {EVENTS} WHERE originator_id = wanted), 0)"
    " FROM unnest(%s::text[]) AS wanted"
)
_KNOWN_SUBMISSION: Final = (
    f"SELECT body_sha256, first_position, event_count FROM {SCHEMA}.submissions WHERE caller = %s AND key = %s"
)
_VERSION_AT: Final = version_at_statement(EVENTS, "%(subject)s", "%(position)s")

_LOCK_DURABLY: Final = (
    "SELECT pg_advisory_xact_lock(%s), CASE WHEN current_setting('synchronous_commit') = 'off'"
    " THEN set_config('synchronous_commit', 'on', true) END"
)
"""Accepted means durable, whatever the server's or the role's default says."""


class PostgresLedgerRecorder(PostgresApplicationRecorder):
    datastore: PostgresLedgerDatastore

    def __init__(self, datastore: PostgresLedgerDatastore) -> None:
        super().__init__(datastore, events_table_name=EVENTS_TABLE)
        self._held = threading.local()
        self._watch = Line(datastore.parameters)
        # Not the one that answers questions: they need not wait for a commit.
        self._appending = Line(datastore.parameters)

    def meta(self) -> dict[str, str]:
        with self.transaction(commit=False) as cursor:
            return postgres_schema.read_meta(cursor)

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

    def append(self, proposals: Sequence[Proposal], clock: Clock) -> list[Outcome]:
        if not proposals:
            return []
        call = Call(proposals)
        held = self._held_connection()
        if held is not None:
            with held.cursor(row_factory=tuple_row) as cursor:
                row = cursor.execute(APPEND, call.arguments(clock.now())).fetchone()
            assert row is not None
        else:
            try:
                row = self._appending.tell(APPEND, lambda: call.arguments(clock.now()))
            except psycopg.IntegrityError:
                raise
            except psycopg.Error as error:
                raise _unavailable(error, error, commit=True) from error
        return call.outcomes(row)

    def append_preconditions(
        self, subjects: Iterable[str], keys: Iterable[tuple[str, str]] = ()
    ) -> AppendPreconditions:
        pairs = list(keys)
        asked = (list(subjects), [caller for caller, _ in pairs], [key for _, key in pairs])
        head, versions, known = Head(0, None), {}, {}
        for what, name, key, body, number, second in self._ask(_STANDING, asked):
            if what == 0:
                head = Head(number, second)
            elif what == 1:
                versions[name] = number
            else:
                known[name, key] = KnownSubmission(bytes(body), number, second)
        return AppendPreconditions(head, versions, known)

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
                    cursor.execute("SELECT pg_notify(%s, %s)", (CHANNEL, str(_head(cursor).position)))
        except psycopg.errors.IntegrityError:
            raise Stale from None

    def drop(self, importing: str | None) -> None:
        with self.transaction(commit=True) as cursor:
            cursor.execute(_LOCK_DURABLY, (APPEND_LOCK,))
            _require_importing(cursor, importing)
            if importing is None and _head(cursor).position:
                raise Stale
            postgres_schema.drop(cursor)

    def head(self) -> Head:
        rows = self._ask(_HEAD)
        return Head(*rows[0]) if rows else Head(0, None)

    def _ask(self, statement: LiteralString, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows of one statement that writes nothing, in one round trip: one statement sees one ledger."""
        held = self._held_connection()
        if held is not None:
            with held.cursor(row_factory=tuple_row) as cursor:
                return cursor.execute(statement, parameters).fetchall()
        try:
            return self._watch.ask(statement, parameters)
        except psycopg.Error as error:
            raise _unavailable(error, error, commit=False) from error

    def _held_connection(self) -> psycopg.Connection[Any] | None:
        return getattr(self._held, "connection", None)

    def change_token(self) -> ChangeToken:
        # Only events are committed to a ledger, and each takes the next position; an import that starts over may come
        # to the same one at another time.
        head = self.head()
        return (head.position, head.recorded_at or 0)

    def change_token_at_once(self) -> None:
        """Never: every look at it goes over the network."""

    def watch(self) -> PostgresWatch:
        return PostgresWatch(self.datastore.parameters)

    def entry(self, position: int) -> Entry | None:
        entries = self.page(position - 1, 1, position)
        return entries[0] if entries else None

    def page(self, after: int, limit: int, until: int | None = None) -> list[Entry]:
        rows = self._read(
            f"SELECT {COLUMNS} FROM {EVENTS} WHERE position > %s AND position <= %s ORDER BY position LIMIT %s",
            (after, _highest(until), limit),
        )
        return list(map(Entry._make, rows))

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
        of_topic = "" if topic is None else " AND topic = %s"
        rows = self._read(
            f"SELECT {COLUMNS} FROM {EVENTS}"
            f" WHERE originator_id = %s AND originator_version > %s AND originator_version <= %s{of_topic}"
            f" ORDER BY originator_version {'DESC' if newest_first else 'ASC'} LIMIT %s",
            (subject, after, _highest(until), *([topic] if topic else []), limit),
        )
        return list(map(Entry._make, rows))

    def version_at(self, subject: str, position: int) -> int:
        ((version,),) = self._read(_VERSION_AT, {"subject": subject, "position": position})
        return int(version)

    def versions(self, subjects: Iterable[str]) -> dict[str, int]:
        return dict(self._read(_VERSIONS, (list(subjects),)))

    def known_submission(self, caller: str, key: str) -> KnownSubmission | None:
        rows = self._read(_KNOWN_SUBMISSION, (caller, key))
        return KnownSubmission(bytes(rows[0][0]), *rows[0][1:]) if rows else None

    def personal(self, positions: Sequence[int]) -> dict[int, PersonalData]:
        rows = self._read(
            f"SELECT position, salt, content FROM {SCHEMA}.personal_data WHERE position = ANY(%s)", (list(positions),)
        )
        return {position: PersonalData(bytes(salt), content) for position, salt, content in rows}

    def _read(self, statement: str, parameters: Sequence[object] | Mapping[str, object]) -> list[tuple[Any, ...]]:
        """The rows of one statement that writes nothing: it sees one ledger by itself, so no transaction is begun for
        it, and it takes one round trip. On a connection of the pool, where others do not wait for its rows."""
        held = self._held_connection()
        if held is not None:
            with held.cursor(row_factory=tuple_row) as cursor:
                return cursor.execute(statement.encode(), parameters).fetchall()
        with self._translated(commit=False):
            for attempt in range(self.datastore.connections_max + 1):
                with self.datastore.get_connection() as connection:
                    connection.autocommit = True
                    try:
                        with connection.cursor(row_factory=tuple_row) as cursor:
                            return cursor.execute(statement.encode(), parameters).fetchall()
                    except psycopg.OperationalError:
                        # Closed by the server meanwhile: the next one is asked, as in `_begin`.
                        if attempt == self.datastore.connections_max or not connection.broken:
                            raise
        raise AssertionError("the last attempt returns or raises")

    @contextmanager
    def transaction(self, *, commit: bool) -> Iterator[PgCursor]:
        held: psycopg.Connection[Any] | None = getattr(self._held, "connection", None)
        if held is not None:
            with held.cursor(row_factory=tuple_row) as cursor:
                yield cursor
            return
        with self._translated(commit=commit), ExitStack() as stack:
            connection = self._begin(stack, commit)
            yield stack.enter_context(connection.cursor(row_factory=tuple_row))

    @contextmanager
    def _translated(self, *, commit: bool) -> Iterator[None]:
        try:
            yield
        except PersistenceError as error:
            cause = error.__cause__
            if isinstance(cause, psycopg.errors.IntegrityError):
                raise cause from None
            raise _unavailable(error, cause, commit=commit) from error

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with self.transaction(commit=True) as cursor:
            cursor.execute(_LOCK_DURABLY, (APPEND_LOCK,))
            self._held.connection = cursor.connection
            try:
                yield
            finally:
                del self._held.connection

    def deciding(self) -> AbstractContextManager[None]:
        # The append is one statement: a transaction around it would only make it wait longer.
        return nullcontext()

    def _begin(self, stack: ExitStack, commit: bool) -> psycopg.Connection[Any]:
        """A transaction has begun on the answered connection. One that the server closed meanwhile, as all are after
        its restart, is passed over: nothing was asked of it yet."""
        for attempt in range(self.datastore.connections_max + 1):
            with ExitStack() as tried:
                connection = tried.enter_context(self.datastore.get_connection())
                # Several statements of one question must see one ledger. Those behind a lock must see what its last
                # holder committed, whatever level the server's or the role's default is.
                connection.isolation_level = IsolationLevel.READ_COMMITTED if commit else IsolationLevel.REPEATABLE_READ
                connection.read_only = None if commit else True
                try:
                    tried.enter_context(connection.transaction(force_rollback=not commit))
                except psycopg.OperationalError:
                    if attempt == self.datastore.connections_max or not connection.broken:
                        raise
                    continue
                stack.push(tried.pop_all())
                return connection
        raise AssertionError("the last attempt returns or raises")

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """The library's feed, over our positions instead of its sequence."""
        after = 0 if start is None else start - 1 if inclusive_of_start else start
        rows = self._read(
            f"SELECT position, originator_id, originator_version, topic, state FROM {EVENTS}"
            " WHERE position > %s AND position <= %s AND (topic = ANY(%s) OR %s) ORDER BY position LIMIT %s",
            (after, _highest(stop), list(topics), not topics, limit),
        )
        return [
            Notification(originator_id=row[1], originator_version=row[2], topic=row[3], state=bytes(row[4]), id=row[0])
            for row in rows
        ]

    def max_notification_id(self) -> int | None:
        return self.head().position or None

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """The library's way in: keywords `decided` and `clock`, answering positions. Raises `Stale`."""
        marked = [stored.state for stored in stored_events]
        (outcome,) = self.append([Proposal(kwargs["decided"], marked, None)], kwargs["clock"])
        if not isinstance(outcome, Recorded):
            raise Stale
        return range(outcome.first_position, outcome.first_position + len(marked))

    def events_in_range(self, after: int, until: int, above: str = "", upto: str | None = None) -> list[RawEvent]:
        below = "" if upto is None else ' AND originator_id COLLATE "C" <= %s'
        with self.transaction(commit=False) as cursor:
            return cursor.execute(
                f"SELECT position, originator_id, originator_version, state FROM {EVENTS} WHERE position > %s"
                f' AND position <= %s AND originator_id COLLATE "C" > %s{below} ORDER BY position',
                (after, until, above, *(() if upto is None else (upto,))),
                binary=True,
            ).fetchall()

    def leaves(self, after: int, until: int) -> bytes:
        with self.transaction(commit=False) as cursor:
            rows = cursor.execute(
                f"SELECT state FROM {EVENTS} WHERE position > %s AND position <= %s ORDER BY position",
                (after, until),
                binary=True,
            ).fetchall()
        return b"\n".join([bytes(leaf) for (leaf,) in rows])

    def leaves_of(self, subjects: Sequence[str], until: int) -> bytes:
        with self.transaction(commit=False) as cursor:
            rows = cursor.execute(
                f"SELECT state FROM unnest(%s::text[]) WITH ORDINALITY AS asked (subject, place) JOIN {EVENTS}"
                " ON originator_id = subject AND position <= %s ORDER BY place, originator_version",
                (list(subjects), until),
                binary=True,
            ).fetchall()
        return b"\n".join([bytes(leaf) for (leaf,) in rows])

    def subjects_at(self, positions: Sequence[int]) -> list[str]:
        statement = f"SELECT DISTINCT originator_id FROM {EVENTS} WHERE position = ANY(%s)"
        return sorted(subject for (subject,) in self._read(statement, (list(positions),)))

    def close(self) -> None:
        self._watch.close()
        self._appending.close()
        self.datastore.close()


def _unavailable(error: BaseException, cause: BaseException | None, *, commit: bool) -> LedgerUnavailable:
    if isinstance(cause, psycopg.errors.UndefinedFunction):
        # A role that may add rows and nothing else can open a ledger of an older format, and not bring it up to date.
        return LedgerUnavailable(
            "this ledger is of an older format, and nothing was written; open it once as the role that owns the schema "
            f"{SCHEMA}, which brings it up to date"
        )
    # An error with a code is the server's word that it took nothing; without one its answer was lost. So it
    # was where a pooler between says so, in class 08.
    lost = (
        commit
        and isinstance(cause, psycopg.OperationalError)
        and (cause.sqlstate is None or cause.sqlstate.startswith("08"))
        and not isinstance(cause, PoolTimeout | NotConnected)
    )
    advice = (
        "it may or may not be recorded, so send it again with the same Idempotency-Key"
        if lost
        else "nothing was written, try again"
        if commit
        else "try again"
    )
    return LedgerUnavailable(f"PostgreSQL did not carry it out: {first_line(cause or error)}; {advice}")


def _require_importing(cursor: PgCursor, importing: str | None) -> None:
    meta = postgres_schema.read_meta(cursor)
    if not meta or meta.get(IMPORTING) != importing:
        raise Stale


def _insert_personal(cursor: PgCursor, personal: Iterable[tuple[int, PersonalData]]) -> None:
    rows = [(position, data.salt, data.content) for position, data in personal]
    if rows:
        cursor.execute(
            f"INSERT INTO {SCHEMA}.personal_data SELECT * FROM unnest(%s::bigint[], %s::bytea[], %s::text[])",
            [list(column) for column in zip(*rows, strict=True)],
        )


def _head(cursor: PgCursor) -> Head:
    row = cursor.execute(_HEAD).fetchone()
    return Head(0, None) if row is None else Head(row[0], row[1])


def _highest(until: int | None) -> int:
    return 2**63 - 1 if until is None else until
