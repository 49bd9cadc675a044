"""The differences of the databases that hold the tables of stored timelines, within one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Final, Protocol

from projections.timelines.contract import Side, Tail

TABLES: Final = ("subjects", "blocks", "tracking")
OF_ANY_FORMAT: Final = (*TABLES, "steps")
"""`steps` belonged to an earlier format."""
ROW: Final = "subject, version, position, settings, block_sum, checksum"
BLOCK: Final = "subject, setting, axis, number, start_us, until_us, steps, checksum"
UPSERT: Final = (
    "ON CONFLICT (subject) DO UPDATE"
    " SET version = excluded.version, position = excluded.position, settings = excluded.settings,"
    " block_sum = excluded.block_sum, checksum = excluded.checksum"
)

# No code point sorts above it, neither in SQLite's order of bytes nor in PostgreSQL's collation "C".
_LAST: Final = "\U0010ffff"

Row = tuple[Any, ...]


class Result(Protocol):
    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

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

    def fill(self, side: Side, subjects: Sequence[Row], blocks: Sequence[Row]) -> None:
        """Inserts rows that are not there yet, in the order of their keys. Their values are those of `ROW`
        and `BLOCK`."""

    def write(self, side: Side, removed: Sequence[Tail], blocks: Sequence[Row], subjects: Sequence[Row]) -> None: ...

    def is_as_made(self, side: Side) -> bool:
        """Whether the side's tables are there, defined as today's format defines them."""

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


def subject_range(kind: str | None, prefix: str | None, after: str | None = None) -> tuple[str, str, str] | None:
    """(low, high, above): the subjects asked for have low <= subject <= high and subject > above. None: no subject can
    match."""
    texts = [text for text in (kind, prefix, after) if text]
    if not all(text.isascii() and text.isprintable() for text in texts):
        return None
    lows = [f"{kind}:" if kind else "", prefix or ""]
    highs = [low + _LAST for low in lows]
    return max(lows), min(highs), after or ""
