"""Stored timelines in the ledger's own SQLite file. Implements `contract.py`.

The one writer is whoever holds SQLite's write lock. Readers keep the moment at which they began (WAL), so a swap never
waits for them and they never see half of one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, Final

from ledger.recorders.contract import Recorder
from projections.in_force import Timelines
from projections.timelines.contract import (
    FORMAT,
    LIVE,
    REBUILD,
    Axis,
    Difference,
    Held,
    NotThere,
    OtherFormat,
    Pair,
    RawStep,
    Side,
    StepRow,
    SubjectRow,
    Update,
)
from projections.timelines.rows import by_setting, decode_change, first_of, subject_range

_TABLES: Final = ("steps", "subjects", "tracking")
_COLUMNS: Final = "subject, setting, axis, start_us, until_us, position, change"
_WRITER_CACHE_KIB: Final = 65_536
"""Rows arrive in the order of events and are stored in the order of subjects: most pages are wanted again."""


class SQLiteTimelines:
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    @contextmanager
    def reading(self, *sides: Side) -> Iterator[SQLiteTables]:
        with self._recorder.transaction(commit=False) as cursor, _tables(cursor) as tables:
            yield tables

    @contextmanager
    def writing(self, *sides: Side) -> Iterator[SQLiteTables]:
        with self._recorder.transaction(commit=True) as cursor, _tables(cursor) as tables:
            cursor.execute(f"PRAGMA cache_size=-{_WRITER_CACHE_KIB}")
            yield tables


@contextmanager
def _tables(cursor: sqlite3.Cursor) -> Iterator[SQLiteTables]:
    cursor.row_factory = None
    try:
        with closing(SQLiteTables(cursor)) as tables:
            yield tables
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            raise NotThere from error
        raise


class SQLiteTables:
    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor
        self._streams: list[sqlite3.Cursor] = []

    def exists(self, side: Side) -> bool:
        names = [f"{side}_{table}" for table in _TABLES]
        found = self._one("SELECT count(*) FROM sqlite_schema WHERE name IN (?,?,?)", names)
        return bool(found == len(_TABLES))

    def tracked(self, side: Side = LIVE) -> int:
        row = self._cursor.execute(f"SELECT position FROM {side}_tracking WHERE name = ?", (FORMAT,)).fetchone()
        if row is None:
            raise OtherFormat
        position: int = row[0]
        return position

    def timelines(self, subjects: Iterable[str]) -> dict[str, dict[str, Timelines]]:
        found: dict[str, dict[str, Timelines]] = {}
        for subject in subjects:
            rows = self._cursor.execute(
                f"SELECT {_COLUMNS} FROM {LIVE}_steps WHERE subject = ? ORDER BY setting, axis, start_us", (subject,)
            )
            found.update(by_setting(map(StepRow._make, rows)))
        return found

    def held(self, axis: Axis, at: int, kind: str | None = None) -> Iterator[Held]:
        wanted = subject_range(kind, None)
        if wanted is None:
            return iter(())
        low, high, _ = wanted
        rows = self._stream(
            f"SELECT subject, setting, change FROM {LIVE}_steps WHERE subject >= ? AND subject <= ? AND axis = ?"
            " AND start_us <= ? AND until_us > ? ORDER BY subject, setting",
            (low, high, axis, at, at),
        )
        return (Held(subject, setting, decode_change(change, subject)) for subject, setting, change in rows)

    def subjects(
        self, kind: str | None = None, prefix: str | None = None, after: str | None = None, limit: int | None = None
    ) -> list[SubjectRow]:
        wanted = subject_range(kind, prefix, after)
        if wanted is None:
            return []
        rows = self._cursor.execute(
            f"SELECT subject, version, position FROM {LIVE}_subjects"
            " WHERE subject >= ? AND subject <= ? AND subject > ? ORDER BY subject LIMIT ?",
            (*wanted, -1 if limit is None else limit),
        )
        return [SubjectRow(*row) for row in rows]

    def rows(self, side: Side = LIVE) -> Iterator[StepRow]:
        statement = f"SELECT {_COLUMNS} FROM {side}_steps ORDER BY subject, setting, axis, start_us"
        return map(StepRow._make, self._stream(statement))

    def heads(self, side: Side = LIVE) -> Iterator[SubjectRow]:
        statement = f"SELECT subject, version, position FROM {side}_subjects ORDER BY subject"
        return map(SubjectRow._make, self._stream(statement))

    def moved(self, after: int) -> set[str]:
        rows = self._cursor.execute(
            f"SELECT subject FROM {LIVE}_subjects WHERE position > ?"
            f" UNION SELECT subject FROM {REBUILD}_subjects WHERE position > ?",
            (after, after),
        )
        return {subject for (subject,) in rows}

    def differences(
        self, limit: int, *, among: Iterable[str] | None = None, but: Iterable[str] = ()
    ) -> list[Difference]:
        which = " AND a.subject NOT IN (SELECT value FROM json_each(?))"
        parameters = [json.dumps(list(but))]
        if among is not None:
            which += " AND a.subject IN (SELECT value FROM json_each(?))"
            parameters.append(json.dumps(list(among)))
        return first_of(
            self._step_differences(which, [*parameters, limit]),
            self._subject_differences(which, [*parameters, limit]),
            limit=limit,
        )

    def _step_differences(self, which: str, parameters: list[Any]) -> Iterator[Difference]:
        key = "b.subject = a.subject AND b.setting = a.setting AND b.axis = a.axis AND b.start_us = a.start_us"
        columns = ", ".join(f"a.{column}" for column in _COLUMNS.split(", "))
        rows = self._cursor.execute(
            f"SELECT {columns}, b.until_us, b.position, b.change FROM {LIVE}_steps a LEFT JOIN {REBUILD}_steps b"
            f" ON {key} WHERE (b.until_us IS NOT a.until_us OR b.position IS NOT a.position"
            f" OR b.change IS NOT a.change){which} ORDER BY a.subject, a.setting, a.axis, a.start_us LIMIT ?",
            parameters,
        )
        for row in rows.fetchall():
            live = StepRow(*row[:7])
            rebuilt = None if row[7] is None else StepRow(*row[:4], *row[7:])
            yield Difference(live.subject, live.setting, live.axis, live, rebuilt)
        rows = self._cursor.execute(
            f"SELECT {columns} FROM {REBUILD}_steps a WHERE NOT EXISTS (SELECT 1 FROM {LIVE}_steps b WHERE {key})"
            f"{which} ORDER BY a.subject, a.setting, a.axis, a.start_us LIMIT ?",
            parameters,
        )
        for row in rows.fetchall():
            missing = StepRow(*row)
            yield Difference(missing.subject, missing.setting, missing.axis, None, missing)

    def _subject_differences(self, which: str, parameters: list[Any]) -> Iterator[Difference]:
        rows = self._cursor.execute(
            f"SELECT a.subject, a.version, a.position, b.version, b.position FROM {LIVE}_subjects a"
            f" LEFT JOIN {REBUILD}_subjects b ON b.subject = a.subject"
            f" WHERE (b.version IS NOT a.version OR b.position IS NOT a.position){which} ORDER BY a.subject LIMIT ?",
            parameters,
        )
        for subject, version, position, *other in rows.fetchall():
            rebuilt = None if other[0] is None else SubjectRow(subject, *other)
            yield Difference(subject, None, None, SubjectRow(subject, version, position), rebuilt)
        rows = self._cursor.execute(
            f"SELECT a.subject, a.version, a.position FROM {REBUILD}_subjects a WHERE NOT EXISTS"
            f" (SELECT 1 FROM {LIVE}_subjects b WHERE b.subject = a.subject){which} ORDER BY a.subject LIMIT ?",
            parameters,
        )
        for row in rows.fetchall():
            yield Difference(row[0], None, None, None, SubjectRow(*row))

    def count_subjects(self, side: Side) -> int:
        count: int = self._one(f"SELECT count(*) FROM {side}_subjects")
        return count

    def create(self, side: Side) -> None:
        if self.exists(side):
            return
        self.drop(side)
        self._cursor.execute(
            f"CREATE TABLE {side}_steps ("
            " subject TEXT NOT NULL, setting TEXT NOT NULL, axis TEXT NOT NULL CHECK (axis IN ('current', 'in_force')),"
            " start_us INTEGER NOT NULL, until_us INTEGER NOT NULL, position INTEGER NOT NULL, change TEXT NOT NULL,"
            " PRIMARY KEY (subject, setting, axis, start_us)) WITHOUT ROWID"
        )
        self._cursor.execute(
            f"CREATE TABLE {side}_subjects ("
            " subject TEXT PRIMARY KEY, version INTEGER NOT NULL, position INTEGER NOT NULL) WITHOUT ROWID"
        )
        self._cursor.execute(f"CREATE TABLE {side}_tracking (name TEXT PRIMARY KEY, position INTEGER NOT NULL)")
        self._cursor.execute(f"INSERT INTO {side}_tracking VALUES (?, 0)", (FORMAT,))

    def drop(self, side: Side) -> None:
        for table in _TABLES:
            self._cursor.execute(f"DROP TABLE IF EXISTS {side}_{table}")

    def load(self, side: Side, pairs: Mapping[Pair, int]) -> Mapping[Pair, list[RawStep]]:
        statement = (
            f"SELECT {_COLUMNS} FROM {side}_steps WHERE subject = ? AND setting = ? AND until_us >= ?"
            " ORDER BY axis, start_us"
        )
        execute = self._cursor.execute
        return {pair: execute(statement, (*pair, instant)).fetchall() for pair, instant in pairs.items()}

    def write(self, side: Side, update: Update) -> None:
        self._cursor.executemany(
            f"DELETE FROM {side}_steps WHERE subject = ? AND setting = ? AND axis = ? AND start_us = ?", update.removed
        )
        self._cursor.executemany(f"INSERT OR REPLACE INTO {side}_steps VALUES (?,?,?,?,?,?,?)", update.written)
        self._cursor.executemany(f"INSERT OR REPLACE INTO {side}_subjects VALUES (?,?,?)", update.subjects)
        self._cursor.execute(f"UPDATE {side}_tracking SET position = ? WHERE name = ?", (update.position, FORMAT))

    def swap(self) -> None:
        self.drop(LIVE)
        for table in _TABLES:
            self._cursor.execute(f"ALTER TABLE {REBUILD}_{table} RENAME TO {LIVE}_{table}")

    def _one(self, statement: str, parameters: Iterable[Any] = ()) -> Any:
        return self._cursor.execute(statement, tuple(parameters)).fetchone()[0]

    def _stream(self, statement: str, parameters: tuple[Any, ...] = ()) -> Iterator[Any]:
        """Rows on a cursor of their own, so that other questions may be asked while they are read."""
        cursor = self._cursor.connection.cursor()
        self._streams.append(cursor)
        cursor.row_factory = None
        return iter(cursor.execute(statement, parameters))

    def close(self) -> None:
        """Ends what is still being read: what is read after its moment is over is refused, not cut short."""
        for cursor in self._streams:
            cursor.close()
