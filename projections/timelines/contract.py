"""The contract between the stored timelines and a database. Back ends share it and its tests, not a base class.

A subject is a row with the steps of all its settings; long timelines go on in rows of blocks (see `encoding`). One
transaction writes the rows and the tracked position (up to where the ledger is projected), so every event is projected
exactly once, however many processes project and whenever one of them is killed.

All tables exist on a side: the live one; while a rebuild runs, one beside it that takes the live one's place in one
transaction; and one that holds the replaced tables until they are cleared away.
Proved by tests/contracts/test_timelines.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Final, Literal, NamedTuple, Protocol

from ledger.errors import LedgerUnavailable
from projections.temporal.changes import Change
from projections.temporal.in_force import Timelines

FORMAT: Final = "subjects.v2"
"""Of the rows. Rows of another format are never read: they are made anew."""

Side = Literal["timelines", "timelines_rebuild", "timelines_old"]
"""The prefix of the tables' names."""
LIVE: Final[Side] = "timelines"
REBUILD: Final[Side] = "timelines_rebuild"
OLD: Final[Side] = "timelines_old"

Axis = Literal["current", "in_force"]


class NotStored(LedgerUnavailable):
    """The database holds no timelines that this version can read: a rebuild makes them."""


class TablesMissing(NotStored):
    def __init__(self) -> None:
        super().__init__(
            "the stored timelines are not there: they were dropped, or another rebuild just ended; run inforce rebuild"
        )


class OtherFormat(NotStored):
    def __init__(self) -> None:
        super().__init__("the stored timelines were written by another version of inforce; run inforce rebuild")


class SwapBusy(Exception):
    """A reader holds the live tables: try again in a moment. Nothing was changed."""


class SubjectRow(NamedTuple):
    """A subject that has a history: the version and the position of its last event."""

    subject: str
    version: int
    position: int


class StoredRow(NamedTuple):
    """A `SubjectRow` with the steps of the subject's settings, encoded by `encoding`."""

    subject: str
    version: int
    position: int
    settings: bytes


class BlockRow(NamedTuple):
    """A full block of a timeline's steps, which hold in [start, until). Instants in µs."""

    subject: str
    setting: str
    axis: Axis
    number: int
    start: int
    until: int
    steps: bytes


class SubjectChange(NamedTuple):
    """The change of a subject's setting at one instant. A `change` to no value is a clear."""

    subject: str
    setting: str
    change: Change


class Tail(NamedTuple):
    """The blocks of a subject's setting with number `first` or higher, on both axes."""

    subject: str
    setting: str
    first: int


class Update(NamedTuple):
    """One transaction of a projector: deletes `removed`, inserts `blocks`, and writes `subjects` over older rows."""

    removed: Sequence[Tail]
    blocks: Sequence[BlockRow]
    subjects: Sequence[StoredRow]
    position: int


class TimelineReader(Protocol):
    """The tables within one transaction: everything read through it is of one moment."""

    def exists(self, side: Side) -> bool: ...

    def tracked(self, side: Side = LIVE) -> int:
        """The position up to which events are projected. Raises `NotStored`."""

    def claim(self, side: Side) -> str | None:
        """The claim of the rebuild that fills the side. Raises `TablesMissing`."""

    def timelines(self, subjects: Iterable[str]) -> dict[str, dict[str, Timelines]]:
        """Subject → setting → live timelines; subjects and settings without any step are absent.

        Raises `LedgerCorrupt` if the rows do not make a timeline.
        """

    def changes_at(self, axis: Axis, at: int, kind: str | None = None) -> Iterator[SubjectChange]:
        """The change at `at` (µs) of every subject (of `kind`) and setting, by subject and setting in byte order."""

    def subjects(
        self, kind: str | None = None, prefix: str | None = None, after: str | None = None, limit: int | None = None
    ) -> list[SubjectRow]:
        """Subjects that have a history, in byte order; `prefix` is of the whole reference, `after` a subject."""

    def rows(self, side: Side = LIVE) -> Iterator[StoredRow]:
        """Every subject's row, in byte order."""

    def blocks(self, side: Side = LIVE) -> Iterator[BlockRow]:
        """Every block, in the order of its key."""

    def load(self, side: Side, subjects: Iterable[str]) -> dict[str, StoredRow]:
        """The rows of those of these subjects that have one."""

    def load_blocks(self, side: Side, subject: str, setting: str | None = None, first: int = 0) -> list[BlockRow]:
        """The subject's blocks (of one setting) with number `first` or higher, in the order of their key."""

    def differing(self, limit: int, *, among: Iterable[str] | None = None, but: Iterable[str] = ()) -> list[str]:
        """The first subjects, in byte order, with a row that differs between the live and the rebuilt side.

        Compares the subjects `among` (None: all) without those in `but`.
        """

    def count_subjects(self, side: Side) -> int: ...


class TimelineWriter(TimelineReader, Protocol):
    """The tables of some sides within a transaction in which nothing else writes them."""

    def create(self, side: Side) -> None:
        """Makes the side's tables, empty and at position 0, unless they are there."""

    def drop(self, side: Side) -> None:
        """Drops the side's tables, if they are there; on SQLite at a cost that grows with them."""

    def begin(self, side: Side, claim: str) -> None:
        """Makes the side's tables, which must not be there, for the rebuild with this claim to fill.

        No position is tracked until `complete`.
        """

    def fill(self, side: Side, subjects: Sequence[StoredRow], blocks: Sequence[BlockRow]) -> None:
        """Inserts rows that are not there yet, in the order of their keys."""

    def complete(self, side: Side, position: int) -> None:
        """Records that everything up to `position` is filled in."""

    def write(self, side: Side, update: Update) -> None: ...

    def set_aside(self, side: Side) -> None:
        """Makes the side's tables, of whatever format, the old ones, which must have been cleared before."""

    def clear_old(self, rows: int) -> bool:
        """Deletes about so many rows of the old tables, and drops a table with its last row. Returns whether all old
        tables are gone."""

    def swap(self) -> None:
        """Makes the rebuilt tables the live ones, and those the old ones. Raises `SwapBusy`."""


class Backend(Protocol):
    """Every call raises `LedgerUnavailable` if the database cannot answer, and `NotStored`."""

    def reading(self, *sides: Side) -> AbstractContextManager[TimelineReader]: ...

    def writing(self, *sides: Side, patience_s: float | None = None) -> AbstractContextManager[TimelineWriter]:
        """Waits until nothing else writes these sides: at most about `patience_s` for each lock, if given, else as long
        as the database is configured to. Commits unless an error leaves it.

        Do not read the ledger inside: on SQLite, another thread that waits to write blocks this one's reads.
        """

    def write_probe(self) -> Callable[[], object] | None:
        """A function whose value changes when another writer has recorded events; None if a writer of timelines blocks
        no other writer."""
