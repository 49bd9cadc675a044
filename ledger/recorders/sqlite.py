"""The embedded ledger: one SQLite file in WAL mode with synchronous=FULL.

The recorder is a subclass of the eventsourcing library's recorder whose one table also holds position, recorded_at and
leaf hash, so one statement writes an event and its place. The append lock is SQLite's own write lock, taken by BEGIN
IMMEDIATE before anything is read: a deferred BEGIN that reads first fails at once if another writer is quicker.
Proved by tests/contracts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from eventsourcing.persistence import StoredEvent

from ledger.clock import Clock
from ledger.drafts import PersonalData
from ledger.errors import LedgerUnavailable
from ledger.recorders import sqlite_schema
from ledger.recorders.contract import (
    IMPORTING,
    AppendPreconditions,
    AppendRequest,
    Entry,
    Outcome,
    Placement,
    PreconditionFailed,
)
from ledger.recorders.sqlite_append import CachedPreconditions, append, insert_events, insert_personal, preconditions_of
from ledger.recorders.sqlite_file import COMPANIONS, is_read_only
from ledger.recorders.sqlite_reader import SQLiteLedgerReader, head_of


class SQLiteLedgerRecorder(SQLiteLedgerReader):
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

    def append(self, requests: Sequence[AppendRequest], clock: Clock) -> list[Outcome]:
        shared = self._open
        if shared.cursor is None:
            with self._writing() as cursor:
                return append(cursor, requests, clock, None)
        # The append changes the state that was read.
        cached, shared.cached = shared.cached, None
        if not self.datastore.upgrade_to_write(shared.cursor):
            cached = None
        return append(shared.cursor, requests, clock, cached)

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
            with self._writing() as cursor:
                _require_importing(cursor, importing)
                insert_events(cursor, entries)
                insert_personal(cursor, personal)
                if last:
                    cursor.execute("DELETE FROM ledger_meta WHERE name = ?", (IMPORTING,))
        except sqlite3.IntegrityError:
            raise PreconditionFailed from None

    def drop(self, importing: str | None) -> None:
        with self._writing() as cursor:
            _require_importing(cursor, importing)
            if importing is None and head_of(cursor).position:
                raise PreconditionFailed
            sqlite_schema.drop(cursor)

    def delete_file(self) -> None:
        self.close()
        for companion in (*COMPANIONS, ""):
            self.file.with_name(self.file.name + companion).unlink(missing_ok=True)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with self._writing() as cursor, self._shared(cursor):
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

    def _writing(self) -> AbstractContextManager[sqlite3.Cursor]:
        return self.transaction(commit=True)

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """The eventsourcing library's write method, with the keywords `plan` and `clock`. Answers positions.

        Raises `PreconditionFailed` if the plan is stale.
        """
        templates = [stored.state for stored in stored_events]
        (outcome,) = self.append([AppendRequest(kwargs["plan"], templates, None)], kwargs["clock"])
        if not isinstance(outcome, Placement):
            raise PreconditionFailed
        return range(outcome.first_position, outcome.first_position + len(templates))


def _require_importing(cursor: sqlite3.Cursor, importing: str | None) -> None:
    tables = cursor.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'ledger_meta'").fetchone()[0]
    row = tables and cursor.execute("SELECT value FROM ledger_meta WHERE name = ?", (IMPORTING,)).fetchone()
    if not tables or (row[0] if row else None) != importing:
        raise PreconditionFailed
