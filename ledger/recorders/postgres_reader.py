"""Reading a PostgreSQL ledger, and the transactions that reads and writes share. See `postgres` for the recorder.

A read of one statement begins no transaction, because one statement sees one state of the ledger: it takes one round
trip instead of three.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final, LiteralString

import psycopg
from eventsourcing.persistence import Notification, PersistenceError
from eventsourcing.postgres import PostgresApplicationRecorder
from psycopg import IsolationLevel
from psycopg.rows import tuple_row
from psycopg_pool import PoolTimeout

from ledger.drafts import PersonalData
from ledger.errors import LedgerUnavailable
from ledger.recorders import postgres_schema
from ledger.recorders.contract import (
    EVENTS_TABLE,
    AppendPreconditions,
    ChangeToken,
    Entry,
    Head,
    KnownSubmission,
    RawEvent,
)
from ledger.recorders.postgres_schema import COLUMNS, EVENTS, HEAD, PgCursor
from ledger.recorders.postgres_server import (
    SCHEMA,
    NotConnected,
    PostgresLedgerDatastore,
    StatementConnection,
    first_line,
)
from ledger.recorders.postgres_watch import PostgresWatch
from ledger.recorders.version_at import version_at_statement

_PRECONDITIONS: Final = (
    f"(SELECT 0, NULL, NULL, NULL::bytea, position, recorded_at FROM {EVENTS} ORDER BY position DESC LIMIT 1)"
    " UNION ALL SELECT 1, subject, NULL, NULL, coalesce((SELECT max(originator_version) FROM"
    f" {EVENTS} WHERE originator_id = subject), 0), NULL FROM unnest(%b::text[]) AS subject"
    " UNION ALL SELECT 2, caller, key, body_sha256, first_position, event_count"
    f" FROM unnest(%b::text[], %b::text[]) AS used(caller, key) JOIN {SCHEMA}.submissions USING (caller, key)"
)
_VERSIONS: Final = (
    f"SELECT subject, coalesce((SELECT max(originator_version) FROM {EVENTS} WHERE originator_id = subject), 0)"
    " FROM unnest(%s::text[]) AS subject"
)
_VERSION_AT: Final = version_at_statement(EVENTS, "%(subject)s", "%(position)s")


class PostgresLedgerReader(PostgresApplicationRecorder):
    datastore: PostgresLedgerDatastore
    events_table: Final = EVENTS
    file: Final = None

    def __init__(self, datastore: PostgresLedgerDatastore) -> None:
        super().__init__(datastore, events_table_name=EVENTS_TABLE)
        self._open = threading.local()
        self._reading = StatementConnection(datastore.parameters)

    def meta(self) -> dict[str, str]:
        with self.transaction(commit=False) as cursor:
            return postgres_schema.read_meta(cursor)

    def head(self) -> Head:
        rows = self._read_dedicated(HEAD)
        return Head(*rows[0]) if rows else Head(0, None)

    def append_preconditions(
        self, subjects: Iterable[str], keys: Iterable[tuple[str, str]] = ()
    ) -> AppendPreconditions:
        pairs = list(keys)
        parameters = (list(subjects), [caller for caller, _ in pairs], [key for _, key in pairs])
        head, versions, known = Head(0, None), {}, {}
        for kind, name, key, body, number, second in self._read_dedicated(_PRECONDITIONS, parameters):
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

    def entry(self, position: int) -> Entry | None:
        entries = self.page(position - 1, 1, position)
        return entries[0] if entries else None

    def page(self, after: int, limit: int, until: int | None = None) -> list[Entry]:
        rows = self._read(
            f"SELECT {COLUMNS} FROM {EVENTS} WHERE position > %s AND position <= %s ORDER BY position LIMIT %s",
            (after, _or_highest(until), limit),
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
            (subject, after, _or_highest(until), *([topic] if topic else []), limit),
        )
        return list(map(Entry._make, rows))

    def version_at(self, subject: str, position: int) -> int:
        ((version,),) = self._read(_VERSION_AT, {"subject": subject, "position": position})
        return int(version)

    def versions(self, subjects: Iterable[str]) -> dict[str, int]:
        return dict(self._read(_VERSIONS, (list(subjects),)))

    def personal(self, positions: Sequence[int]) -> dict[int, PersonalData]:
        rows = self._read(
            f"SELECT position, salt, content FROM {SCHEMA}.personal_data WHERE position = ANY(%s)", (list(positions),)
        )
        return {position: PersonalData(bytes(salt), content) for position, salt, content in rows}

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """The eventsourcing library's feed, with our positions instead of its sequence."""
        after = 0 if start is None else start - 1 if inclusive_of_start else start
        rows = self._read(
            f"SELECT position, originator_id, originator_version, topic, state FROM {EVENTS}"
            " WHERE position > %s AND position <= %s AND (topic = ANY(%s) OR %s) ORDER BY position LIMIT %s",
            (after, _or_highest(stop), list(topics), not topics, limit),
        )
        return [
            Notification(originator_id=row[1], originator_version=row[2], topic=row[3], state=bytes(row[4]), id=row[0])
            for row in rows
        ]

    def max_notification_id(self) -> int | None:
        return self.head().position or None

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
        return self._leaves(
            f"SELECT state FROM {EVENTS} WHERE position > %s AND position <= %s ORDER BY position", (after, until)
        )

    def leaves_of(self, subjects: Sequence[str], until: int) -> bytes:
        return self._leaves(
            f"SELECT state FROM unnest(%s::text[]) WITH ORDINALITY AS listed (subject, place) JOIN {EVENTS}"
            " ON originator_id = subject AND position <= %s ORDER BY place, originator_version",
            (list(subjects), until),
        )

    def _leaves(self, statement: LiteralString, parameters: Sequence[object]) -> bytes:
        with self.transaction(commit=False) as cursor:
            rows = cursor.execute(statement, parameters, binary=True).fetchall()
        return b"\n".join([bytes(leaf) for (leaf,) in rows])

    def subjects_at(self, positions: Sequence[int]) -> list[str]:
        statement = f"SELECT DISTINCT originator_id FROM {EVENTS} WHERE position = ANY(%s)"
        return sorted(subject for (subject,) in self._read(statement, (list(positions),)))

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
        self._reading.close()
        self.datastore.close()


def unavailable(error: BaseException, cause: BaseException | None, *, commit: bool) -> LedgerUnavailable:
    """`error` as ours. `commit`: it interrupted a write, so the caller must learn whether it may be recorded."""
    if isinstance(cause, psycopg.errors.UndefinedFunction):
        # A role that may only add rows can open a ledger of an older format but cannot migrate it.
        return LedgerUnavailable(
            "this ledger is of an older format, and nothing was written; open it once as the role that owns the schema "
            f"{SCHEMA}, which migrates it"
        )
    # An error with a code is the server's confirmation that nothing was written. Without a code the answer was lost,
    # and so it was if a pooler in between reports class 08.
    answer_lost = (
        commit
        and isinstance(cause, psycopg.OperationalError)
        and (cause.sqlstate is None or cause.sqlstate.startswith("08"))
        and not isinstance(cause, PoolTimeout | NotConnected)
    )
    advice = (
        "it may or may not be recorded, so send it again with the same Idempotency-Key"
        if answer_lost
        else "nothing was written, try again"
        if commit
        else "try again"
    )
    return LedgerUnavailable(f"PostgreSQL did not carry it out: {first_line(cause or error)}; {advice}")


def _or_highest(until: int | None) -> int:
    return 2**63 - 1 if until is None else until
