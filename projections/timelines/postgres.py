"""Stored timelines in PostgreSQL, in the ledger's own schema. Implements `contract.py`.

The one writer of a side is the holder of its advisory lock, taken before any table's: a row lock would deadlock with
the swap, which holds the row and waits for the tables. A reader locks its tables before its snapshot is taken: a swap
in between would show it the new tables as the older snapshot sees them, half full.
A projector's commits are not flushed one by one (`synchronous_commit` off): a crash may undo some together with the
tracked position; then they are projected again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Final

import psycopg

from ledger.recorders.contract import Recorder
from projections.timelines.contract import LIVE, OLD, REBUILD, OtherFormat, Side, TablesMissing
from projections.timelines.postgres_tables import TABLES, PostgresTables, table_name

_LOCKS: Final[Mapping[Side, int]] = {
    LIVE: 0x494E464F52434503,
    REBUILD: 0x494E464F52434504,
    OLD: 0x494E464F52434505,
}


class PostgresTimelines:
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    @contextmanager
    def reading(self, *sides: Side) -> Iterator[PostgresTables]:
        with self._recorder.transaction(commit=False) as cursor, _format_errors():
            names = ", ".join(table_name(side, table) for side in sides for table in TABLES)
            cursor.execute(f"LOCK TABLE {names} IN ACCESS SHARE MODE")
            with closing(PostgresTables(cursor)) as tables:
                yield tables

    @contextmanager
    def writing(self, *sides: Side, patience_s: float | None = None) -> Iterator[PostgresTables]:
        with self._recorder.transaction(commit=True) as cursor, _format_errors():
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
            with closing(PostgresTables(cursor)) as tables:
                yield tables

    def write_probe(self) -> None:
        return None


@contextmanager
def _format_errors() -> Iterator[None]:
    try:
        yield
    except psycopg.errors.UndefinedTable as error:
        raise TablesMissing from error
    except psycopg.errors.UndefinedColumn as error:
        raise OtherFormat from error
