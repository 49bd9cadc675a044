"""Stored timelines in PostgreSQL, in the ledger's own schema. Implements `contract.py`.

The one writer of a side is whoever holds its advisory lock, taken before any table's: a row lock would deadlock with
the swap, which holds the row and wants the tables. A reader locks the tables it is going to read before its snapshot is
taken: a swap that came between would show it the new tables as its older snapshot sees them, half full.
A projector's commits need not be flushed one by one (`synchronous_commit` off): what a crash takes away it takes with
the tracked position, and it is projected again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, Final

import psycopg
from psycopg.rows import tuple_row

from ledger.recorders.contract import Recorder
from ledger.recorders.postgres_server import SCHEMA
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
    SwapBusy,
    Update,
)
from projections.timelines.rows import by_setting, decode_change, first_of, subject_range

_TABLES: Final = ("steps", "subjects", "tracking")
_COLUMNS: Final = "subject, setting, axis, start_us, until_us, position, change"
_LOCKS: Final[Mapping[Side, int]] = {LIVE: 0x494E464F52434503, REBUILD: 0x494E464F52434504}
_SWAP_WAIT: Final = "250ms"
"""Readers that come while a swap waits for those before them wait with it, so it does not wait for long."""
_STREAM_ROWS: Final = 5000

PgCursor = psycopg.Cursor[tuple[Any, ...]]


class PostgresTimelines:
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    @contextmanager
    def reading(self, *sides: Side) -> Iterator[PostgresTables]:
        with self._recorder.transaction(commit=False) as cursor, _told():
            names = ", ".join(_table(side, table) for side in sides for table in _TABLES)
            cursor.execute(f"LOCK TABLE {names} IN ACCESS SHARE MODE")
            with closing(PostgresTables(cursor)) as tables:
                yield tables

    @contextmanager
    def writing(self, *sides: Side) -> Iterator[PostgresTables]:
        with self._recorder.transaction(commit=True) as cursor, _told():
            # In one order, whoever asks: two writers never wait for each other.
            for lock in sorted(_LOCKS[side] for side in sides):
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", (lock,))
            # A handful of rows of large tables by their keys: never by reading the tables whole, whatever the planner
            # thinks of a table that was filled a moment ago.
            cursor.execute(
                "SELECT set_config('synchronous_commit', 'off', true), set_config('enable_hashjoin', 'off', true),"
                " set_config('enable_mergejoin', 'off', true), set_config('enable_seqscan', 'off', true)"
            )
            with closing(PostgresTables(cursor)) as tables:
                yield tables


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except psycopg.errors.UndefinedTable as error:
        raise NotThere from error


class PostgresTables:
    def __init__(self, cursor: PgCursor) -> None:
        self._cursor = cursor
        self._streams: list[psycopg.ServerCursor[tuple[Any, ...]]] = []
        self._closed = False

    def exists(self, side: Side) -> bool:
        # Not to_regclass, which can answer from before the lock that this transaction has just been given.
        names = [_table(side, table) for table in _TABLES]
        there = "SELECT count(*) FROM pg_catalog.pg_tables WHERE schemaname || '.' || tablename = ANY(%s)"
        return bool(self._one(there, (names,)) == len(names))

    def tracked(self, side: Side = LIVE) -> int:
        row = self._cursor.execute(
            f"SELECT position FROM {_table(side, 'tracking')} WHERE name = %s", (FORMAT,)
        ).fetchone()
        if row is None:
            raise OtherFormat
        position: int = row[0]
        return position

    def timelines(self, subjects: Iterable[str]) -> dict[str, dict[str, Timelines]]:
        rows = self._cursor.execute(
            f"SELECT {_COLUMNS} FROM {_table(LIVE, 'steps')} WHERE subject = ANY(%s)"
            " ORDER BY subject, setting, axis, start_us",
            (list(subjects),),
        )
        return by_setting(map(StepRow._make, rows))

    def held(self, axis: Axis, at: int, kind: str | None = None) -> Iterator[Held]:
        wanted = subject_range(kind, None)
        if wanted is None:
            return iter(())
        low, high, _ = wanted
        rows = self._stream(
            f"SELECT subject, setting, change FROM {_table(LIVE, 'steps')} WHERE subject >= %s AND subject <= %s"
            " AND axis = %s AND start_us <= %s AND until_us > %s ORDER BY subject, setting",
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
            f"SELECT subject, version, position FROM {_table(LIVE, 'subjects')}"
            " WHERE subject >= %s AND subject <= %s AND subject > %s ORDER BY subject LIMIT %s",
            (*wanted, limit),
        )
        return [SubjectRow(*row) for row in rows]

    def rows(self, side: Side = LIVE) -> Iterator[StepRow]:
        steps = _table(side, "steps")
        return map(
            StepRow._make, self._stream(f"SELECT {_COLUMNS} FROM {steps} ORDER BY subject, setting, axis, start_us")
        )

    def heads(self, side: Side = LIVE) -> Iterator[SubjectRow]:
        statement = f"SELECT subject, version, position FROM {_table(side, 'subjects')} ORDER BY subject"
        return map(SubjectRow._make, self._stream(statement))

    def moved(self, after: int) -> set[str]:
        rows = self._cursor.execute(
            f"SELECT subject FROM {_table(LIVE, 'subjects')} WHERE position > %s"
            f" UNION SELECT subject FROM {_table(REBUILD, 'subjects')} WHERE position > %s",
            (after, after),
        )
        return {subject for (subject,) in rows}

    def differences(
        self, limit: int, *, among: Iterable[str] | None = None, but: Iterable[str] = ()
    ) -> list[Difference]:
        which = " AND a.subject <> ALL(%s)"
        parameters: list[Any] = [list(but)]
        if among is not None:
            which += " AND a.subject = ANY(%s)"
            parameters.append(list(among))
        return first_of(
            self._step_differences(which, [*parameters, limit]),
            self._subject_differences(which, [*parameters, limit]),
            limit=limit,
        )

    def _step_differences(self, which: str, parameters: list[Any]) -> Iterator[Difference]:
        key = "b.subject = a.subject AND b.setting = a.setting AND b.axis = a.axis AND b.start_us = a.start_us"
        columns = ", ".join(f"a.{column}" for column in _COLUMNS.split(", "))
        live_steps, rebuilt_steps = _table(LIVE, "steps"), _table(REBUILD, "steps")
        rows = self._cursor.execute(
            f"SELECT {columns}, b.until_us, b.position, b.change FROM {live_steps} a LEFT JOIN {rebuilt_steps} b"
            f" ON {key} WHERE (b.until_us IS DISTINCT FROM a.until_us OR b.position IS DISTINCT FROM a.position"
            f" OR b.change IS DISTINCT FROM a.change){which}"
            " ORDER BY a.subject, a.setting, a.axis, a.start_us LIMIT %s",
            parameters,
        )
        for row in rows.fetchall():
            live = StepRow(*row[:7])
            rebuilt = None if row[7] is None else StepRow(*row[:4], *row[7:])
            yield Difference(live.subject, live.setting, live.axis, live, rebuilt)
        rows = self._cursor.execute(
            f"SELECT {columns} FROM {rebuilt_steps} a WHERE NOT EXISTS (SELECT 1 FROM {live_steps} b WHERE {key})"
            f"{which} ORDER BY a.subject, a.setting, a.axis, a.start_us LIMIT %s",
            parameters,
        )
        for row in rows.fetchall():
            missing = StepRow(*row)
            yield Difference(missing.subject, missing.setting, missing.axis, None, missing)

    def _subject_differences(self, which: str, parameters: list[Any]) -> Iterator[Difference]:
        live_subjects, rebuilt_subjects = _table(LIVE, "subjects"), _table(REBUILD, "subjects")
        rows = self._cursor.execute(
            f"SELECT a.subject, a.version, a.position, b.version, b.position FROM {live_subjects} a"
            f" LEFT JOIN {rebuilt_subjects} b ON b.subject = a.subject WHERE (b.version IS DISTINCT FROM a.version"
            f" OR b.position IS DISTINCT FROM a.position){which} ORDER BY a.subject LIMIT %s",
            parameters,
        )
        for subject, version, position, *other in rows.fetchall():
            rebuilt = None if other[0] is None else SubjectRow(subject, *other)
            yield Difference(subject, None, None, SubjectRow(subject, version, position), rebuilt)
        rows = self._cursor.execute(
            f"SELECT a.subject, a.version, a.position FROM {rebuilt_subjects} a WHERE NOT EXISTS"
            f" (SELECT 1 FROM {live_subjects} b WHERE b.subject = a.subject){which} ORDER BY a.subject LIMIT %s",
            parameters,
        )
        for row in rows.fetchall():
            yield Difference(row[0], None, None, None, SubjectRow(*row))

    def count_subjects(self, side: Side) -> int:
        count: int = self._one(f"SELECT count(*) FROM {_table(side, 'subjects')}")
        return count

    def create(self, side: Side) -> None:
        if self.exists(side):
            return
        self.drop(side)
        # Collation "C": the order of bytes, the same as SQLite's, whatever the database's own is. Constraints are
        # named, so that a swap can rename them too.
        self._cursor.execute(
            f"CREATE TABLE {_table(side, 'steps')} ("
            ' subject text COLLATE "C" NOT NULL, setting text COLLATE "C" NOT NULL, axis text COLLATE "C" NOT NULL,'
            " start_us bigint NOT NULL, until_us bigint NOT NULL, position bigint NOT NULL, change text NOT NULL,"
            f" CONSTRAINT {side}_steps_pkey PRIMARY KEY (subject, setting, axis, start_us))"
        )
        self._cursor.execute(
            f"CREATE TABLE {_table(side, 'subjects')} ("
            ' subject text COLLATE "C" NOT NULL, version bigint NOT NULL, position bigint NOT NULL,'
            f" CONSTRAINT {side}_subjects_pkey PRIMARY KEY (subject))"
        )
        self._cursor.execute(
            f"CREATE TABLE {_table(side, 'tracking')} (name text NOT NULL, position bigint NOT NULL,"
            f" CONSTRAINT {side}_tracking_pkey PRIMARY KEY (name))"
        )
        self._cursor.execute(f"INSERT INTO {_table(side, 'tracking')} VALUES (%s, 0)", (FORMAT,))

    def drop(self, side: Side) -> None:
        names = ", ".join(_table(side, table) for table in _TABLES)
        self._cursor.execute(f"DROP TABLE IF EXISTS {names}")

    def load(self, side: Side, pairs: Mapping[Pair, int]) -> Mapping[Pair, list[RawStep]]:
        wanted = [(*pair, instant) for pair, instant in pairs.items()]
        found: dict[Pair, list[RawStep]] = {pair: [] for pair in pairs}
        if not wanted:
            return found
        columns = ", ".join(f"s.{column}" for column in _COLUMNS.split(", "))
        rows = self._cursor.execute(
            f"SELECT {columns} FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS p (subject, setting, instant)"
            f" JOIN {_table(side, 'steps')} s ON s.subject = p.subject AND s.setting = p.setting"
            " AND s.until_us >= p.instant"
            " ORDER BY s.subject, s.setting, s.axis, s.start_us",
            _arrays(wanted),
        )
        for row in rows:
            found[row[0], row[1]].append(row)
        return found

    def write(self, side: Side, update: Update) -> None:
        steps = _table(side, "steps")
        if update.removed:
            self._cursor.execute(
                f"DELETE FROM {steps} s USING unnest(%s::text[], %s::text[], %s::text[], %s::bigint[])"
                " AS k (subject, setting, axis, start_us) WHERE s.subject = k.subject AND s.setting = k.setting"
                " AND s.axis = k.axis AND s.start_us = k.start_us",
                _arrays(update.removed),
            )
        if update.written:
            self._cursor.execute(
                f"INSERT INTO {steps} SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[],"
                " %s::bigint[], %s::bigint[], %s::text[]) ON CONFLICT (subject, setting, axis, start_us) DO UPDATE"
                " SET until_us = excluded.until_us, position = excluded.position, change = excluded.change",
                _arrays(update.written),
            )
        if update.subjects:
            self._cursor.execute(
                f"INSERT INTO {_table(side, 'subjects')} SELECT * FROM unnest(%s::text[], %s::bigint[], %s::bigint[])"
                " ON CONFLICT (subject) DO UPDATE SET version = excluded.version, position = excluded.position",
                _arrays(update.subjects),
            )
        self._cursor.execute(
            f"UPDATE {_table(side, 'tracking')} SET position = %s WHERE name = %s", (update.position, FORMAT)
        )

    def swap(self) -> None:
        names = ", ".join(_table(side, table) for side in (LIVE, REBUILD) for table in _TABLES)
        self._cursor.execute("SELECT set_config('lock_timeout', %s, true)", (_SWAP_WAIT,))
        try:
            self._cursor.execute(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
        except psycopg.errors.LockNotAvailable as error:
            raise SwapBusy from error
        self.drop(LIVE)
        for table in _TABLES:
            self._cursor.execute(f"ALTER TABLE {_table(REBUILD, table)} RENAME TO {LIVE}_{table}")
            self._cursor.execute(f"ALTER INDEX {_table(REBUILD, table)}_pkey RENAME TO {LIVE}_{table}_pkey")

    def _one(self, statement: str, parameters: Iterable[Any] = ()) -> Any:
        row = self._cursor.execute(statement, tuple(parameters)).fetchone()
        assert row is not None
        return row[0]

    def _stream(self, statement: str, parameters: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        """Rows on a cursor of the server's, so that they need not all fit here at once."""
        name = f"inforce_stream_{len(self._streams)}"
        cursor = self._cursor.connection.cursor(name=name, row_factory=tuple_row)
        self._streams.append(cursor)
        cursor.itersize = _STREAM_ROWS
        return self._while_open(iter(cursor.execute(statement, parameters)))

    def _while_open(self, rows: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """Fetching more once the transaction is over would do so within whatever the connection does by then."""
        while not self._closed:
            row = next(rows, None)
            if row is None:
                return
            yield row
        raise RuntimeError("these rows were to be read within their moment, and it is closed")

    def close(self) -> None:
        self._closed = True
        for cursor in self._streams:
            cursor.close()


def _table(side: Side, table: str) -> str:
    return f"{SCHEMA}.{side}_{table}"


def _arrays(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
