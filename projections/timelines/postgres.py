"""Stored timelines in PostgreSQL, in the ledger's own schema. Implements `sql.Backend`.

The one writer of a side is the holder of its advisory lock, taken before any table's: a row lock would deadlock with
the swap, which holds the row and waits for the tables. A reader locks its tables before its snapshot is taken: a swap
in between would show it the new tables as the older snapshot sees them, half full.
A projector's commits are not flushed one by one (`synchronous_commit` off): a crash may undo some together with the
tracked position; then they are projected again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, ClassVar, Final

import psycopg
from psycopg.rows import tuple_row

from ledger.recorders.contract import Recorder
from ledger.recorders.postgres_server import SCHEMA
from projections.timelines.contract import (
    LIVE,
    OLD,
    REBUILD,
    OtherFormat,
    Side,
    SwapBusy,
    TablesMissing,
    Tail,
)
from projections.timelines.engine import BLOCK, ROW, TABLES, UPSERT, Row, drop, existing
from projections.timelines.sql import TimelineReader, TimelineWriter

_LOCKS: Final[Mapping[Side, int]] = {
    LIVE: 0x494E464F52434503,
    REBUILD: 0x494E464F52434504,
    OLD: 0x494E464F52434505,
}
_SWAP_WAIT: Final = "250ms"
"""New readers queue behind a swap that waits for earlier ones, so it does not wait for long."""
_STREAM_ROWS: Final = 5000


class PostgresTimelines:
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    @contextmanager
    def reading(self, *sides: Side) -> Iterator[TimelineReader]:
        with self._recorder.transaction(commit=False) as cursor, _engine(cursor) as engine:
            names = ", ".join(f"{SCHEMA}.{side}_{table}" for side in sides for table in TABLES)
            cursor.execute(f"LOCK TABLE {names} IN ACCESS SHARE MODE")
            yield TimelineReader(engine)

    @contextmanager
    def writing(self, *sides: Side, patience_s: float | None = None) -> Iterator[TimelineWriter]:
        with self._recorder.transaction(commit=True) as cursor, _engine(cursor) as engine:
            if patience_s is not None:
                cursor.execute("SELECT set_config('lock_timeout', %s, true)", (f"{round(patience_s * 1000)}ms",))
            # Always in the same order, so that two writers never wait for each other.
            for lock in sorted(_LOCKS[side] for side in sides):
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", (lock,))
            # A projector reads a few rows of large tables by their keys. Without these settings the planner may scan a
            # table that was filled a moment ago.
            cursor.execute(
                "SELECT set_config('synchronous_commit', 'off', true), set_config('enable_hashjoin', 'off', true),"
                " set_config('enable_mergejoin', 'off', true), set_config('enable_seqscan', 'off', true)"
            )
            yield TimelineWriter(engine)

    def write_probe(self) -> None:
        return None


@contextmanager
def _engine(cursor: psycopg.Cursor[Row]) -> Iterator[_PostgresEngine]:
    try:
        with closing(_PostgresEngine(cursor)) as engine:
            yield engine
    except psycopg.errors.UndefinedTable as error:
        raise TablesMissing from error
    except psycopg.errors.UndefinedColumn as error:
        raise OtherFormat from error


class _PostgresEngine:
    """Implements `engine.Engine`."""

    prefix: ClassVar = f"{SCHEMA}."
    # Not to_regclass, which can answer from before this transaction got its lock.
    existing: ClassVar = f"SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = '{SCHEMA}' AND tablename"
    in_list: ClassVar = "= ANY(?)"
    unlike: ClassVar = "IS DISTINCT FROM"
    make: ClassVar[Sequence[str]] = (
        # Collation "C" is the order of bytes, as in SQLite, whatever the database's own collation is. Constraints have
        # names, so that a swap can rename them, too.
        f"CREATE TABLE {SCHEMA}.{{side}}_subjects ("
        ' subject text COLLATE "C" NOT NULL, version bigint NOT NULL, position bigint NOT NULL,'
        " settings bytea NOT NULL, block_sum bigint NOT NULL, checksum bigint NOT NULL,"
        " CONSTRAINT {side}_subjects_pkey PRIMARY KEY (subject))",
        f"CREATE TABLE {SCHEMA}.{{side}}_blocks ("
        ' subject text COLLATE "C" NOT NULL, setting text COLLATE "C" NOT NULL, axis text COLLATE "C" NOT NULL,'
        " number bigint NOT NULL, start_us bigint NOT NULL, until_us bigint NOT NULL, steps bytea NOT NULL,"
        " checksum bigint NOT NULL,"
        " CONSTRAINT {side}_blocks_pkey PRIMARY KEY (subject, setting, axis, number))",
        f"CREATE TABLE {SCHEMA}.{{side}}_tracking (name text NOT NULL, position bigint NOT NULL,"
        " checksum bigint NOT NULL,"
        " CONSTRAINT {side}_tracking_pkey PRIMARY KEY (name))",
    )

    def __init__(self, cursor: psycopg.Cursor[Row]) -> None:
        self._cursor = cursor
        self._streams: list[psycopg.ServerCursor[Row]] = []
        self._closed = False

    @staticmethod
    def list_parameter(values: Iterable[str]) -> list[str]:
        return list(values)

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> psycopg.Cursor[Row]:
        return self._cursor.execute(statement.replace("?", "%s"), parameters)

    def stream(self, statement: str, parameters: Sequence[Any] = ()) -> Iterator[Row]:
        name = f"inforce_stream_{len(self._streams)}"
        cursor = self._cursor.connection.cursor(name=name, row_factory=tuple_row)
        self._streams.append(cursor)
        cursor.itersize = _STREAM_ROWS
        return self._while_open(iter(cursor.execute(statement.replace("?", "%s"), parameters)))

    def _while_open(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Refuses to fetch after the transaction: the connection may be in another one by then."""
        while not self._closed:
            row = next(rows, None)
            if row is None:
                return
            yield row
        raise RuntimeError("rows of a transaction must be read within it, and this one is closed")

    def fill(self, side: Side, subjects: Sequence[Row], blocks: Sequence[Row]) -> None:
        self._copy(f"{side}_subjects ({ROW})", ("text", "int8", "int8", "bytea", "int8", "int8"), subjects)
        if blocks:
            types = ("text", "text", "text", "int8", "int8", "int8", "bytea", "int8")
            self._copy(f"{side}_blocks ({BLOCK})", types, blocks)

    def _copy(self, into: str, types: Sequence[str], rows: Iterable[Row]) -> None:
        with self._cursor.copy(f"COPY {SCHEMA}.{into} FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(types)
            for row in rows:
                copy.write_row(row)

    def write(self, side: Side, removed: Sequence[Tail], blocks: Sequence[Row], subjects: Sequence[Row]) -> None:
        table = f"{SCHEMA}.{side}_blocks"
        for statement, rows in (
            (
                f"DELETE FROM {table} b USING unnest(%s::text[], %s::text[], %s::bigint[])"
                " AS k (subject, setting, first) WHERE b.subject = k.subject AND b.setting = k.setting"
                " AND b.number >= k.first",
                removed,
            ),
            (
                f"INSERT INTO {table} ({BLOCK}) SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[],"
                " %s::bigint[], %s::bigint[], %s::bytea[], %s::bigint[])",
                blocks,
            ),
            (
                f"INSERT INTO {SCHEMA}.{side}_subjects ({ROW}) SELECT * FROM"
                f" unnest(%s::text[], %s::bigint[], %s::bigint[], %s::bytea[], %s::bigint[], %s::bigint[]) {UPSERT}",
                subjects,
            ),
        ):
            if rows:
                self._cursor.execute(statement, [list(column) for column in zip(*rows, strict=True)])

    def is_as_made(self, side: Side) -> bool:
        names = self.list_parameter(f"{side}_{table}" for table in TABLES)
        columns = self.execute(
            "SELECT count(*) FROM information_schema.columns"
            f" WHERE table_schema = '{SCHEMA}' AND table_name {self.in_list}"
            " AND column_name = ANY(?)",
            (names, [*(f"{ROW}, {BLOCK}, name").split(", ")]),
        ).fetchone()
        return columns is not None and columns[0] == len(f"{ROW}, {BLOCK}, name, position, checksum".split(", "))

    def set_aside(self, side: Side) -> None:
        # PostgreSQL drops a table at once, however large it is.
        drop(self, side)

    def clear_old(self, rows: int) -> bool:
        drop(self, OLD)
        return True

    def swap(self) -> None:
        names = ", ".join(f"{SCHEMA}.{side}_{table}" for side in (LIVE, REBUILD) for table in existing(self, side))
        self._cursor.execute("SELECT set_config('lock_timeout', %s, true)", (_SWAP_WAIT,))
        try:
            self._cursor.execute(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
        except psycopg.errors.LockNotAvailable as error:
            raise SwapBusy from error
        drop(self, LIVE)
        for table in TABLES:
            self._cursor.execute(f"ALTER TABLE {SCHEMA}.{REBUILD}_{table} RENAME TO {LIVE}_{table}")
            self._cursor.execute(f"ALTER INDEX {SCHEMA}.{REBUILD}_{table}_pkey RENAME TO {LIVE}_{table}_pkey")

    def close(self) -> None:
        self._closed = True
        for cursor in self._streams:
            cursor.close()
