"""Stored timelines in the ledger's own SQLite file. Implements `contract.py`.

The one writer is the holder of SQLite's write lock. A reader keeps the state at which it began (WAL), so a swap never
waits for readers, and none of them sees half of one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, Final

from ledger.recorders.sqlite import SQLiteLedgerRecorder
from projections.temporal.in_force import Timelines
from projections.timelines.contract import (
    FORMAT,
    LIVE,
    OLD,
    REBUILD,
    Axis,
    BlockRow,
    OtherFormat,
    Side,
    StoredRow,
    SubjectChange,
    SubjectRow,
    TablesMissing,
    Update,
)
from projections.timelines.encoding import changes_at, decode_timelines
from projections.timelines.sql import differing, subject_range

_TABLES: Final = ("subjects", "blocks", "tracking")
_OF_ANY_FORMAT: Final = (*_TABLES, "steps")
"""`steps` belonged to an earlier format."""
_ROW: Final = "subject, version, position, settings"
_BLOCK: Final = "subject, setting, axis, number, start_us, until_us, steps"
_CLAIM: Final = "rebuild"
_WRITER_CACHE_KIB: Final = 65_536
"""Rows arrive in the order of events and are stored in the order of subjects: most pages are used again."""


class SQLiteTimelines:
    def __init__(self, recorder: SQLiteLedgerRecorder) -> None:
        self._recorder = recorder

    @contextmanager
    def reading(self, *sides: Side) -> Iterator[SQLiteTables]:
        with self._recorder.transaction(commit=False) as cursor, _tables(cursor) as tables:
            yield tables

    @contextmanager
    def writing(self, *sides: Side, patience_s: float | None = None) -> Iterator[SQLiteTables]:
        # A power cut may undo this together with the tracked position; then it is projected again.
        transaction = self._recorder.transaction(commit=True, durable=False, patience_s=patience_s)
        with transaction as cursor, _tables(cursor) as tables:
            cursor.execute(f"PRAGMA cache_size=-{_WRITER_CACHE_KIB}")
            yield tables

    def write_probe(self) -> Callable[[], object]:
        return lambda: self._recorder.head().position


@contextmanager
def _tables(cursor: sqlite3.Cursor) -> Iterator[SQLiteTables]:
    cursor.row_factory = None
    try:
        with closing(SQLiteTables(cursor)) as tables:
            yield tables
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            raise TablesMissing from error
        if "no such column" in str(error):
            raise OtherFormat from error
        raise


class SQLiteTables:
    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor
        self._streams: list[sqlite3.Cursor] = []

    def exists(self, side: Side) -> bool:
        return self._count_tables(side, _TABLES) == len(_TABLES)

    def _count_tables(self, side: Side, tables: Sequence[str]) -> int:
        names = json.dumps([f"{side}_{table}" for table in tables])
        statement = "SELECT count(*) FROM sqlite_schema WHERE name IN (SELECT value FROM json_each(?))"
        count: int = self._one(statement, names)
        return count

    def tracked(self, side: Side = LIVE) -> int:
        row = self._cursor.execute(f"SELECT position FROM {side}_tracking WHERE name = ?", (FORMAT,)).fetchone()
        if row is None:
            raise OtherFormat
        position: int = row[0]
        return position

    def claim(self, side: Side) -> str | None:
        row = self._cursor.execute(f"SELECT name FROM {side}_tracking WHERE name LIKE '{_CLAIM} %'").fetchone()
        return None if row is None else str(row[0]).partition(" ")[2]

    def timelines(self, subjects: Iterable[str]) -> dict[str, dict[str, Timelines]]:
        by_subject: dict[str, dict[str, Timelines]] = {}
        for subject, row in self.load(LIVE, subjects).items():
            timelines = decode_timelines(subject, row.settings, partial(self.load_blocks, LIVE, subject))
            if timelines:
                by_subject[subject] = timelines
        return by_subject

    def changes_at(self, axis: Axis, at: int, kind: str | None = None) -> Iterator[SubjectChange]:
        bounds = subject_range(kind, None)
        if bounds is None:
            return iter(())
        low, high, _ = bounds
        rows = self._stream(
            f"SELECT subject, settings FROM {LIVE}_subjects WHERE subject >= ? AND subject <= ? ORDER BY subject",
            (low, high),
        )
        covering = self._stream(
            f"SELECT subject, setting, axis, steps FROM {LIVE}_blocks WHERE subject >= ? AND subject <= ?"
            " AND start_us <= ? AND until_us > ? ORDER BY subject, setting, axis, number",
            (low, high, at, at),
        )
        return changes_at(rows, covering, axis, at)

    def subjects(
        self, kind: str | None = None, prefix: str | None = None, after: str | None = None, limit: int | None = None
    ) -> list[SubjectRow]:
        bounds = subject_range(kind, prefix, after)
        if bounds is None:
            return []
        rows = self._cursor.execute(
            f"SELECT subject, version, position FROM {LIVE}_subjects"
            " WHERE subject >= ? AND subject <= ? AND subject > ? ORDER BY subject LIMIT ?",
            (*bounds, -1 if limit is None else limit),
        )
        return [SubjectRow(*row) for row in rows]

    def rows(self, side: Side = LIVE) -> Iterator[StoredRow]:
        return map(StoredRow._make, self._stream(f"SELECT {_ROW} FROM {side}_subjects ORDER BY subject"))

    def blocks(self, side: Side = LIVE) -> Iterator[BlockRow]:
        statement = f"SELECT {_BLOCK} FROM {side}_blocks ORDER BY subject, setting, axis, number"
        return map(BlockRow._make, self._stream(statement))

    def load(self, side: Side, subjects: Iterable[str]) -> dict[str, StoredRow]:
        statement = f"SELECT {_ROW} FROM {side}_subjects WHERE subject = ?"
        execute = self._cursor.execute
        rows = (execute(statement, (subject,)).fetchone() for subject in subjects)
        return {row[0]: StoredRow._make(row) for row in rows if row is not None}

    def load_blocks(self, side: Side, subject: str, setting: str | None = None, first: int = 0) -> list[BlockRow]:
        which = "" if setting is None else " AND setting = ?"
        rows = self._cursor.execute(
            f"SELECT {_BLOCK} FROM {side}_blocks WHERE subject = ? AND number >= ?{which}"
            " ORDER BY subject, setting, axis, number",
            (subject, first) if setting is None else (subject, first, setting),
        )
        return [BlockRow._make(row) for row in rows]

    def differing(self, limit: int, *, among: Iterable[str] | None = None, but: Iterable[str] = ()) -> list[str]:
        which = " AND a.subject NOT IN (SELECT value FROM json_each(?))"
        parameters: list[Any] = [json.dumps(list(but))]
        if among is not None:
            which += " AND a.subject IN (SELECT value FROM json_each(?))"
            parameters.append(json.dumps(list(among)))
        subjects: set[str] = set()
        for statement in differing(lambda side, table: f"{side}_{table}", "IS NOT"):
            rows = self._cursor.execute(f"{statement}{which} ORDER BY a.subject LIMIT ?", [*parameters, limit])
            subjects.update(subject for (subject,) in rows)
        return sorted(subjects)[:limit]

    def count_subjects(self, side: Side) -> int:
        count: int = self._one(f"SELECT count(*) FROM {side}_subjects")
        return count

    def create(self, side: Side) -> None:
        if self.exists(side):
            return
        self.drop(side)
        self._make(side)
        self.complete(side, 0)

    def begin(self, side: Side, claim: str) -> None:
        self._make(side)
        self._cursor.execute(f"INSERT INTO {side}_tracking VALUES (?, 0)", (f"{_CLAIM} {claim}",))

    def _make(self, side: Side) -> None:
        # With row ids: a row of some hundred bytes fits a page of such a table, and overflows in one without.
        self._cursor.execute(
            f"CREATE TABLE {side}_subjects ("
            " subject TEXT PRIMARY KEY NOT NULL, version INTEGER NOT NULL, position INTEGER NOT NULL,"
            " settings BLOB NOT NULL)"
        )
        self._cursor.execute(
            f"CREATE TABLE {side}_blocks ("
            " subject TEXT NOT NULL, setting TEXT NOT NULL, axis TEXT NOT NULL CHECK (axis IN ('current', 'in_force')),"
            " number INTEGER NOT NULL, start_us INTEGER NOT NULL, until_us INTEGER NOT NULL, steps BLOB NOT NULL,"
            " PRIMARY KEY (subject, setting, axis, number))"
        )
        self._cursor.execute(
            f"CREATE TABLE {side}_tracking (name TEXT PRIMARY KEY NOT NULL, position INTEGER NOT NULL)"
        )

    def complete(self, side: Side, position: int) -> None:
        self._cursor.execute(f"INSERT INTO {side}_tracking VALUES (?, ?)", (FORMAT, position))

    def drop(self, side: Side) -> None:
        for table in _OF_ANY_FORMAT:
            self._cursor.execute(f"DROP TABLE IF EXISTS {side}_{table}")

    def fill(self, side: Side, subjects: Sequence[StoredRow], blocks: Sequence[BlockRow]) -> None:
        self._cursor.executemany(f"INSERT INTO {side}_subjects VALUES (?,?,?,?)", subjects)
        self._cursor.executemany(f"INSERT INTO {side}_blocks VALUES (?,?,?,?,?,?,?)", blocks)

    def write(self, side: Side, update: Update) -> None:
        self._cursor.executemany(
            f"DELETE FROM {side}_blocks WHERE subject = ? AND setting = ? AND number >= ?", update.removed
        )
        self._cursor.executemany(f"INSERT INTO {side}_blocks VALUES (?,?,?,?,?,?,?)", update.blocks)
        self._cursor.executemany(
            f"INSERT INTO {side}_subjects VALUES (?,?,?,?) ON CONFLICT (subject) DO UPDATE"
            " SET version = excluded.version, position = excluded.position, settings = excluded.settings",
            update.subjects,
        )
        self._cursor.execute(f"UPDATE {side}_tracking SET position = ? WHERE name = ?", (update.position, FORMAT))

    def set_aside(self, side: Side) -> None:
        for table in _OF_ANY_FORMAT:
            if self._count_tables(side, [table]):
                self._cursor.execute(f"ALTER TABLE {side}_{table} RENAME TO {OLD}_{table}")

    def clear_old(self, rows: int) -> bool:
        # Dropping a large table takes seconds, and others cannot write meanwhile.
        for table in _OF_ANY_FORMAT:
            if not self._count_tables(OLD, [table]):
                continue
            name = f"{OLD}_{table}"
            key = self._one("SELECT group_concat(name, ', ') FROM pragma_table_info(?) WHERE pk > 0", name)
            keys = f"SELECT {key} FROM {name} ORDER BY {key} LIMIT ?"
            if self._cursor.execute(f"DELETE FROM {name} WHERE ({key}) IN ({keys})", (rows,)).rowcount >= rows:
                return False
            self._cursor.execute(f"DROP TABLE {name}")
        return True

    def swap(self) -> None:
        self._cursor.execute(f"DELETE FROM {REBUILD}_tracking WHERE name LIKE '{_CLAIM} %'")
        self.set_aside(LIVE)
        for table in _TABLES:
            self._cursor.execute(f"ALTER TABLE {REBUILD}_{table} RENAME TO {LIVE}_{table}")

    def _one(self, statement: str, *parameters: Any) -> Any:
        return self._cursor.execute(statement, parameters).fetchone()[0]

    def _stream(self, statement: str, parameters: tuple[Any, ...] = ()) -> Iterator[Any]:
        """Rows on their own cursor, so that other statements can run while they are read."""
        cursor = self._cursor.connection.cursor()
        self._streams.append(cursor)
        cursor.row_factory = None
        return iter(cursor.execute(statement, parameters))

    def close(self) -> None:
        """Closes the cursors of `_stream`: reading on after the transaction raises, instead of ending early."""
        for cursor in self._streams:
            cursor.close()
