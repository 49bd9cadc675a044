"""What the stored timelines ask of a database. Back ends share this contract and its tests, not a base class.

A subject is a row with the steps of all its settings; long timelines go on in rows of blocks (see `form`). Rows and the
tracked position (up to where the ledger is projected) are written by one transaction, so every event is projected
exactly once whoever else projects, and whenever anything is killed.

All tables exist on a side: the live one; while a rebuild runs, one beside it that takes the live one's place in one
transaction; and one that holds what was replaced until it is cleared away.
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
"""The form of the rows. Rows of another form are never read: they are made anew."""

Side = Literal["timelines", "timelines_rebuild", "timelines_old"]
"""The prefix of the tables' names."""
LIVE: Final[Side] = "timelines"
REBUILD: Final[Side] = "timelines_rebuild"
OLD: Final[Side] = "timelines_old"

Axis = Literal["current", "in_force"]


class NotStored(LedgerUnavailable):
    """There are no timelines here that this code can read: a rebuild makes them."""


class NotThere(NotStored):
    def __init__(self) -> None:
        super().__init__(
            "the stored timelines are not there: they were dropped, or another rebuild just ended; run inforce rebuild"
        )


class OtherFormat(NotStored):
    def __init__(self) -> None:
        super().__init__("the stored timelines were written by another version of inforce; run inforce rebuild")


class SwapBusy(Exception):
    """Somebody is reading the live tables and will not be interrupted: try again in a moment. Nothing was changed."""


class SubjectRow(NamedTuple):
    """A subject that has a history: the version and the position of its last event."""

    subject: str
    version: int
    position: int


class StoredRow(NamedTuple):
    """A `SubjectRow` with the steps of the subject's settings in the form of `form`."""

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


class Held(NamedTuple):
    """What holds for a subject's setting at the instant asked for. A `change` to no value is a clear."""

    subject: str
    setting: str
    change: Change


class Tail(NamedTuple):
    """The blocks of a subject's setting with number `first` or higher, on both axes."""

    subject: str
    setting: str
    first: int


class Update(NamedTuple):
    """What one transaction of a projector does: `removed` first, then `blocks`, and `subjects` over what is there."""

    removed: Sequence[Tail]
    blocks: Sequence[BlockRow]
    subjects: Sequence[StoredRow]
    position: int


class Reading(Protocol):
    """The tables within one transaction: everything read through it is one moment's."""

    def exists(self, side: Side) -> bool: ...

    def tracked(self, side: Side = LIVE) -> int:
        """The position up to which events are projected. Raises `NotStored`."""

    def claim(self, side: Side) -> str | None:
        """Whose rebuild fills the side. Raises `NotThere`."""

    def timelines(self, subjects: Iterable[str]) -> dict[str, dict[str, Timelines]]:
        """Subject → setting → live timelines; subjects and settings without any step are absent.

        Raises `LedgerCorrupt` where the rows do not make a timeline.
        """

    def held(self, axis: Axis, at: int, kind: str | None = None) -> Iterator[Held]:
        """What holds at `at` (µs), for every subject (of `kind`) and setting, by subject and setting in byte order."""

    def subjects(
        self, kind: str | None = None, prefix: str | None = None, after: str | None = None, limit: int | None = None
    ) -> list[SubjectRow]:
        """Subjects that have a history, in byte order; `prefix` is of the whole reference, `after` a subject."""

    def rows(self, side: Side = LIVE) -> Iterator[StoredRow]:
        """Every subject's row, in byte order."""

    def blocks(self, side: Side = LIVE) -> Iterator[BlockRow]:
        """Every block, in the order of its key."""

    def load(self, side: Side, subjects: Iterable[str]) -> dict[str, StoredRow]:
        """The rows of these subjects, as far as there are any."""

    def load_blocks(self, side: Side, subject: str, setting: str | None = None, first: int = 0) -> list[BlockRow]:
        """The subject's blocks (of one setting) with number `first` or higher, in the order of their key."""

    def differing(self, limit: int, *, among: Iterable[str] | None = None, but: Iterable[str] = ()) -> list[str]:
        """The first subjects, in byte order, of which any row is not the same on the live and the rebuilt side: of
        the subjects `among` (None: all) `but` some."""

    def count_subjects(self, side: Side) -> int: ...


class Writing(Reading, Protocol):
    """The tables of some sides within a transaction in which nobody else writes them."""

    def create(self, side: Side) -> None:
        """Makes the side's tables, empty and at position 0, unless they are there."""

    def drop(self, side: Side) -> None:
        """Takes the side's tables away, if they are there; at a cost that grows with them."""

    def begin(self, side: Side, claim: str) -> None:
        """Makes the side's tables, which must not be there, to be filled by who has the claim: no position is tracked
        until `complete`."""

    def fill(self, side: Side, subjects: Sequence[StoredRow], blocks: Sequence[BlockRow]) -> None:
        """Adds rows that are not there yet, in the order of their keys."""

    def complete(self, side: Side, position: int) -> None:
        """Everything up to `position` is filled in."""

    def write(self, side: Side, update: Update) -> None: ...

    def set_aside(self, side: Side) -> None:
        """The side's tables, of whatever form, become the old ones, which must have been cleared away."""

    def clear_old(self, rows: int) -> bool:
        """Takes away about so many rows of the old tables, and with the last ones the tables. Whether they are gone."""

    def swap(self) -> None:
        """The rebuilt tables become the live ones, and those the old ones. Raises `SwapBusy`."""


class Backend(Protocol):
    """Raises `LedgerUnavailable` from every call where the database cannot answer, and `NotStored`."""

    def reading(self, *sides: Side) -> AbstractContextManager[Reading]: ...

    def writing(self, *sides: Side, patience_s: float | None = None) -> AbstractContextManager[Writing]:
        """Waits until nobody else writes these sides, but for no lock much longer than `patience_s`: without it, as
        long as the database is set to. Commits unless an error leaves it.

        Do not read the ledger inside: on SQLite another thread that waits to write keeps this one's reads waiting.
        """

    def others(self) -> Callable[[], object] | None:
        """Answers another value after somebody recorded events; None where who writes timelines is in nobody's way."""
