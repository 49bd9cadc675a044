"""The tables of stored timelines within a transaction. An `Engine` holds the differences of a database.

Proved by tests/contracts/test_timelines.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, ClassVar, Final, Protocol

from projections.temporal.in_force import Timelines
from projections.timelines.contract import (
    FORMAT,
    LIVE,
    REBUILD,
    Axis,
    BlockRow,
    OtherFormat,
    Side,
    StoredRow,
    SubjectChange,
    SubjectRow,
    Update,
)
from projections.timelines.encoding import changes_at, decode_timelines

TABLES: Final = ("subjects", "blocks", "tracking")
OF_ANY_FORMAT: Final = (*TABLES, "steps")
"""`steps` belonged to an earlier format."""
ROW: Final = "subject, version, position, settings"
BLOCK: Final = "subject, setting, axis, number, start_us, until_us, steps"
UPSERT: Final = (
    "ON CONFLICT (subject) DO UPDATE"
    " SET version = excluded.version, position = excluded.position, settings = excluded.settings"
)

# No code point sorts above it, neither in SQLite's order of bytes nor in PostgreSQL's collation "C".
_LAST: Final = "\U0010ffff"
_KEY: Final = "b.subject = a.subject AND b.setting = a.setting AND b.axis = a.axis AND b.number = a.number"
_NO_LIMIT: Final = 2**62
_CLAIMS: Final = "rebuild %"

Row = tuple[Any, ...]


class Result(Protocol):
    def fetchone(self) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...


class Engine(Protocol):
    """The differences of one database, within one transaction. Statements have `?` for each parameter."""

    prefix: ClassVar[str]
    """Before the name of a table."""
    existing: ClassVar[str]
    """SELECTs the names of all tables, and ends in the name of the column, for a condition."""
    in_list: ClassVar[str]
    """Compares with the members of a parameter that `list_parameter` makes."""
    unlike: ClassVar[str]
    """The operator that tells values apart, NULL included."""
    make: ClassVar[Sequence[str]]
    """Statements that make the tables of a `{side}`."""

    @staticmethod
    def list_parameter(values: Iterable[str]) -> object: ...

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Result: ...

    def stream(self, statement: str, parameters: Sequence[Any] = ()) -> Iterator[Row]:
        """The rows, which other statements do not end, and which need not all fit into memory."""

    def fill(self, side: Side, subjects: Sequence[StoredRow], blocks: Sequence[BlockRow]) -> None:
        """Inserts rows that are not there yet, in the order of their keys."""

    def write(self, side: Side, update: Update) -> None: ...

    def set_aside(self, side: Side) -> None:
        """Makes the side's tables, of whatever format, the old ones, which must have been cleared before."""

    def clear_old(self, rows: int) -> bool:
        """Deletes about so many rows of the old tables, and drops a table with its last row. Returns whether all old
        tables are gone."""

    def swap(self) -> None:
        """Makes the rebuilt tables the live ones, and those the old ones. Raises `SwapBusy`."""


def existing(engine: Engine, side: Side, tables: Sequence[str] = OF_ANY_FORMAT) -> list[str]:
    """Those of the tables that the side has."""
    names = engine.list_parameter(f"{side}_{table}" for table in tables)
    rows = engine.execute(f"{engine.existing} {engine.in_list}", (names,))
    return [name.removeprefix(f"{side}_") for (name,) in rows]


def drop(engine: Engine, side: Side) -> None:
    for table in OF_ANY_FORMAT:
        engine.execute(f"DROP TABLE IF EXISTS {engine.prefix}{side}_{table}")


class TimelineReader:
    """The tables within one transaction: everything read through it is of one moment."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def exists(self, side: Side) -> bool:
        return len(existing(self._engine, side, TABLES)) == len(TABLES)

    def tracked(self, side: Side = LIVE) -> int:
        """The position up to which events are projected. Raises `NotStored`."""
        statement = f"SELECT position FROM {self._table(side, 'tracking')} WHERE name = ?"
        row = self._engine.execute(statement, (FORMAT,)).fetchone()
        if row is None:
            raise OtherFormat
        position: int = row[0]
        return position

    def claim(self, side: Side) -> str | None:
        """The claim of the rebuild that fills the side. Raises `TablesMissing`."""
        statement = f"SELECT name FROM {self._table(side, 'tracking')} WHERE name LIKE ?"
        row = self._engine.execute(statement, (_CLAIMS,)).fetchone()
        return None if row is None else str(row[0]).partition(" ")[2]

    def timelines(self, subjects: Iterable[str]) -> dict[str, dict[str, Timelines]]:
        """Subject → setting → live timelines; subjects and settings without any step are absent.

        Raises `LedgerCorrupt` if the rows do not make a timeline.
        """
        by_subject: dict[str, dict[str, Timelines]] = {}
        for subject, row in self.load(LIVE, subjects).items():
            timelines = decode_timelines(subject, row.settings, partial(self.load_blocks, LIVE, subject))
            if timelines:
                by_subject[subject] = timelines
        return by_subject

    def changes_at(self, axis: Axis, at: int, kind: str | None = None) -> Iterator[SubjectChange]:
        """The change at `at` (µs) of every subject (of `kind`) and setting, by subject and setting in byte order."""
        bounds = subject_range(kind, None)
        if bounds is None:
            return iter(())
        low, high, _ = bounds
        rows = self._engine.stream(
            f"SELECT subject, settings FROM {self._table(LIVE, 'subjects')} WHERE subject >= ? AND subject <= ?"
            " ORDER BY subject",
            (low, high),
        )
        covering = self._engine.stream(
            f"SELECT subject, setting, axis, steps FROM {self._table(LIVE, 'blocks')}"
            " WHERE subject >= ? AND subject <= ? AND start_us <= ? AND until_us > ?"
            " ORDER BY subject, setting, axis, number",
            (low, high, at, at),
        )
        return changes_at(rows, covering, axis, at)

    def subjects(
        self, kind: str | None = None, prefix: str | None = None, after: str | None = None, limit: int | None = None
    ) -> list[SubjectRow]:
        """Subjects that have a history, in byte order; `prefix` is of the whole reference, `after` a subject."""
        bounds = subject_range(kind, prefix, after)
        if bounds is None:
            return []
        rows = self._engine.execute(
            f"SELECT subject, version, position FROM {self._table(LIVE, 'subjects')}"
            " WHERE subject >= ? AND subject <= ? AND subject > ? ORDER BY subject LIMIT ?",
            (*bounds, _NO_LIMIT if limit is None else limit),
        )
        return [SubjectRow(*row) for row in rows]

    def rows(self, side: Side = LIVE) -> Iterator[StoredRow]:
        """Every subject's row, in byte order."""
        statement = f"SELECT {ROW} FROM {self._table(side, 'subjects')} ORDER BY subject"
        return map(StoredRow._make, self._engine.stream(statement))

    def blocks(self, side: Side = LIVE) -> Iterator[BlockRow]:
        """Every block, in the order of its key."""
        statement = f"SELECT {BLOCK} FROM {self._table(side, 'blocks')} ORDER BY subject, setting, axis, number"
        return map(BlockRow._make, self._engine.stream(statement))

    def load(self, side: Side, subjects: Iterable[str]) -> dict[str, StoredRow]:
        """The rows of those of these subjects that have one."""
        wanted = list(subjects)
        # A question about one subject is the most frequent one, and a list costs SQLite more than the row.
        one = len(wanted) == 1
        rows = self._engine.execute(
            f"SELECT {ROW} FROM {self._table(side, 'subjects')} WHERE subject {'= ?' if one else self._engine.in_list}",
            (wanted[0] if one else self._engine.list_parameter(wanted),),
        )
        return {row[0]: StoredRow._make(row) for row in rows}

    def load_blocks(self, side: Side, subject: str, setting: str | None = None, first: int = 0) -> list[BlockRow]:
        """The subject's blocks (of one setting) with number `first` or higher, in the order of their key."""
        which = "" if setting is None else " AND setting = ?"
        rows = self._engine.execute(
            f"SELECT {BLOCK} FROM {self._table(side, 'blocks')} WHERE subject = ? AND number >= ?{which}"
            " ORDER BY subject, setting, axis, number",
            (subject, first) if setting is None else (subject, first, setting),
        )
        return [BlockRow._make(row) for row in rows]

    def differing(self, limit: int, *, among: Iterable[str] | None = None, but: Iterable[str] = ()) -> list[str]:
        """The first subjects, in byte order, with a row that differs between the live and the rebuilt side.

        Compares the subjects `among` (None: all) without those in `but`.
        """
        which = f" AND NOT a.subject {self._engine.in_list}"
        parameters = [self._engine.list_parameter(but)]
        if among is not None:
            which += f" AND a.subject {self._engine.in_list}"
            parameters.append(self._engine.list_parameter(among))
        subjects: set[str] = set()
        for statement in self._differing():
            rows = self._engine.execute(f"{statement}{which} ORDER BY a.subject LIMIT ?", (*parameters, limit))
            subjects.update(subject for (subject,) in rows)
        return sorted(subjects)[:limit]

    def _differing(self) -> Iterator[str]:
        """SELECTs of subjects with rows that differ between the sides, each ending in a condition."""
        for name, distinct, key, values in (
            ("subjects", "", "b.subject = a.subject", ("version", "position", "settings")),
            ("blocks", "DISTINCT ", _KEY, ("start_us", "until_us", "steps")),
        ):
            live, rebuilt = self._table(LIVE, name), self._table(REBUILD, name)
            unlike = " OR ".join(f"b.{column} {self._engine.unlike} a.{column}" for column in values)
            yield f"SELECT {distinct}a.subject FROM {live} a LEFT JOIN {rebuilt} b ON {key} WHERE ({unlike})"
            yield f"SELECT {distinct}a.subject FROM {rebuilt} a WHERE NOT EXISTS (SELECT 1 FROM {live} b WHERE {key})"

    def count_subjects(self, side: Side) -> int:
        count: int = self._engine.execute(f"SELECT count(*) FROM {self._table(side, 'subjects')}").fetchone()[0]
        return count

    def _table(self, side: Side, name: str) -> str:
        return f"{self._engine.prefix}{side}_{name}"


class TimelineWriter(TimelineReader):
    """The tables of some sides within a transaction in which nothing else writes them."""

    def create(self, side: Side) -> None:
        """Makes the side's tables, empty and at position 0, unless they are there."""
        if not self.exists(side):
            self.drop(side)
            self._make(side, FORMAT)

    def begin(self, side: Side, claim: str) -> None:
        """Makes the side's tables, which must not be there, for the rebuild with this claim to fill.

        No position is tracked until `complete`.
        """
        self._make(side, f"rebuild {claim}")

    def _make(self, side: Side, name: str) -> None:
        for statement in self._engine.make:
            self._engine.execute(statement.format(side=side))
        self._track(side, name, 0)

    def complete(self, side: Side, position: int) -> None:
        """Records that everything up to `position` is filled in."""
        self._track(side, FORMAT, position)

    def _track(self, side: Side, name: str, position: int) -> None:
        self._engine.execute(f"INSERT INTO {self._table(side, 'tracking')} VALUES (?, ?)", (name, position))

    def drop(self, side: Side) -> None:
        """Drops the side's tables, if they are there; on SQLite at a cost that grows with them."""
        drop(self._engine, side)

    def fill(self, side: Side, subjects: Sequence[StoredRow], blocks: Sequence[BlockRow]) -> None:
        self._engine.fill(side, subjects, blocks)

    def write(self, side: Side, update: Update) -> None:
        self._engine.write(side, update)
        statement = f"UPDATE {self._table(side, 'tracking')} SET position = ? WHERE name = ?"
        self._engine.execute(statement, (update.position, FORMAT))

    def set_aside(self, side: Side) -> None:
        self._engine.set_aside(side)

    def clear_old(self, rows: int) -> bool:
        return self._engine.clear_old(rows)

    def swap(self) -> None:
        self._engine.swap()
        self._engine.execute(f"DELETE FROM {self._table(LIVE, 'tracking')} WHERE name LIKE ?", (_CLAIMS,))


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


def subject_range(kind: str | None, prefix: str | None, after: str | None = None) -> tuple[str, str, str] | None:
    """(low, high, above): the subjects asked for have low <= subject <= high and subject > above. None: no subject can
    match."""
    texts = [text for text in (kind, prefix, after) if text]
    if not all(text.isascii() and text.isprintable() for text in texts):
        return None
    lows = [f"{kind}:" if kind else "", prefix or ""]
    highs = [low + _LAST for low in lows]
    return max(lows), min(highs), after or ""
