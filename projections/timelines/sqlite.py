"""Stored timelines in the ledger's own SQLite file. Implements `sql.Backend`.

The one writer is the holder of SQLite's write lock. A reader keeps the state at which it began (WAL), so a swap never
waits for readers, and none of them sees half of one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, ClassVar, Final

from ledger.recorders.sqlite import SQLiteLedgerRecorder
from projections.timelines.contract import (
    LIVE,
    OLD,
    REBUILD,
    OtherFormat,
    Side,
    TablesMissing,
    Tail,
)
from projections.timelines.engine import BLOCK, OF_ANY_FORMAT, ROW, TABLES, UPSERT, Row, existing
from projections.timelines.sql import TimelineReader, TimelineWriter

_WRITER_CACHE_KIB: Final = 65_536
"""Rows arrive in the order of events and are stored in the order of subjects: most pages are used again."""


class SQLiteTimelines:
    def __init__(self, recorder: SQLiteLedgerRecorder) -> None:
        self._recorder = recorder

    @contextmanager
    def reading(self, *sides: Side) -> Iterator[TimelineReader]:
        with self._recorder.transaction(commit=False) as cursor, _engine(cursor) as engine:
            yield TimelineReader(engine)

    @contextmanager
    def writing(self, *sides: Side, patience_s: float | None = None) -> Iterator[TimelineWriter]:
        # A power cut may undo this together with the tracked position; then it is projected again.
        transaction = self._recorder.transaction(commit=True, durable=False, patience_s=patience_s)
        with transaction as cursor, _engine(cursor) as engine:
            cursor.execute(f"PRAGMA cache_size=-{_WRITER_CACHE_KIB}")
            yield TimelineWriter(engine)

    def write_probe(self) -> Callable[[], object]:
        return lambda: self._recorder.head().position


@contextmanager
def _engine(cursor: sqlite3.Cursor) -> Iterator[SQLiteEngine]:
    cursor.row_factory = None
    try:
        with closing(SQLiteEngine(cursor)) as engine:
            yield engine
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            raise TablesMissing from error
        if "no such column" in str(error):
            raise OtherFormat from error
        raise


class SQLiteEngine:
    """Implements `engine.Engine`."""

    prefix: ClassVar = ""
    existing: ClassVar = "SELECT name FROM sqlite_schema WHERE name"
    in_list: ClassVar = "IN (SELECT value FROM json_each(?))"
    unlike: ClassVar = "IS NOT"
    make: ClassVar[Sequence[str]] = (
        # With row ids: a row of some hundred bytes fits a page of such a table, and overflows in one without.
        "CREATE TABLE {side}_subjects ("
        " subject TEXT PRIMARY KEY NOT NULL, version INTEGER NOT NULL, position INTEGER NOT NULL,"
        " block_sum INTEGER NOT NULL, checksum INTEGER NOT NULL, settings BLOB NOT NULL)",
        "CREATE TABLE {side}_blocks ("
        " subject TEXT NOT NULL, setting TEXT NOT NULL, axis TEXT NOT NULL CHECK (axis IN ('current', 'in_force')),"
        " number INTEGER NOT NULL, start_us INTEGER NOT NULL, until_us INTEGER NOT NULL, checksum INTEGER NOT NULL,"
        " steps BLOB NOT NULL,"
        " PRIMARY KEY (subject, setting, axis, number))",
        "CREATE TABLE {side}_tracking (name TEXT PRIMARY KEY NOT NULL, position INTEGER NOT NULL,"
        " checksum INTEGER NOT NULL)",
    )

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor
        self._streams: list[sqlite3.Cursor] = []

    @staticmethod
    def list_parameter(values: Iterable[str]) -> str:
        return json.dumps(list(values))

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        return self._cursor.execute(statement, parameters)

    def stream(self, statement: str, parameters: Sequence[Any] = ()) -> Iterator[Any]:
        cursor = self._cursor.connection.cursor()
        self._streams.append(cursor)
        cursor.row_factory = None
        return iter(cursor.execute(statement, parameters))

    def fill(self, side: Side, subjects: Sequence[Row], blocks: Sequence[Row]) -> None:
        self._cursor.executemany(f"INSERT INTO {side}_subjects ({ROW}) VALUES (?,?,?,?,?,?)", subjects)
        self._cursor.executemany(f"INSERT INTO {side}_blocks ({BLOCK}) VALUES (?,?,?,?,?,?,?,?)", blocks)

    def write(self, side: Side, removed: Sequence[Tail], blocks: Sequence[Row], subjects: Sequence[Row]) -> None:
        self._cursor.executemany(
            f"DELETE FROM {side}_blocks WHERE subject = ? AND setting = ? AND number >= ?", removed
        )
        self._cursor.executemany(f"INSERT INTO {side}_blocks ({BLOCK}) VALUES (?,?,?,?,?,?,?,?)", blocks)
        self._cursor.executemany(f"INSERT INTO {side}_subjects ({ROW}) VALUES (?,?,?,?,?,?) {UPSERT}", subjects)

    def is_as_made(self, side: Side) -> bool:
        rows = self._cursor.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'").fetchall()
        # A renamed table is quoted.
        stored = {name: str(sql).replace('"', "") for name, sql in rows}
        made = [statement.format(side=side) for statement in self.make]
        return all(stored.get(statement.split()[2]) == statement for statement in made)

    def set_aside(self, side: Side) -> None:
        for table in existing(self, side):
            self._cursor.execute(f"ALTER TABLE {side}_{table} RENAME TO {OLD}_{table}")

    def clear_old(self, rows: int) -> bool:
        # Dropping a large table takes seconds, and others cannot write meanwhile.
        for table in sorted(existing(self, OLD), key=OF_ANY_FORMAT.index):
            name = f"{OLD}_{table}"
            of_key = "SELECT group_concat(name, ', ') FROM pragma_table_info(?) WHERE pk > 0"
            (key,) = self._cursor.execute(of_key, (name,)).fetchone()
            keys = f"SELECT {key} FROM {name} ORDER BY {key} LIMIT ?"
            if self._cursor.execute(f"DELETE FROM {name} WHERE ({key}) IN ({keys})", (rows,)).rowcount >= rows:
                return False
            self._cursor.execute(f"DROP TABLE {name}")
        return True

    def swap(self) -> None:
        self.set_aside(LIVE)
        for table in TABLES:
            self._cursor.execute(f"ALTER TABLE {REBUILD}_{table} RENAME TO {LIVE}_{table}")

    def close(self) -> None:
        """Closes the cursors of `stream`: reading on after the transaction raises, instead of ending early."""
        for cursor in self._streams:
            cursor.close()
