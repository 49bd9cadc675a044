"""The code that both recorders share: the reads of one statement and the eventsourcing library's feed and write method,
which differ only in the placeholders of the database's driver; and a watch's sleep."""

from __future__ import annotations

import select
import socket
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Final, Protocol

from eventsourcing.persistence import Notification, StoredEvent

from ledger.clock import Clock
from ledger.drafts import DIGEST_BYTES, SEAL_BYTES
from ledger.errors import DamagedEvent, LedgerCorrupt, LedgerUnavailable
from ledger.recorders.append_guard import AppendGuard
from ledger.recorders.contract import (
    EVENTS_TABLE,
    AppendRequest,
    Entry,
    Head,
    Outcome,
    Placement,
    PreconditionFailed,
    Recorder,
)
from ledger.recorders.log_tables import LogTables
from ledger.recorders.soundness import MISSING, require_dense, require_stream, sound_entries
from ledger.recorders.writability import resolve

COLUMNS: Final = "position, originator_id, originator_version, topic, state, recorded_at, leaf_hash"
WRONG_FORMAT: Final = (
    "the ledger's tables are newer than its format number says, so it is damaged; restore it from a backup or an export"
)
_WAKEUP_BYTES_MAX: Final = 4096
_SUBJECTS_MAX: Final = 500
"""Subjects that one statement names."""


GUARDED_ATTEMPTS: Final = 3
"""Attempts at an append that the guard stopped and then let pass, as when an acknowledgement has become known."""


class _Appending(Recorder, Protocol):
    def _append(self, requests: Sequence[AppendRequest], clock: Clock) -> list[Outcome] | None:
        """`Recorder.append`; None: the guard did not let it pass, and nothing was written."""


class CommonRecorder:
    events_table: ClassVar[str]
    personal_table: ClassVar[str]
    submissions_table: ClassVar[str]
    PLACEHOLDER: ClassVar[str]
    EXISTING_TABLE: ClassVar[str]
    """SELECTs a row if a table of the name ? exists."""
    SEALS: ClassVar[str]
    """Where the leaf of the event `e` has `SEALED`; 0: nowhere."""
    VERSION_AT: ClassVar[str]
    """`version_at_statement` with the named placeholders `subject` and `position`."""

    append_guard: AppendGuard

    def table_beside(self, name: str) -> str:
        schema, dot, _ = self.events_table.rpartition(".")
        return f"{schema}{dot}{name}"

    def append(self: _Appending, requests: Sequence[AppendRequest], clock: Clock) -> list[Outcome]:
        if not requests:
            return []
        if self.append_guard.identity is None:
            resolve(self, clock.now())
        for _attempt in range(GUARDED_ATTEMPTS):
            outcomes = self._append(requests, clock)
            if outcomes is not None:
                self.append_guard.note(None)
                return outcomes
            resolve(self, clock.now())
        raise LedgerUnavailable("the ledger's head kept moving; nothing was written, try again")

    def _read(self, statement: str, parameters: Sequence[object] | Mapping[str, object]) -> list[tuple[Any, ...]]:
        """The rows of one statement."""
        raise NotImplementedError

    def head(self) -> Head:
        raise NotImplementedError

    def _last(self, rows: Sequence[tuple[Any, ...]]) -> Head:
        """The head, from the newest row: an event that stands at another position is not taken for it."""
        entries = sound_entries(rows)
        return Head(entries[0].position, entries[0].recorded_at) if entries else Head(0, None)

    def _rows(self, clauses: str, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
        """`clauses`: all after FROM, with `?` for each parameter. The rows have the values of `Entry`."""
        statement = f"SELECT {COLUMNS} FROM {self.events_table} {clauses}".replace("?", self.PLACEHOLDER)
        return self._read(statement, parameters)

    def entry(self, position: int) -> Entry | None:
        entries = sound_entries(self._rows("WHERE position = ?", (position,)))
        if not entries and 0 < position <= self.head().position:
            # Read once more: the event may have been recorded between the two reads.
            entries = sound_entries(self._rows("WHERE position = ?", (position,)))
            if not entries:
                raise DamagedEvent(position, MISSING)
        return entries[0] if entries else None

    def page(self, after: int, limit: int, until: int | None = None) -> list[Entry]:
        entries = self._page(after, limit, until)
        end = after + limit if until is None else min(after + limit, until)
        last = after + len(entries)
        # Fewer than asked for: the ledger ends here, or an event is missing. The head is read before the rows, so
        # that an event that is recorded meanwhile is not taken for a missing one.
        while last < end and last < (head := self.head().position):
            more = self._page(last, end - last, min(end, head))
            if not more:
                raise DamagedEvent(last + 1, MISSING, tuple(entries))
            entries += more
            last = after + len(entries)
        return entries

    def _page(self, after: int, limit: int, until: int | None) -> list[Entry]:
        entries = sound_entries(
            self._rows(
                "WHERE position > ? AND position <= ? ORDER BY position LIMIT ?", (after, _or_highest(until), limit)
            )
        )
        require_dense(entries, after)
        return entries

    def page_length(self, after: int, limit: int, until: int | None, bytes_max: int) -> int:
        where = "WHERE position > ? AND position <= ?"
        # One sum is enough for nearly all pages, and costs a fifth of the running totals.
        total = f"SELECT coalesce(sum(length(state)), 0) FROM {self.events_table} {where}"
        last = min(after + limit, _or_highest(until), _or_highest(None))
        ((bytes_,),) = self._read(total.replace("?", self.PLACEHOLDER), (after, last))
        if bytes_ < bytes_max:
            return limit
        return self._length(where, (after, _or_highest(until)), "position", limit, bytes_max)

    def stream_length(
        self, subject: str, after: int, until: int | None, limit: int, bytes_max: int, *, newest_first: bool = False
    ) -> int:
        where = "WHERE originator_id = ? AND originator_version > ? AND originator_version <= ?"
        order = "originator_version DESC" if newest_first else "originator_version"
        return self._length(where, (subject, after, _or_highest(until)), order, limit, bytes_max)

    def _length(self, where: str, parameters: tuple[object, ...], order: str, limit: int, bytes_max: int) -> int:
        # The database knows the sizes without reading the bytes.
        column = order.partition(" ")[0]
        sizes = f"SELECT {column}, coalesce(length(state), 0) AS bytes FROM {self.events_table} {where}"
        totals = f"SELECT bytes, sum(bytes) OVER (ORDER BY {order}) AS total FROM ({sizes} ORDER BY {order} LIMIT ?)"
        # The rows before the one that reaches the size.
        before = "sum(CASE WHEN total < ? THEN 1 ELSE 0 END)"
        statement = f"SELECT count(*), {before} FROM ({totals} AS sized) AS summed".replace("?", self.PLACEHOLDER)
        ((rows, count),) = self._read(statement, (bytes_max, *parameters, limit))
        # Entries that are recorded meanwhile belong to a page that is not full.
        return limit if not rows or count == rows else int(count) + 1

    def stream(
        self,
        subject: str,
        *,
        after: int = 0,
        until: int | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> list[Entry]:
        rows = self._rows(
            "WHERE originator_id = ? AND originator_version > ? AND originator_version <= ?"
            f" ORDER BY originator_version {'DESC' if newest_first else 'ASC'} LIMIT ?",
            (subject, after, _or_highest(until), _or_highest(limit)),
        )
        entries = sound_entries(rows)
        require_stream(entries, subject, after, until, limit, newest_first=newest_first)
        return entries

    def version_at(self, subject: str, position: int) -> int:
        rows = self._read(self.VERSION_AT, {"subject": subject, "position": position})
        if not rows:
            # The search met a version that is missing: the stream names the event beside it.
            self.stream(subject)
            raise DamagedEvent(None, MISSING)
        return int(rows[0][0])

    def first_positions(self, subjects: Sequence[str]) -> dict[str, int]:
        first: dict[str, int] = {}
        for start in range(0, len(subjects), _SUBJECTS_MAX):
            some = subjects[start : start + _SUBJECTS_MAX]
            statement = (
                f"SELECT originator_id, position FROM {self.events_table} WHERE originator_version = 1"
                f" AND originator_id IN ({','.join([self.PLACEHOLDER] * len(some))})"
            )
            first.update(self._read(statement, some))
        return first

    def submission_recorded_at(self, caller: str, key: str) -> int | None:
        statement = f"SELECT recorded_at FROM {self.submissions_table} WHERE caller = ? AND key = ?"
        rows = self._read(statement.replace("?", self.PLACEHOLDER), (caller, key))
        return rows[0][0] if rows else None

    @staticmethod
    def _definition_faults(cursor: Any) -> list[str]:
        """`definition_faults`, within a transaction."""
        raise NotImplementedError

    def transaction(self, *, commit: bool) -> AbstractContextManager[Any]:
        raise NotImplementedError

    def definition_faults(self) -> list[str]:
        with self.transaction(commit=False) as cursor:
            return self._definition_faults(cursor)

    def stored_rows(self, after: int, limit: int) -> list[tuple[Any, ...]]:
        return self._rows("WHERE position > ? ORDER BY position LIMIT ?", (after, limit))

    def wrong_submissions(self) -> list[int]:
        # With one event more on both sides: exactly `event_count` of them have the submission's recorded_at.
        alike = f"FROM {self.events_table} e WHERE e.recorded_at = s.recorded_at AND e.position"
        last = "s.first_position + s.event_count"
        rows = self._read(
            f"SELECT s.first_position FROM {self.submissions_table} s WHERE s.event_count < 1"
            f" OR length(s.body_sha256) NOT IN ({DIGEST_BYTES}, {DIGEST_BYTES + SEAL_BYTES})"
            f" OR NOT EXISTS (SELECT 1 {alike} = s.first_position)"
            f" OR NOT EXISTS (SELECT 1 {alike} = {last} - 1)"
            f" OR (SELECT count(*) {alike} BETWEEN s.first_position - 1 AND {last}) <> s.event_count"
            " ORDER BY s.first_position",
            (),
        )
        return [position for (position,) in rows]

    @property
    def _submissions_with_leaves(self) -> str:
        return (
            "SELECT s.caller, s.key, s.body_sha256, s.first_position, s.event_count, e.state"
            f" FROM {self.submissions_table} s LEFT JOIN {self.events_table} e ON e.position = s.first_position"
        )

    def log_tables(self) -> LogTables:
        prefix = self.events_table.removesuffix(EVENTS_TABLE)
        return LogTables(self.transaction, self.EXISTING_TABLE, prefix, self.PLACEHOLDER)

    def orphaned_personal(self) -> int | None:
        rows = self._read(
            f"SELECT p.position FROM {self.personal_table} p LEFT JOIN {self.events_table} e ON e.position = p.position"
            f" WHERE e.position IS NULL OR {self.SEALS} = 0 ORDER BY p.position LIMIT 1",
            (),
        )
        return int(rows[0][0]) if rows else None

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """The eventsourcing library's feed, with our positions instead of its own numbers."""
        after = 0 if start is None else start - 1 if inclusive_of_start else start
        until = self.head().position if stop is None else min(stop, self.head().position)
        notifications: list[Notification] = []
        # Not by a condition on the column `topic`: an event with an altered one would be left out.
        while after < until and len(notifications) < limit:
            entries = self.page(after, limit, until)
            notifications += [
                Notification(id=position, originator_id=subject, originator_version=version, topic=topic, state=leaf)
                for position, subject, version, topic, leaf, _recorded_at, _leaf_hash in entries
                if not topics or topic in topics
            ]
            after += len(entries)
        return notifications[:limit]

    def insert_events(self: Recorder, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """The eventsourcing library's write method, with the keywords `plan` and `clock`. Answers positions.

        Raises `PreconditionFailed` if the plan is stale.
        """
        templates = [stored.state for stored in stored_events]
        (outcome,) = self.append([AppendRequest(kwargs["plan"], templates, None)], kwargs["clock"])
        if not isinstance(outcome, Placement):
            raise PreconditionFailed
        return range(outcome.first_position, outcome.first_position + len(templates))


def _or_highest(bound: int | None) -> int:
    return 2**63 - 1 if bound is None else bound


_REMOVE: Final = (
    "remove the triggers and rules on the ledger's tables that are not inforce's (its start names them), then send it "
    "again"
)


def not_stored_as_written(what: str, written: int, stored: int) -> LedgerCorrupt:
    """The error of a transaction that did not find its own rows again, or found others."""
    read = "others" if stored == written else f"{stored}"
    return LedgerCorrupt(
        f"the database did not store {what} as they were written: {written} were written and {read} were read "
        f"back, so nothing was recorded; {_REMOVE}"
    )


def refused_by_the_database(message: str) -> LedgerCorrupt:
    """The error of a constraint or a trigger that refused an append, which under the append lock none of ours does."""
    return LedgerCorrupt(f"the database refused what inforce wrote ({message}), so nothing was recorded; {_REMOVE}")


def version_at_statement(table: str, subject: str, position: str) -> str:
    """Selects one row with one column: the version, 0 if the subject has no event at or before the position.

    `subject` and `position` are the database's own placeholders. A subject's versions are dense and rise with
    positions, so a binary search finds the version: each step is one look-up by (subject, version). An index by
    (subject, position) would cost every append.
    """
    return (
        "WITH RECURSIVE search(low, high) AS ("
        f" SELECT CAST(0 AS bigint), coalesce((SELECT max(originator_version) FROM {table}"
        f"  WHERE originator_id = {subject}), 0)"
        " UNION ALL"
        f" SELECT CASE WHEN position <= {position} THEN originator_version ELSE low END,"
        f"  CASE WHEN position <= {position} THEN high ELSE originator_version - 1 END"
        # CROSS makes SQLite keep this join order, so that each step looks up one event.
        f" FROM search CROSS JOIN {table}"
        f" WHERE low < high AND originator_id = {subject} AND originator_version = (low + high + 1) / 2)"
        " SELECT low FROM search WHERE low = high"
    )


def sleep_until_wakeup(timeout_s: float, wakeup: socket.socket, *files: int) -> bool:
    """Returns when `wakeup` or one of `files` is readable, or after about `timeout_s`.

    True if `wakeup` was readable; it is then empty again.
    """
    # Not select(2), which ends at 1,024 file descriptors.
    poll = select.poll()
    for file in (wakeup.fileno(), *files):
        poll.register(file, select.POLLIN)
    readable = [file for file, _ in poll.poll(timeout_s * 1000)]
    if wakeup.fileno() not in readable:
        return False
    wakeup.recv(_WAKEUP_BYTES_MAX)
    return True
