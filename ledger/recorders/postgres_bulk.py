"""Reads of many events of PostgreSQL at once: for rebuilds, policy indexes and checks.

Proved by tests/contracts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, LiteralString

from psycopg.rows import tuple_row

from ledger.recorders.common import COLUMNS, CommonRecorder
from ledger.recorders.contract import RawEvent, StreamSize
from ledger.recorders.postgres_server import EVENTS
from ledger.recorders.soundness import leaves_by_subject, require_hashes, sound_raw_events


class PostgresBulkReads(CommonRecorder):
    def stored_submissions(self) -> Iterator[tuple[Any, ...]]:
        # A cursor of the server, because there may be a row for each event of a large ledger.
        with (
            self.transaction(commit=False) as cursor,
            cursor.connection.cursor("submissions", row_factory=tuple_row) as rows,
        ):
            for *row, body, first, events, leaf in rows.execute(self._submissions_with_leaves.encode()):
                yield (*row, bytes(body), first, events, None if leaf is None else bytes(leaf))

    def events_in_range(self, after: int, until: int, above: str = "", upto: str | None = None) -> list[RawEvent]:
        below = "" if upto is None else ' AND originator_id COLLATE "C" <= %s'
        with self.transaction(commit=False) as cursor:
            rows = cursor.execute(
                f"SELECT {COLUMNS} FROM {EVENTS} WHERE position > %s"
                f' AND position <= %s AND originator_id COLLATE "C" > %s{below} ORDER BY position',
                (after, until, above, *(() if upto is None else (upto,))),
                binary=True,
            ).fetchall()
        return sound_raw_events(rows)

    def leaves(self, after: int, until: int) -> bytes:
        statement: LiteralString = (
            f"SELECT state, leaf_hash FROM {EVENTS} WHERE position > %s AND position <= %s ORDER BY position"
        )
        with self.transaction(commit=False) as cursor:
            rows = cursor.execute(statement, (after, until), binary=True).fetchall()
        leaves = b"\n".join([bytes(leaf) for leaf, _ in rows])
        require_hashes(leaves, b"".join([bytes(leaf_hash) for _, leaf_hash in rows]), after, until)
        return leaves

    def leaves_of(self, subjects: Sequence[str], until: int) -> bytes:
        statement: LiteralString = (
            f"SELECT {COLUMNS} FROM unnest(%s::text[]) WITH ORDINALITY AS listed (subject, place) JOIN {EVENTS}"
            " ON originator_id = subject AND position <= %s ORDER BY place, originator_version"
        )
        return leaves_by_subject(self._read(statement, (list(subjects), until)), subjects)

    def stream_sizes(self, subjects: Sequence[str], until: int) -> dict[str, StreamSize]:
        statement: LiteralString = (
            "SELECT subject, count(position), coalesce(sum(length(state)), 0) FROM unnest(%s::text[]) AS listed"
            f" (subject) LEFT JOIN {EVENTS} ON originator_id = subject AND position <= %s GROUP BY subject"
        )
        rows = self._read(statement, (list(subjects), until))
        sizes = {subject: StreamSize(int(events), int(bytes_)) for subject, events, bytes_ in rows}
        return {subject: sizes[subject] for subject in subjects}

    def subjects_of_kind(self, kind: str, until: int) -> list[str]:
        statement = (
            f"SELECT originator_id FROM {EVENTS} WHERE starts_with(originator_id, %s) AND originator_version = 1"
            " AND position <= %s"
        )
        return sorted(subject for (subject,) in self._read(statement, (f"{kind}:", until)))

    def subjects_at(self, positions: Sequence[int]) -> list[str]:
        statement = f"SELECT DISTINCT originator_id FROM {EVENTS} WHERE position = ANY(%s)"
        return sorted(subject for (subject,) in self._read(statement, (list(positions),)))
