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
from collections.abc import Set as AbstractSet
from contextlib import closing, contextmanager
from itertools import chain
from typing import Any, Final, NamedTuple

import msgspec
from eventsourcing.persistence import (
    Notification,
    PersistenceError,
    StoredEvent,
)
from eventsourcing.sqlite import (
    SQLiteApplicationRecorder,
)

from ledger.clock import Clock
from ledger.codec import completed, leaf_hash
from ledger.drafts import PersonalData
from ledger.errors import LedgerUnavailable
from ledger.recorders import sqlite_schema
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
from ledger.recorders.placing import assign_positions
from ledger.recorders.searching import version_at_statement
from ledger.recorders.sqlite_file import SQLiteLedgerDatastore, advice, is_read_only
from ledger.recorders.sqlite_schema import COLUMNS
from ledger.recorders.sqlite_watch import SQLiteWatch

_LAST: Final = (
    f"(SELECT max(position) FROM {EVENTS_TABLE}),"
    f" (SELECT recorded_at FROM {EVENTS_TABLE} ORDER BY position DESC LIMIT 1)"
)
_VERSION: Final = f"(SELECT max(originator_version) FROM {EVENTS_TABLE} WHERE originator_id = ?)"
_STANDING: Final = (
    f"SELECT {_LAST}, (SELECT json_group_object(value, coalesce("
    f"(SELECT max(originator_version) FROM {EVENTS_TABLE} WHERE originator_id = value), 0)) FROM json_each(?))"
)
_FEW: Final = 4
"""So many subjects are named one by one: taking an array apart in SQL costs as much. Either way the answer is one row,
and events go in `_ROWS` to a statement, because the driver lets other threads go first at each of both."""
_ROWS: Final = 64
_INSERT: Final = f"INSERT INTO {EVENTS_TABLE} ({COLUMNS}) VALUES (?,?,?,?,?,?,?)"
_ANOTHER: Final = ",(?,?,?,?,?,?,?)"
_json: Final = msgspec.json.Encoder().encode

_VERSION_AT: Final = version_at_statement(EVENTS_TABLE, ":subject", ":position")


class _Seen(NamedTuple):
    """What a transaction that is still open was shown, and all the keys that it asked for."""

    preconditions: AppendPreconditions
    keys: frozenset[tuple[str, str]]

    def covers(self, subjects: AbstractSet[str], keys: AbstractSet[tuple[str, str]]) -> bool:
        return self.preconditions.versions.keys() >= subjects and self.keys >= keys


class _Held(threading.local):
    """This thread's transaction, where it has one that several calls share."""

    cursor: sqlite3.Cursor | None = None
    seen: _Seen | None = None


class SQLiteLedgerRecorder(SQLiteApplicationRecorder):
    datastore: SQLiteLedgerDatastore

    def __init__(self, datastore: SQLiteLedgerDatastore) -> None:
        super().__init__(datastore, events_table_name=EVENTS_TABLE)
        self._held = _Held()
        datastore.check_header()

    def construct_create_table_statements(self) -> list[str]:
        return [statement for step in sqlite_schema.STEPS for statement in step]

    def meta(self) -> dict[str, str]:
        with self.transaction(commit=False) as cursor:
            return sqlite_schema.read_meta(cursor, self.datastore.path)

    def create(self, meta: Mapping[str, str]) -> None:
        if self.meta():
            return
        with self._translated():
            self.datastore.make_wal()
        with self._writing() as cursor:
            if sqlite_schema.is_empty(cursor):
                sqlite_schema.create(cursor, meta)

    def migrate(self) -> None:
        path = self.datastore.path
        with self.transaction(commit=False) as cursor:
            format_ = sqlite_schema.read_format(cursor, path)
        while 0 < format_ < sqlite_schema.FORMAT:
            try:
                with self._writing() as cursor:
                    format_ = sqlite_schema.migrate(cursor, path)
            except LedgerUnavailable as error:
                if not is_read_only(error):
                    raise
                if format_ < sqlite_schema.READS_FROM:
                    raise sqlite_schema.unreadable(format_, path) from error
                return

    def append(self, proposals: Sequence[Proposal], clock: Clock) -> list[Outcome]:
        held = self._held
        if held.cursor is None:
            with self._writing() as cursor:
                return _append(cursor, proposals, clock, None)
        # What it showed until now is not how it will stand.
        seen, held.seen = held.seen, None
        if not self.datastore.lock(held.cursor):
            seen = None
        return _append(held.cursor, proposals, clock, seen)

    def append_preconditions(
        self, subjects: Iterable[str], keys: Iterable[tuple[str, str]] = ()
    ) -> AppendPreconditions:
        held = self._held
        if held.cursor is None:
            with self._translated(), self.datastore.reading() as cursor:
                return _preconditions(cursor, subjects, keys)
        asked = frozenset(keys)
        preconditions = _preconditions(held.cursor, subjects, asked)
        held.seen = _Seen(preconditions, asked)
        return preconditions

    def restore(
        self, entries: Sequence[Entry], personal: Sequence[tuple[int, PersonalData]], *, importing: str, last: bool
    ) -> None:
        try:
            with self._writing() as cursor:
                _require_importing(cursor, importing)
                _insert_events(cursor, entries)
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
            sqlite_schema.drop(cursor)

    def head(self) -> Head:
        with self.transaction(commit=False) as cursor:
            return _head(cursor)

    def change_token(self) -> ChangeToken:
        change_token = self.change_token_at_once()
        if change_token is not None:
            return change_token
        with self._translated():
            return self.datastore.data_version()

    def change_token_at_once(self) -> ChangeToken | None:
        return self.datastore.data_version_at_once()

    def watch(self) -> SQLiteWatch:
        return SQLiteWatch(self.change_token, self.head)

    def entry(self, position: int) -> Entry | None:
        entries = self.page(position - 1, 1, position)
        return entries[0] if entries else None

    def page(self, after: int, limit: int, until: int | None = None) -> list[Entry]:
        with self.transaction(commit=False) as cursor:
            return _entries(
                cursor,
                f"SELECT {COLUMNS} FROM {EVENTS_TABLE} WHERE position > ? AND position <= ? ORDER BY position LIMIT ?",
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
        topic: str | None = None,
    ) -> list[Entry]:
        of_topic = "" if topic is None else " AND topic = ?"
        with self.transaction(commit=False) as cursor:
            return _entries(
                cursor,
                f"SELECT {COLUMNS} FROM {EVENTS_TABLE}"
                f" WHERE originator_id = ? AND originator_version > ? AND originator_version <= ?{of_topic}"
                f" ORDER BY originator_version {'DESC' if newest_first else 'ASC'} LIMIT ?",
                (subject, after, _highest(until), *([topic] if topic else []), -1 if limit is None else limit),
            )

    def version_at(self, subject: str, position: int) -> int:
        with self.transaction(commit=False) as cursor:
            row = cursor.execute(_VERSION_AT, {"subject": subject, "position": position}).fetchone()
            return int(row[0])

    def versions(self, subjects: Iterable[str]) -> dict[str, int]:
        with self.transaction(commit=False) as cursor:
            return dict(_preconditions(cursor, subjects, ()).versions)

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
    def transaction(
        self, *, commit: bool, durable: bool = True, patience_s: float | None = None
    ) -> Iterator[sqlite3.Cursor]:
        held = self._held
        if held.cursor is not None:
            if commit:
                held.seen = None
            with closing(held.cursor.connection.cursor()) as one_more:
                yield one_more
            return
        with self._translated():
            if commit:
                with self.datastore.writing(durable=durable, patience_s=patience_s) as raw:
                    yield raw
            else:
                self.datastore.require_same_file()
                with self.datastore.transaction(commit=False) as cursor, cursor as raw:
                    yield raw

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        held = self._held
        with self._writing() as cursor:
            held.cursor = cursor
            try:
                yield
            finally:
                held.cursor = held.seen = None

    @contextmanager
    def deciding(self) -> Iterator[None]:
        held = self._held
        with self._translated(), self.datastore.deciding() as cursor:
            held.cursor = cursor
            try:
                yield
            finally:
                held.cursor = held.seen = None

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
                f"SELECT {COLUMNS} FROM {EVENTS_TABLE} WHERE position > ? AND position <= ?{wanted}"
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
        """The library's way in: keywords `decided` and `clock`, answering positions. Raises `Stale`."""
        marked = [stored.state for stored in stored_events]
        (outcome,) = self.append([Proposal(kwargs["decided"], marked, None)], kwargs["clock"])
        if not isinstance(outcome, Recorded):
            raise Stale
        return range(outcome.first_position, outcome.first_position + len(marked))

    def events_in_range(self, after: int, until: int, above: str = "", upto: str | None = None) -> list[RawEvent]:
        with self.transaction(commit=False) as cursor:
            cursor.row_factory = None
            # In the order of the table: by the index of subjects, each event would be another page. Blobs sort behind
            # every text.
            return cursor.execute(
                f"SELECT position, originator_id, originator_version, state FROM {EVENTS_TABLE} NOT INDEXED"
                " WHERE position > ? AND position <= ? AND originator_id > ? AND originator_id <= ? ORDER BY position",
                (after, until, above, b"" if upto is None else upto),
            ).fetchall()

    def leaves(self, after: int, until: int) -> bytes:
        where = f"FROM {EVENTS_TABLE} NOT INDEXED WHERE position > ? AND position <= ?"
        with self.transaction(commit=False) as cursor:
            cursor.row_factory = None
            try:
                # One row instead of thousands. In the order of the table, which is that of positions.
                row = cursor.execute(f"SELECT CAST(group_concat(state, x'0a') AS BLOB) {where}", (after, until))
                return row.fetchone()[0] or b""
            except sqlite3.DataError:
                # Together too large for one.
                rows = cursor.execute(f"SELECT state {where} ORDER BY position", (after, until))
                return b"\n".join([leaf for (leaf,) in rows])

    def leaves_of(self, subjects: Sequence[str], until: int) -> bytes:
        statement = (
            f"SELECT state FROM {EVENTS_TABLE} WHERE originator_id = ? AND position <= ? ORDER BY originator_version"
        )
        with self.transaction(commit=False) as cursor:
            cursor.row_factory = None
            return b"\n".join([leaf for one in subjects for (leaf,) in cursor.execute(statement, (one, until))])

    def subjects_at(self, positions: Sequence[int]) -> list[str]:
        statement = f"SELECT originator_id FROM {EVENTS_TABLE} WHERE position = ?"
        with self.transaction(commit=False) as cursor:
            rows = (cursor.execute(statement, (position,)).fetchone() for position in positions)
            return sorted({str(row[0]) for row in rows if row is not None})

    def close(self) -> None:
        self.datastore.close()


def _entries(cursor: sqlite3.Cursor, statement: str, parameters: tuple[object, ...]) -> list[Entry]:
    cursor.row_factory = None
    return [Entry(*row) for row in cursor.execute(statement, parameters)]


def _head(cursor: sqlite3.Cursor) -> Head:
    row = cursor.execute(f"SELECT position, recorded_at FROM {EVENTS_TABLE} ORDER BY position DESC LIMIT 1").fetchone()
    return Head(0, None) if row is None else Head(row[0], row[1])


def _preconditions(
    cursor: sqlite3.Cursor, subjects: Iterable[str], keys: Iterable[tuple[str, str]]
) -> AppendPreconditions:
    wanted = list(subjects)
    cursor.row_factory = None
    versions: dict[str, int]
    if len(wanted) > _FEW:
        ((position, recorded_at, found),) = cursor.execute(_STANDING, (_json(wanted),)).fetchall()
        versions = msgspec.json.decode(found)
    else:
        statement = f"SELECT {', '.join((_LAST, *[_VERSION] * len(wanted)))}"
        ((position, recorded_at, *highest),) = cursor.execute(statement, wanted).fetchall()
        versions = {subject: version or 0 for subject, version in zip(wanted, highest, strict=True)}
    known = {key: found for key in keys if (found := _known_submission(cursor, *key)) is not None}
    return AppendPreconditions(Head(position or 0, recorded_at), versions, known)


def _append(cursor: sqlite3.Cursor, proposals: Sequence[Proposal], clock: Clock, seen: _Seen | None) -> list[Outcome]:
    """Under the write lock. `seen`: what this transaction was shown of how it stands."""
    subjects = {subject for proposal in proposals for subject in proposal.decided.versions}
    keys = {key for proposal in proposals if (key := proposal.key) is not None}
    preconditions = (
        _preconditions(cursor, subjects, keys)
        if seen is None or not seen.covers(subjects, keys)
        else seen.preconditions
    )
    outcomes = assign_positions(proposals, preconditions, clock.now())
    rows: list[tuple[object, ...]] = []
    personal: list[tuple[int, PersonalData]] = []
    submissions: list[tuple[object, ...]] = []
    for proposal, outcome in zip(proposals, outcomes, strict=True):
        if not isinstance(outcome, Recorded):
            continue
        first, recorded_at = outcome
        drafts = proposal.decided.drafts
        leaves = completed(proposal.marked, first, recorded_at)
        for position, (draft, leaf) in enumerate(zip(drafts, leaves, strict=True), first):
            rows.append((position, draft.subject, draft.version, draft.topic, leaf, recorded_at, leaf_hash(leaf)))
            if draft.personal is not None:
                personal.append((position, draft.personal))
        if proposal.idempotency is not None:
            submissions.append((*proposal.idempotency, first, len(drafts), recorded_at))
    _insert_events(cursor, rows)
    if personal:
        _insert_personal(cursor, personal)
    if submissions:
        cursor.executemany("INSERT INTO submissions VALUES (?,?,?,?,?,?)", submissions)
    return outcomes


def _insert_events(cursor: sqlite3.Cursor, rows: Sequence[tuple[object, ...]]) -> None:
    start, count = 0, _ROWS
    while start < len(rows):
        # Halved where fewer are left: so there are few statements, which the connection keeps.
        while count > len(rows) - start:
            count //= 2
        cursor.execute(_INSERT + _ANOTHER * (count - 1), tuple(chain.from_iterable(rows[start : start + count])))
        start += count


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
