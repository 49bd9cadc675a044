"""The rows of stored timelines, their sides, and the errors if there are none.

A subject is a row with the steps of all its settings; long timelines go on in rows of blocks (see `encoding`). One
transaction writes the rows and the tracked position (up to where the ledger is projected), so every event is projected
exactly once, however many processes project and whenever one of them is killed.

All tables exist on a side: the live one; while a rebuild runs, one beside it that takes the live one's place in one
transaction; and one that holds the replaced tables until they are cleared away.
Proved by tests/contracts/test_timelines.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from ledger.errors import LedgerCorrupt, LedgerUnavailable
from projections.temporal.changes import Change

FORMAT: Final = "subjects.v5"
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


class TrackingDamaged(NotStored):
    def __init__(self) -> None:
        super().__init__("the position of the stored timelines is not what was written; run inforce rebuild")


class OtherFormat(NotStored):
    def __init__(self) -> None:
        super().__init__("the stored timelines were written by another version of inforce; run inforce rebuild")


class DamagedRows(LedgerCorrupt):
    """Rows of these subjects are not what was written, or are missing. Their events still say everything."""

    def __init__(self, subjects: Collection[str]) -> None:
        super().__init__(f"the stored timelines of {len(subjects)} subjects cannot be right; run inforce rebuild")
        self.subjects = frozenset(subjects)


class SwapBusy(Exception):
    """A reader holds the live tables: try again in a moment. Nothing was changed."""


class SubjectRow(NamedTuple):
    """A subject that has a history: the version and the position of its last event."""

    subject: str
    version: int
    position: int


class StoredRow(NamedTuple):
    """A `SubjectRow` with the steps of the subject's settings, encoded by `encoding`. `block_sum`: see `checksums`."""

    subject: str
    version: int
    position: int
    settings: bytes
    block_sum: int


class BlockRow(NamedTuple):
    """A full block of a timeline's steps, which hold in [start, until). Instants in µs."""

    subject: str
    setting: str
    axis: Axis
    number: int
    start: int
    until: int
    steps: bytes


class Listing(NamedTuple):
    """Sound rows in byte order, and the subjects of the same range whose rows are damaged or missing."""

    rows: list[SubjectRow]
    damaged: frozenset[str]


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
    events: Mapping[str, int]
    """Kind of subject → the number of events that were projected since the last update."""
