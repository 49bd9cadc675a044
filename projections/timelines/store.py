"""Stored timelines: every subject's settings over valid time, in the ledger's own database.

One module per database, one contract (`contract.py`), one test suite (tests/contracts/test_timelines.py).
They are disposable: `projections.timelines.projector` makes them from the ledger, and makes them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Final, NamedTuple

from ledger.errors import LedgerUnavailable
from ledger.recorders.sqlite import SQLiteLedgerRecorder
from ledger.store import Ledger
from projections.temporal.in_force import Timelines
from projections.timelines.contract import (
    LIVE,
    OLD,
    Axis,
    Backend,
    Held,
    NotStored,
    NotThere,
    Reading,
    Side,
    SubjectRow,
    Writing,
)
from projections.timelines.throttle import Pace

__all__ = ["Held", "Snapshot", "SubjectRow", "TimelineStore", "open_timelines"]


CLEARED_ROWS: Final = 5000
"""In one transaction, of what was replaced."""


class Snapshot(NamedTuple):
    """What held at one instant everywhere, as of ledger position `position`. `held` is read as it is iterated."""

    position: int
    held: Iterator[Held]


class TimelineStore:
    """The stored timelines of one ledger. Safe to use from many threads; closes nothing.

    Raises `LedgerUnavailable` from every call where the database cannot answer, and `LedgerCorrupt` where rows do not
    make a timeline.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def reading(self, *sides: Side) -> AbstractContextManager[Reading]:
        """One moment of the tables, for questions that depend on each other's answers. No sides: the live one."""
        return self._backend.reading(*(sides or (LIVE,)))

    def writing(self, *sides: Side, patience_s: float | None = None) -> AbstractContextManager[Writing]:
        """A transaction of the sides' only writer: for `projections.timelines.projector`."""
        return self._backend.writing(*sides, patience_s=patience_s)

    def pace(self) -> Pace:
        """For who writes in many turns, one after the other."""
        return Pace(self._backend.others())

    def tracked(self) -> int:
        """The position up to which the ledger is projected."""
        with self.reading() as tables:
            return tables.tracked()

    def subject(self, subject: str) -> tuple[int, dict[str, Timelines]]:
        """(tracked position, setting → timelines), of one moment. A setting of which no step is left is absent."""
        position, found = self.several([subject])
        return position, found.get(subject, {})

    def several(self, subjects: Iterable[str]) -> tuple[int, dict[str, dict[str, Timelines]]]:
        """(tracked position, subject → setting → timelines), of one moment; subjects without any are absent."""
        with self.reading() as tables:
            return tables.tracked(), tables.timelines(subjects)

    @contextmanager
    def snapshot(self, axis: Axis, at: int, kind: str | None = None) -> Iterator[Snapshot]:
        """What holds at `at` (µs) for every subject (of `kind`) and setting, by subject and setting in byte order.

        Of one moment, and readable only within the `with`. Clears are among what holds: their value is None.
        """
        with self.reading() as tables:
            yield Snapshot(tables.tracked(), tables.held(axis, at, kind))

    def subjects(
        self, kind: str | None = None, prefix: str | None = None, after: str | None = None, limit: int | None = None
    ) -> tuple[int, list[SubjectRow]]:
        """(tracked position, subjects that have a history in byte order): see `Reading.subjects`."""
        with self.reading() as tables:
            return tables.tracked(), tables.subjects(kind, prefix, after, limit)


def open_timelines(ledger: Ledger) -> TimelineStore:
    """The timelines stored with `ledger`; their tables are made where there are none of this form yet, so that after an
    upgrade the next projector makes them anew.

    Raises `LedgerUnavailable`, also where there are none and the ledger cannot be written.
    """
    store = TimelineStore(_backend(ledger))
    try:
        store.tracked()
    except NotStored as missing:
        try:
            make_anew(store)
        except LedgerUnavailable as error:
            what = "has no stored timelines yet" if isinstance(missing, NotThere) else "has those of another version"
            detail = f"this ledger {what}, and none can be made: {error.detail}"
            raise LedgerUnavailable(detail) from error
    return store


def make_anew(store: TimelineStore) -> None:
    """Live tables of this form, empty where there were none of it before."""
    while True:
        clear_old(store)
        with store.writing(LIVE, OLD) as tables:
            if not tables.clear_old(CLEARED_ROWS):
                # Somebody else set theirs aside since.
                continue
            if tables.exists(LIVE):
                with suppress(NotStored):
                    tables.tracked(LIVE)
                    return
            tables.set_aside(LIVE)
            tables.create(LIVE)
        clear_old(store)
        return


def clear_old(store: TimelineStore) -> None:
    """Takes away what was replaced, in many transactions, so that others can write meanwhile."""
    pace = store.pace()
    while True:
        with pace, store.writing(OLD) as tables:
            if tables.clear_old(CLEARED_ROWS):
                return


def _backend(ledger: Ledger) -> Backend:
    recorder = ledger.recorder
    if isinstance(recorder, SQLiteLedgerRecorder):
        from projections.timelines.sqlite import SQLiteTimelines

        return SQLiteTimelines(recorder)
    # Only now: psycopg is an extra.
    from projections.timelines.postgres import PostgresTimelines

    return PostgresTimelines(recorder)
