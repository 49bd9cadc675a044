"""Stored timelines: every subject's settings over valid time, in the ledger's own database.

There is one module for each database, one contract (`contract.py`), and one test suite
(tests/contracts/test_timelines.py). Stored timelines are disposable: the projector makes them from the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Final

from ledger.errors import LedgerUnavailable
from ledger.recorders import sqlite_file
from ledger.recorders.sqlite import SQLiteLedgerRecorder
from ledger.store import Ledger
from projections.temporal.in_force import Timelines
from projections.timelines.contract import (
    LIVE,
    OLD,
    Axis,
    DamagedRows,
    Listing,
    NotStored,
    OtherFormat,
    Side,
    TablesMissing,
)
from projections.timelines.missing import MissingTimelines
from projections.timelines.sound_rows import ChangesAt
from projections.timelines.sql import Backend, TimelineReader, TimelineWriter
from projections.timelines.throttle import Throttle

CLEARED_ROWS: Final = 5000
"""Of replaced tables, deleted in one transaction."""


class TimelineStore:
    """The stored timelines of one ledger. Safe to use from many threads; closes nothing.

    Every call raises `LedgerUnavailable` if the database cannot answer, and `DamagedRows` if rows are not what was
    written.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.damaged_rows = 0
        """The subjects whose rows were found damaged since the ledger was opened (see `heal`)."""

    def reading(self, *sides: Side) -> AbstractContextManager[TimelineReader]:
        """The tables of the sides (by default the live ones) at one moment, for several reads that must agree."""
        return self._backend.reading(*(sides or (LIVE,)))

    def writing(self, *sides: Side, patience_s: float | None = None) -> AbstractContextManager[TimelineWriter]:
        """A transaction of the sides' only writer: for the projector and for a rebuild."""
        return self._backend.writing(*sides, patience_s=patience_s)

    def throttle(self) -> Throttle:
        """For a writer of many transactions, one after the other."""
        return Throttle(self._backend.write_probe())

    def tracked(self) -> int:
        """The position up to which the ledger is projected."""
        with self.reading() as tables:
            return tables.tracked()

    def newest(self, subject: str) -> tuple[int, int] | None:
        """The version and the position of the subject's newest event as stored; None if that cannot be told."""
        try:
            with self.reading() as tables:
                row = tables.load(LIVE, [subject]).get(subject)
        except (LedgerUnavailable, DamagedRows):
            return None
        return None if row is None else (row.version, row.position)

    def subject(self, subject: str) -> tuple[int, dict[str, Timelines]]:
        """(tracked position, setting → timelines), of one moment. A setting without any step is absent."""
        position, by_subject = self.timelines([subject])
        return position, by_subject.get(subject, {})

    def timelines(self, subjects: Iterable[str]) -> tuple[int, dict[str, dict[str, Timelines]]]:
        """(tracked position, subject → setting → timelines), of one moment; subjects without any are absent."""
        with self.reading() as tables:
            return tables.tracked(), tables.timelines(subjects)

    @contextmanager
    def changes_at(self, axis: Axis, at: int, kind: str | None = None) -> Iterator[tuple[int, ChangesAt]]:
        """(tracked position, the change at `at` (µs) of every subject (of `kind`) and setting), of one moment.

        Changes are by subject and setting in byte order, clears included. They can be read only within the `with`.
        """
        with self.reading() as tables:
            yield tables.tracked(), tables.changes_at(axis, at, kind)

    def subjects(
        self, kind: str | None = None, prefix: str | None = None, after: str | None = None, limit: int | None = None
    ) -> tuple[int, Listing]:
        """(tracked position, subjects that have a history): see `TimelineReader.subjects`."""
        with self.reading() as tables:
            return tables.tracked(), tables.subjects(kind, prefix, after, limit)


def timelines_as_stored(ledger: Ledger) -> TimelineStore:
    """The timelines stored with `ledger`, of whatever format: nothing is made."""
    return TimelineStore(_backend(ledger))


def open_timelines(ledger: Ledger) -> TimelineStore:
    """The timelines stored with `ledger`. Makes empty tables if there are none of this format, as after an upgrade; the
    next projector fills them. If the ledger may not be written, they stay empty, and questions read the events.

    Raises `LedgerUnavailable`.
    """
    store = TimelineStore(_backend(ledger))
    ledger.newest_of = store.newest
    try:
        with store.reading() as tables:
            tables.tracked()
            if not tables.has_format(LIVE):
                raise OtherFormat
    except NotStored as missing:
        try:
            _create_live(store)
        except LedgerUnavailable as error:
            what = (
                "has no stored timelines yet" if isinstance(missing, TablesMissing) else "has those of another version"
            )
            detail = f"this ledger {what}, and none can be made: {error.detail}"
            if _may_not_write(ledger, error):
                return TimelineStore(MissingTimelines(detail))
            raise LedgerUnavailable(detail) from error
    return store


def _create_live(store: TimelineStore) -> None:
    """Makes empty live tables, unless there are some of this format."""
    with writing_without_old(store, LIVE) as tables:
        if tables.has_format(LIVE):
            with suppress(NotStored):
                tables.tracked(LIVE)
                return
        tables.set_aside(LIVE)
        tables.create(LIVE)
    clear_old(store)


@contextmanager
def writing_without_old(store: TimelineStore, *sides: Side) -> Iterator[TimelineWriter]:
    """A transaction of the only writer of these sides and of the old one, which has no tables left."""
    while True:
        clear_old(store)
        with store.writing(*sides, OLD) as tables:
            # Another process may have set its tables aside since.
            if tables.clear_old(CLEARED_ROWS):
                yield tables
                return


def clear_old(store: TimelineStore) -> None:
    """Deletes replaced tables in many transactions, so that others can write meanwhile."""
    throttle = store.throttle()
    while True:
        with throttle, store.writing(OLD) as tables:
            if tables.clear_old(CLEARED_ROWS):
                return


def _may_not_write(ledger: Ledger, error: LedgerUnavailable) -> bool:
    """Whether the error came from a file, a role or a server that may be read but not written."""
    if isinstance(ledger.recorder, SQLiteLedgerRecorder):
        return sqlite_file.is_read_only(error)
    from ledger.recorders import postgres_server

    return postgres_server.is_read_only(error)


def _backend(ledger: Ledger) -> Backend:
    recorder = ledger.recorder
    if isinstance(recorder, SQLiteLedgerRecorder):
        from projections.timelines.sqlite import SQLiteTimelines

        return SQLiteTimelines(recorder)
    # Imported only here, because psycopg is an extra.
    from projections.timelines.postgres import PostgresTimelines

    return PostgresTimelines(recorder)
