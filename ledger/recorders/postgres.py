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
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import psycopg
from eventsourcing.persistence import Notification, PersistenceError, StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder
from psycopg import IsolationLevel
from psycopg.rows import tuple_row
from psycopg_pool import PoolTimeout

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
from ledger.recorders.postgres_server import SCHEMA, PostgresLedgerDatastore, first_line

_EVENTS: Final = f"{SCHEMA}.{EVENTS_TABLE}"
_COLUMNS: Final = "position, originator_id, originator_version, topic, state, recorded_at, leaf_hash"
_APPEND_LOCK: Final = 0x494E464F52434501
"""The advisory lock under which events are appended: one per database, so one ledger per database."""
_CREATE_LOCK: Final = 0x494E464F52434502
_FORMAT: Final = "format"

_TABLES: Final = (
    f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}",
    f"CREATE TABLE {_EVENTS} ("
    " position bigint PRIMARY KEY,"
    " originator_id text NOT NULL,"
    " originator_version bigint NOT NULL,"
    " topic text NOT NULL,"
    " state bytea NOT NULL,"
    " recorded_at bigint NOT NULL,"
    " leaf_hash bytea NOT NULL CHECK (length(leaf_hash) = 32),"
    " UNIQUE (originator_id, originator_version))",
    f"CREATE FUNCTION {SCHEMA}.refuse_change() RETURNS trigger LANGUAGE plpgsql AS"
    " $$BEGIN RAISE EXCEPTION 'the ledger is immutable: % of events is refused', TG_OP"
    " USING ERRCODE = 'integrity_constraint_violation'; END$$",
    f"CREATE TRIGGER {EVENTS_TABLE}_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON {_EVENTS}"
    f" FOR EACH STATEMENT EXECUTE FUNCTION {SCHEMA}.refuse_change()",
    f"CREATE TABLE {SCHEMA}.submissions ("
    " caller text NOT NULL, key text NOT NULL, body_sha256 bytea NOT NULL,"
    " first_position bigint NOT NULL, event_count bigint NOT NULL, recorded_at bigint NOT NULL,"
    " PRIMARY KEY (caller, key))",
    f"CREATE TABLE {SCHEMA}.personal_data (position bigint PRIMARY KEY, salt bytea NOT NULL, content text NOT NULL)",
    f"CREATE TABLE {SCHEMA}.ledger_meta (name text PRIMARY KEY, value text NOT NULL)",
)

_INSERT: Final = (
    f"INSERT INTO {_EVENTS} ({_COLUMNS}) SELECT * FROM unnest(%s::bigint[], %s::text[], %s::bigint[], %s::text[],"
    " %s::bytea[], %s::bigint[], %s::bytea[])"
)

_HAS_META: Final = f"SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = '{SCHEMA}' AND tablename = 'ledger_meta'"

_LOCK_DURABLY: Final = (
    "SELECT pg_advisory_xact_lock(%s), CASE WHEN current_setting('synchronous_commit') = 'off'"
    " THEN set_config('synchronous_commit', 'on', true) END"
)
"""Accepted means durable, whatever the server's or the role's default says."""

PgCursor = psycopg.Cursor[tuple[Any, ...]]


class PostgresLedgerRecorder(PostgresApplicationRecorder):
    datastore: PostgresLedgerDatastore

    def __init__(self, datastore: PostgresLedgerDatastore) -> None:
        super().__init__(datastore, events_table_name=EVENTS_TABLE)
        self._held = threading.local()

    def meta(self) -> dict[str, str]:
        with self.transaction(commit=False) as cursor:
            return _meta(cursor)

    def create(self, meta: Mapping[str, str]) -> None:
        with self.transaction(commit=True) as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_CREATE_LOCK,))
            if _meta(cursor):
                return
            for statement in _TABLES:
                cursor.execute(statement)
            for fact in {**meta, _FORMAT: str(FORMAT)}.items():
                cursor.execute(f"INSERT INTO {SCHEMA}.ledger_meta VALUES (%s, %s)", fact)

    def append(
        self, stored_events: Sequence[StoredEvent], decided: Decided, clock: Clock, idempotency: Idempotency | None
    ) -> Recorded | KnownSubmission:
        with self.transaction(commit=True) as cursor:
            # The lock first and by itself: the statements after it must see what its last holder committed.
            cursor.execute(_LOCK_DURABLY, (_APPEND_LOCK,))
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
            _insert_entries(
                cursor,
                [
                    Entry(
                        position,
                        str(stored.originator_id),
                        stored.originator_version,
                        stored.topic,
                        leaf,
                        recorded_at,
                        leaf_hash(leaf),
                    )
                    for position, (stored, leaf) in enumerate(
                        zip(stored_events, leaves, strict=True), head.position + 1
                    )
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
                    f"INSERT INTO {SCHEMA}.submissions VALUES (%s,%s,%s,%s,%s,%s)",
                    (*idempotency, head.position + 1, len(leaves), recorded_at),
                )
        return Recorded(head.position + 1, recorded_at, leaves)

    def restore(
        self, entries: Sequence[Entry], personal: Sequence[tuple[int, PersonalData]], *, importing: str, last: bool
    ) -> None:
        try:
            with self.transaction(commit=True) as cursor:
                cursor.execute(_LOCK_DURABLY, (_APPEND_LOCK,))
                _require_importing(cursor, importing)
                with cursor.copy(f"COPY {_EVENTS} ({_COLUMNS}) FROM STDIN (FORMAT BINARY)") as copy:
                    copy.set_types(["int8", "text", "int8", "text", "bytea", "int8", "bytea"])
                    for entry in entries:
                        copy.write_row(entry)
                _insert_personal(cursor, personal)
                if last:
                    cursor.execute(f"DELETE FROM {SCHEMA}.ledger_meta WHERE name = %s", (IMPORTING,))
        except psycopg.errors.IntegrityError:
            raise Stale from None

    def drop(self, importing: str | None) -> None:
        with self.transaction(commit=True) as cursor:
            cursor.execute(_LOCK_DURABLY, (_APPEND_LOCK,))
            _require_importing(cursor, importing)
            if importing is None and _head(cursor).position:
                raise Stale
            cursor.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")

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
                f"SELECT {_COLUMNS} FROM {_EVENTS} WHERE position > %s AND position <= %s ORDER BY position LIMIT %s",
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
                f"SELECT {_COLUMNS} FROM {_EVENTS}"
                " WHERE originator_id = %s AND originator_version > %s AND originator_version <= %s"
                f" ORDER BY originator_version {'DESC' if newest_first else 'ASC'} LIMIT %s",
                (subject, after, _highest(until), limit),
            )

    def versions(self, subjects: Iterable[str]) -> dict[str, int]:
        with self.transaction(commit=False) as cursor:
            return _versions(cursor, subjects)

    def known_submission(self, caller: str, key: str) -> KnownSubmission | None:
        with self.transaction(commit=False) as cursor:
            return _known_submission(cursor, caller, key)

    def personal(self, positions: Sequence[int]) -> dict[int, PersonalData]:
        with self.transaction(commit=False) as cursor:
            rows = cursor.execute(
                f"SELECT position, salt, content FROM {SCHEMA}.personal_data WHERE position = ANY(%s)",
                (list(positions),),
            )
            return {position: PersonalData(bytes(salt), content) for position, salt, content in rows}

    @contextmanager
    def transaction(self, *, commit: bool) -> Iterator[PgCursor]:
        held: psycopg.Connection[Any] | None = getattr(self._held, "connection", None)
        if held is not None:
            with held.cursor(row_factory=tuple_row) as cursor:
                yield cursor
            return
        try:
            with ExitStack() as stack:
                connection = self._begin(stack, commit)
                yield stack.enter_context(connection.cursor(row_factory=tuple_row))
        except PersistenceError as error:
            cause = error.__cause__
            if isinstance(cause, psycopg.errors.IntegrityError):
                raise cause from None
            # An error with a code is the server's word that it took nothing; without one its answer was lost.
            lost = commit and isinstance(cause, psycopg.OperationalError) and cause.sqlstate is None
            advice = (
                "it may or may not be recorded, so send it again with the same Idempotency-Key"
                if lost and not isinstance(cause, PoolTimeout)
                else "nothing was written, try again"
            )
            raise LedgerUnavailable(
                f"PostgreSQL did not carry it out: {first_line(cause or error)}; {advice}"
            ) from error

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with self.transaction(commit=True) as cursor:
            cursor.execute(_LOCK_DURABLY, (_APPEND_LOCK,))
            self._held.connection = cursor.connection
            try:
                yield
            finally:
                del self._held.connection

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
        with self.transaction(commit=False) as cursor:
            rows = cursor.execute(
                f"SELECT position, originator_id, originator_version, topic, state FROM {_EVENTS}"
                " WHERE position > %s AND position <= %s AND (topic = ANY(%s) OR %s) ORDER BY position LIMIT %s",
                (after, _highest(stop), list(topics), not topics, limit),
            ).fetchall()
        return [
            Notification(originator_id=row[1], originator_version=row[2], topic=row[3], state=bytes(row[4]), id=row[0])
            for row in rows
        ]

    def max_notification_id(self) -> int | None:
        return self.head().position or None

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """The library's way in: `append` with its arguments as keywords, answering positions."""
        recorded = self.append(stored_events, idempotency=None, **kwargs)
        assert isinstance(recorded, Recorded)
        return range(recorded.first_position, recorded.first_position + len(recorded.leaves))

    def close(self) -> None:
        self.datastore.close()


def _meta(cursor: PgCursor) -> dict[str, str]:
    # Not to_regclass: it asks a cache, which behind a lock need not know yet what the lock's last holder made.
    if not cursor.execute(_HAS_META).fetchone():
        return {}
    meta: dict[str, str] = dict(cursor.execute(f"SELECT name, value FROM {SCHEMA}.ledger_meta").fetchall())
    format_ = meta.pop(_FORMAT, "")
    if not format_.isdecimal():
        raise NotALedger(f"the schema {SCHEMA} of this database is another program's; name another database with --db")
    if int(format_) > FORMAT:
        raise NotALedger(
            f"this database has ledger format {format_} and this inforce knows {FORMAT}; use a newer inforce"
        )
    return meta


def _require_importing(cursor: PgCursor, importing: str | None) -> None:
    meta = _meta(cursor)
    if not meta or meta.get(IMPORTING) != importing:
        raise Stale


def _entries(cursor: PgCursor, statement: str, parameters: tuple[object, ...]) -> list[Entry]:
    return [Entry(*row) for row in cursor.execute(statement, parameters)]


def _insert_entries(cursor: PgCursor, entries: Sequence[Entry]) -> None:
    cursor.execute(_INSERT, [list(column) for column in zip(*entries, strict=True)])


def _insert_personal(cursor: PgCursor, personal: Iterable[tuple[int, PersonalData]]) -> None:
    rows = [(position, data.salt, data.content) for position, data in personal]
    if rows:
        cursor.execute(
            f"INSERT INTO {SCHEMA}.personal_data SELECT * FROM unnest(%s::bigint[], %s::bytea[], %s::text[])",
            [list(column) for column in zip(*rows, strict=True)],
        )


def _head(cursor: PgCursor) -> Head:
    row = cursor.execute(f"SELECT position, recorded_at FROM {_EVENTS} ORDER BY position DESC LIMIT 1").fetchone()
    return Head(0, None) if row is None else Head(row[0], row[1])


def _versions(cursor: PgCursor, subjects: Iterable[str]) -> dict[str, int]:
    wanted = list(subjects)
    rows = cursor.execute(
        "SELECT wanted, coalesce((SELECT max(originator_version) FROM"
        f" {_EVENTS} WHERE originator_id = wanted), 0) FROM unnest(%s::text[]) AS wanted",
        (wanted,),
    )
    return dict(rows.fetchall())


def _known_submission(cursor: PgCursor, caller: str, key: str) -> KnownSubmission | None:
    row = cursor.execute(
        f"SELECT body_sha256, first_position, event_count FROM {SCHEMA}.submissions WHERE caller = %s AND key = %s",
        (caller, key),
    ).fetchone()
    return None if row is None else KnownSubmission(bytes(row[0]), row[1], row[2])


def _highest(until: int | None) -> int:
    return 2**63 - 1 if until is None else until
