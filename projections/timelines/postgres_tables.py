"""The tables of stored timelines in PostgreSQL, within a transaction. Implements `contract.TimelineWriter`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import psycopg
from psycopg.rows import tuple_row

from ledger.recorders.postgres_server import SCHEMA
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
    SwapBusy,
    Update,
)
from projections.timelines.encoding import changes_at, decode_timelines
from projections.timelines.sql import differing, subject_range

TABLES: Final = ("subjects", "blocks", "tracking")
_OF_ANY_FORMAT: Final = (*TABLES, "steps")
"""`steps` belonged to an earlier format."""
_ROW: Final = "subject, version, position, settings"
_BLOCK: Final = "subject, setting, axis, number, start_us, until_us, steps"
_BLOCK_TYPES: Final = ("text", "text", "text", "int8", "int8", "int8", "bytea")
_CLAIM: Final = "rebuild"
_SWAP_WAIT: Final = "250ms"
"""New readers queue behind a swap that waits for earlier ones, so it does not wait for long."""
_STREAM_ROWS: Final = 5000

PgCursor = psycopg.Cursor[tuple[Any, ...]]


class PostgresTables:
    def __init__(self, cursor: PgCursor) -> None:
        self._cursor = cursor
        self._streams: list[psycopg.ServerCursor[tuple[Any, ...]]] = []
        self._closed = False

    def exists(self, side: Side) -> bool:
        return len(self._existing(side, TABLES)) == len(TABLES)

    def _existing(self, side: Side, tables: Sequence[str]) -> list[str]:
        # Not to_regclass, which can answer from before this transaction got its lock.
        names = "SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = %s AND tablename = ANY(%s)"
        rows = self._cursor.execute(names, (SCHEMA, [f"{side}_{table}" for table in tables]))
        return [name.removeprefix(f"{side}_") for (name,) in rows]

    def tracked(self, side: Side = LIVE) -> int:
        row = self._cursor.execute(
            f"SELECT position FROM {table_name(side, 'tracking')} WHERE name = %s", (FORMAT,)
        ).fetchone()
        if row is None:
            raise OtherFormat
        position: int = row[0]
        return position

    def claim(self, side: Side) -> str | None:
        row = self._cursor.execute(
            f"SELECT name FROM {table_name(side, 'tracking')} WHERE starts_with(name, %s)", (f"{_CLAIM} ",)
        ).fetchone()
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
            f"SELECT subject, settings FROM {table_name(LIVE, 'subjects')} WHERE subject >= %s AND subject <= %s"
            " ORDER BY subject",
            (low, high),
        )
        covering = self._stream(
            f"SELECT subject, setting, axis, steps FROM {table_name(LIVE, 'blocks')}"
            " WHERE subject >= %s AND subject <= %s AND start_us <= %s AND until_us > %s"
            " ORDER BY subject, setting, axis, number",
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
            f"SELECT subject, version, position FROM {table_name(LIVE, 'subjects')}"
            " WHERE subject >= %s AND subject <= %s AND subject > %s ORDER BY subject LIMIT %s",
            (*bounds, limit),
        )
        return [SubjectRow(*row) for row in rows]

    def rows(self, side: Side = LIVE) -> Iterator[StoredRow]:
        return map(StoredRow._make, self._stream(f"SELECT {_ROW} FROM {table_name(side, 'subjects')} ORDER BY subject"))

    def blocks(self, side: Side = LIVE) -> Iterator[BlockRow]:
        statement = f"SELECT {_BLOCK} FROM {table_name(side, 'blocks')} ORDER BY subject, setting, axis, number"
        return map(BlockRow._make, self._stream(statement))

    def load(self, side: Side, subjects: Iterable[str]) -> dict[str, StoredRow]:
        rows = self._cursor.execute(
            f"SELECT {_ROW} FROM {table_name(side, 'subjects')} WHERE subject = ANY(%s)", (list(subjects),)
        )
        return {row[0]: StoredRow._make(row) for row in rows}

    def load_blocks(self, side: Side, subject: str, setting: str | None = None, first: int = 0) -> list[BlockRow]:
        rows = self._cursor.execute(
            f"SELECT {_BLOCK} FROM {table_name(side, 'blocks')} WHERE subject = %s AND number >= %s"
            " AND setting = coalesce(%s, setting) ORDER BY subject, setting, axis, number",
            (subject, first, setting),
        )
        return [BlockRow._make(row) for row in rows]

    def differing(self, limit: int, *, among: Iterable[str] | None = None, but: Iterable[str] = ()) -> list[str]:
        which = " AND a.subject <> ALL(%s)"
        parameters: list[Any] = [list(but)]
        if among is not None:
            which += " AND a.subject = ANY(%s)"
            parameters.append(list(among))
        subjects: set[str] = set()
        for statement in differing(table_name, "IS DISTINCT FROM"):
            rows = self._cursor.execute(f"{statement}{which} ORDER BY a.subject LIMIT %s", [*parameters, limit])
            subjects.update(subject for (subject,) in rows)
        return sorted(subjects)[:limit]

    def count_subjects(self, side: Side) -> int:
        count: int = self._one(f"SELECT count(*) FROM {table_name(side, 'subjects')}")
        return count

    def create(self, side: Side) -> None:
        if self.exists(side):
            return
        self.drop(side)
        self._make(side)
        self.complete(side, 0)

    def begin(self, side: Side, claim: str) -> None:
        self._make(side)
        self._cursor.execute(f"INSERT INTO {table_name(side, 'tracking')} VALUES (%s, 0)", (f"{_CLAIM} {claim}",))

    def _make(self, side: Side) -> None:
        # Collation "C" is the order of bytes, as in SQLite, whatever the database's own collation is. Constraints have
        # names, so that a swap can rename them, too.
        self._cursor.execute(
            f"CREATE TABLE {table_name(side, 'subjects')} ("
            ' subject text COLLATE "C" NOT NULL, version bigint NOT NULL, position bigint NOT NULL,'
            f" settings bytea NOT NULL, CONSTRAINT {side}_subjects_pkey PRIMARY KEY (subject))"
        )
        self._cursor.execute(
            f"CREATE TABLE {table_name(side, 'blocks')} ("
            ' subject text COLLATE "C" NOT NULL, setting text COLLATE "C" NOT NULL, axis text COLLATE "C" NOT NULL,'
            " number bigint NOT NULL, start_us bigint NOT NULL, until_us bigint NOT NULL, steps bytea NOT NULL,"
            f" CONSTRAINT {side}_blocks_pkey PRIMARY KEY (subject, setting, axis, number))"
        )
        self._cursor.execute(
            f"CREATE TABLE {table_name(side, 'tracking')} (name text NOT NULL, position bigint NOT NULL,"
            f" CONSTRAINT {side}_tracking_pkey PRIMARY KEY (name))"
        )

    def complete(self, side: Side, position: int) -> None:
        self._cursor.execute(f"INSERT INTO {table_name(side, 'tracking')} VALUES (%s, %s)", (FORMAT, position))

    def drop(self, side: Side) -> None:
        names = ", ".join(table_name(side, table) for table in _OF_ANY_FORMAT)
        self._cursor.execute(f"DROP TABLE IF EXISTS {names}")

    def fill(self, side: Side, subjects: Sequence[StoredRow], blocks: Sequence[BlockRow]) -> None:
        self._copy(f"{table_name(side, 'subjects')} ({_ROW})", ("text", "int8", "int8", "bytea"), subjects)
        if blocks:
            self._copy(f"{table_name(side, 'blocks')} ({_BLOCK})", _BLOCK_TYPES, blocks)

    def _copy(self, into: str, types: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
        with self._cursor.copy(f"COPY {into} FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(types)
            for row in rows:
                copy.write_row(row)

    def write(self, side: Side, update: Update) -> None:
        blocks = table_name(side, "blocks")
        if update.removed:
            self._cursor.execute(
                f"DELETE FROM {blocks} b USING unnest(%s::text[], %s::text[], %s::bigint[])"
                " AS k (subject, setting, first) WHERE b.subject = k.subject AND b.setting = k.setting"
                " AND b.number >= k.first",
                _arrays(update.removed),
            )
        if update.blocks:
            self._cursor.execute(
                f"INSERT INTO {blocks} SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[],"
                " %s::bigint[], %s::bigint[], %s::bytea[])",
                _arrays(update.blocks),
            )
        if update.subjects:
            self._cursor.execute(
                f"INSERT INTO {table_name(side, 'subjects')} SELECT * FROM"
                " unnest(%s::text[], %s::bigint[], %s::bigint[], %s::bytea[]) ON CONFLICT (subject) DO UPDATE"
                " SET version = excluded.version, position = excluded.position, settings = excluded.settings",
                _arrays(update.subjects),
            )
        self._cursor.execute(
            f"UPDATE {table_name(side, 'tracking')} SET position = %s WHERE name = %s", (update.position, FORMAT)
        )

    def set_aside(self, side: Side) -> None:
        # PostgreSQL drops a table at once, however large it is.
        self.drop(side)

    def clear_old(self, rows: int) -> bool:
        self.drop(OLD)
        return True

    def swap(self) -> None:
        names = ", ".join(
            table_name(side, table) for side in (LIVE, REBUILD) for table in self._existing(side, _OF_ANY_FORMAT)
        )
        self._cursor.execute("SELECT set_config('lock_timeout', %s, true)", (_SWAP_WAIT,))
        try:
            self._cursor.execute(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
        except psycopg.errors.LockNotAvailable as error:
            raise SwapBusy from error
        self._cursor.execute(
            f"DELETE FROM {table_name(REBUILD, 'tracking')} WHERE starts_with(name, %s)", (f"{_CLAIM} ",)
        )
        self.set_aside(LIVE)
        for table in TABLES:
            self._cursor.execute(f"ALTER TABLE {table_name(REBUILD, table)} RENAME TO {LIVE}_{table}")
            self._cursor.execute(f"ALTER INDEX {table_name(REBUILD, table)}_pkey RENAME TO {LIVE}_{table}_pkey")

    def _one(self, statement: str, parameters: Iterable[Any] = ()) -> Any:
        row = self._cursor.execute(statement, tuple(parameters)).fetchone()
        assert row is not None
        return row[0]

    def _stream(self, statement: str, parameters: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        """Rows on a server-side cursor, so that they need not all fit into memory."""
        name = f"inforce_stream_{len(self._streams)}"
        cursor = self._cursor.connection.cursor(name=name, row_factory=tuple_row)
        self._streams.append(cursor)
        cursor.itersize = _STREAM_ROWS
        return self._while_open(iter(cursor.execute(statement, parameters)))

    def _while_open(self, rows: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """Refuses to fetch after the transaction: the connection may be in another one by then."""
        while not self._closed:
            row = next(rows, None)
            if row is None:
                return
            yield row
        raise RuntimeError("rows of a transaction must be read within it, and this one is closed")

    def close(self) -> None:
        self._closed = True
        for cursor in self._streams:
            cursor.close()


def table_name(side: Side, table: str) -> str:
    return f"{SCHEMA}.{side}_{table}"


def _arrays(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
