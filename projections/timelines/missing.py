"""The stored timelines of a ledger that has none and that may not be written: always empty. Implements `sql.Backend`.

Every question then reads the events themselves, as it does for events that are not projected yet. That is slower, and
gives the same answers. Proved by tests/faults/test_places.py.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import NoReturn

from ledger.errors import LedgerUnavailable
from ledger.recorders.contract import EVENTS_TABLE
from projections.timelines.contract import LIVE, Side
from projections.timelines.sql import TimelineReader, TimelineWriter
from projections.timelines.sqlite import SQLiteEngine


class MissingTimelines:
    def __init__(self, why: str) -> None:
        """`why`: the sentence for a caller that wants to write them."""
        self._why = why
        # Reentrant: a question may read one subject while it reads all of them.
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        with closing(SQLiteEngine(self._connection.cursor())) as engine:
            TimelineWriter(engine).create(LIVE)
            # Rows are compared with the events that they were made from: none were made.
            engine.execute(
                f"CREATE TABLE {EVENTS_TABLE} (position INTEGER, originator_id TEXT, originator_version INTEGER)"
            )

    @contextmanager
    def reading(self, *_sides: Side) -> Iterator[TimelineReader]:
        with self._lock, closing(SQLiteEngine(self._connection.cursor())) as engine:
            yield TimelineReader(engine)

    def writing(self, *_sides: Side, patience_s: float | None = None) -> NoReturn:
        raise LedgerUnavailable(self._why)

    def write_probe(self) -> None:
        return None
