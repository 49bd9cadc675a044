"""Reads of many events of SQLite at once: for rebuilds, policy indexes and checks.

Proved by tests/contracts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from ledger.recorders.common import COLUMNS, CommonRecorder
from ledger.recorders.contract import EVENTS_TABLE, RawEvent, StreamSize
from ledger.recorders.soundness import leaves_by_subject, require_hashes, sound_raw_events
from ledger.recorders.sqlite_append import fetched, texts_of_any_bytes


class SQLiteBulkReads(CommonRecorder):
    def stored_submissions(self) -> Iterator[tuple[Any, ...]]:
        with self.transaction(commit=False) as cursor, texts_of_any_bytes(cursor):
            yield from cursor.execute(self._submissions_with_leaves)

    def events_in_range(self, after: int, until: int, above: str = "", upto: str | None = None) -> list[RawEvent]:
        with self.transaction(commit=False) as cursor:
            # NOT INDEXED: in the order of the table. By the index of subjects, each event would be on another page.
            # Without `upto` the bound is a blob, because blobs sort behind every text.
            rows = fetched(
                cursor,
                f"SELECT {COLUMNS} FROM {EVENTS_TABLE} NOT INDEXED"
                " WHERE position > ? AND position <= ? AND originator_id > ? AND originator_id <= ? ORDER BY position",
                (after, until, above, b"" if upto is None else upto),
            )
        return sound_raw_events(rows)

    def leaves(self, after: int, until: int) -> bytes:
        # NOT INDEXED: in the order of the table, which is that of positions.
        where = f"FROM {EVENTS_TABLE} NOT INDEXED WHERE position > ? AND position <= ?"
        with self.transaction(commit=False) as cursor:
            try:
                # One row instead of thousands.
                joined = "SELECT CAST(group_concat(state, x'0a') AS BLOB), CAST(group_concat(leaf_hash, '') AS BLOB)"
                leaves, hashes = cursor.execute(f"{joined} {where}", (after, until)).fetchone()
            except sqlite3.DataError:
                # Together the leaves exceed the length limit of one value.
                rows = cursor.execute(f"SELECT state, leaf_hash {where} ORDER BY position", (after, until)).fetchall()
                leaves = b"\n".join([leaf for leaf, _ in rows])
                hashes = b"".join([leaf_hash for _, leaf_hash in rows])
        require_hashes(leaves or b"", hashes or b"", after, until)
        return leaves or b""

    def leaves_of(self, subjects: Sequence[str], until: int) -> bytes:
        where = "WHERE originator_id = ? AND position <= ? ORDER BY originator_version"
        statement = f"SELECT {COLUMNS} FROM {EVENTS_TABLE} {where}"
        with self.transaction(commit=False) as cursor:
            rows = [row for subject in subjects for row in fetched(cursor, statement, (subject, until))]
        return leaves_by_subject(rows, subjects)

    def stream_sizes(self, subjects: Sequence[str], until: int) -> dict[str, StreamSize]:
        statement = (
            f"SELECT count(*), coalesce(sum(length(state)), 0) FROM {EVENTS_TABLE}"
            " WHERE originator_id = ? AND position <= ?"
        )
        with self.transaction(commit=False) as cursor:
            return {subject: StreamSize(*fetched(cursor, statement, (subject, until))[0]) for subject in subjects}

    def subjects_of_kind(self, kind: str, until: int) -> list[str]:
        statement = (
            f"SELECT originator_id FROM {EVENTS_TABLE} WHERE originator_id >= ? AND originator_id < ?"
            " AND originator_version = 1 AND position <= ?"
        )
        with self.transaction(commit=False) as cursor:
            # ";" is the character after ":".
            rows = cursor.execute(statement, (f"{kind}:", f"{kind};", until)).fetchall()
        return sorted(str(subject) for (subject,) in rows)

    def subjects_at(self, positions: Sequence[int]) -> list[str]:
        statement = f"SELECT originator_id FROM {EVENTS_TABLE} WHERE position = ?"
        with self.transaction(commit=False) as cursor:
            rows = (cursor.execute(statement, (position,)).fetchone() for position in positions)
            return sorted({str(row[0]) for row in rows if row is not None})
