"""What the stored timelines ask of a database. Back ends share this contract and its tests, not a base class.

A stored timeline is a row for every step that has a change, on two axes; the times about which nothing was ever said
are the gaps between rows. Rows and the tracked position (up to where the ledger is projected) are written by one
transaction, so every event is projected exactly once whoever else projects, and whenever anything is killed.

All tables exist on a side: the live one, and, while a rebuild runs, one beside it that takes the live one's place in
one transaction. Proved by tests/contracts/test_timelines.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, Literal, NamedTuple, Protocol

from ledger.errors import LedgerUnavailable
from projections.changes import Change
from projections.in_force import Timelines

FORMAT: Final = "steps.v1"
"""The form of the rows. Rows of another form are never read; a rebuild replaces them."""

Side = Literal["timelines", "timelines_rebuild"]
"""The prefix of the tables' names."""
LIVE: Final[Side] = "timelines"
REBUILD: Final[Side] = "timelines_rebuild"

Axis = Literal["current", "in_force"]
Pair = tuple[str, str]
"""A subject and a setting."""


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


class StepRow(NamedTuple):
    """`change` (the JSON of a `Change`, with its position beside it) is in force in [start, until). Instants in µs."""

    subject: str
    setting: str
    axis: Axis
    start: int
    until: int
    position: int
    change: str


RawStep = tuple[str, str, Axis, int, int, int, str]
"""A `StepRow` as the database gives it: a projector handles too many to name the parts of each."""


class StepKey(NamedTuple):
    """What a `StepRow` is found by."""

    subject: str
    setting: str
    axis: Axis
    start: int


class SubjectRow(NamedTuple):
    """A subject that has a history: the version and the position of its last event."""

    subject: str
    version: int
    position: int


class Held(NamedTuple):
    """What holds for a subject's setting at the instant asked for. A `change` to no value is a clear."""

    subject: str
    setting: str
    change: Change


class Difference(NamedTuple):
    """A row that is not the same on both sides; None: it is not there. `setting` and `axis` None: a subject's row."""

    subject: str
    setting: str | None
    axis: Axis | None
    live: StepRow | SubjectRow | None
    rebuilt: StepRow | SubjectRow | None


class Update(NamedTuple):
    """What one transaction of a projector does: `removed` first, then `written` and `subjects` over what is there."""

    removed: Sequence[StepKey]
    written: Sequence[RawStep]
    subjects: Sequence[SubjectRow]
    position: int


class Reading(Protocol):
    """The tables within one transaction: everything read through it is one moment's."""

    def exists(self, side: Side) -> bool: ...

    def tracked(self, side: Side = LIVE) -> int:
        """The position up to which events are projected. Raises `NotStored`."""

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

    def rows(self, side: Side = LIVE) -> Iterator[StepRow]:
        """Every step, in the order of its key."""

    def heads(self, side: Side = LIVE) -> Iterator[SubjectRow]:
        """Every subject, in byte order."""

    def moved(self, after: int) -> set[str]:
        """The subjects whose last event, on either side, is later than position `after`."""

    def differences(
        self, limit: int, *, among: Iterable[str] | None = None, but: Iterable[str] = ()
    ) -> list[Difference]:
        """The first rows that are not the same on both sides, of the subjects `among` (None: all) `but` some."""

    def count_subjects(self, side: Side) -> int: ...


class Writing(Reading, Protocol):
    """The tables of some sides within a transaction in which nobody else writes them."""

    def create(self, side: Side) -> None:
        """Makes the side's tables, empty and at position 0, unless they are there."""

    def drop(self, side: Side) -> None:
        """Takes the side's tables away, if they are there."""

    def load(self, side: Side, pairs: Mapping[Pair, int]) -> Mapping[Pair, list[RawStep]]:
        """The steps of each pair that end at its instant (µs) or later, by axis and start."""

    def write(self, side: Side, update: Update) -> None: ...

    def swap(self) -> None:
        """The rebuilt tables become the live ones. Raises `SwapBusy`."""


class Backend(Protocol):
    """Raises `LedgerUnavailable` from every call where the database cannot answer, and `NotStored`."""

    def reading(self, *sides: Side) -> AbstractContextManager[Reading]: ...

    def writing(self, *sides: Side) -> AbstractContextManager[Writing]:
        """Waits until nobody else writes these sides. Commits unless an error leaves it.

        Do not read the ledger inside: on SQLite another thread that waits to write keeps this one's reads waiting.
        """
