"""Appending to SQLite: the statements of an append, run on a cursor inside the recorder's transaction.

Statements are few and large, because the driver lets other threads run at the start and end of each one.
Proved by tests/contracts/test_append.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final, NamedTuple

import msgspec

from ledger.clock import Clock
from ledger.codec import fill_templates, leaf_hash
from ledger.drafts import PersonalData
from ledger.head_memory import RememberedHead
from ledger.recorders.append_guard import AppendGuard, id_member
from ledger.recorders.assign_positions import assign_positions
from ledger.recorders.common import COLUMNS, not_stored_as_written, refused_by_the_database
from ledger.recorders.contract import (
    EVENTS_TABLE,
    AppendPreconditions,
    AppendRequest,
    Head,
    KnownSubmission,
    Outcome,
    Placement,
)

_LAST: Final = (
    f"(SELECT max(position) FROM {EVENTS_TABLE}),"
    f" (SELECT recorded_at FROM {EVENTS_TABLE} ORDER BY position DESC LIMIT 1)"
)
_VERSION: Final = f"(SELECT max(originator_version) FROM {EVENTS_TABLE} WHERE originator_id = ?)"
_PRECONDITIONS: Final = (
    f"SELECT {_LAST}, (SELECT json_group_object(value, coalesce("
    f"(SELECT max(originator_version) FROM {EVENTS_TABLE} WHERE originator_id = value), 0)) FROM json_each(?))"
)
_HOLDS: Final = f"SELECT instr(state, ?) FROM {EVENTS_TABLE} WHERE position = ?"
_FEW: Final = 4
"""Up to this many subjects are named one by one, because unpacking a JSON array in SQL costs as much."""
_ROWS: Final = 64
"""Events in one INSERT."""
_INSERT: Final = f"INSERT INTO {EVENTS_TABLE} ({COLUMNS}) VALUES (?,?,?,?,?,?,?)"
_FURTHER_ROW: Final = ",(?,?,?,?,?,?,?)"
_json: Final = msgspec.json.Encoder().encode


class CachedPreconditions(NamedTuple):
    """The preconditions that the open transaction has read, and all keys that it asked for."""

    preconditions: AppendPreconditions
    keys: frozenset[tuple[str, str]]

    def cover(self, subjects: AbstractSet[str], keys: AbstractSet[tuple[str, str]]) -> bool:
        return self.preconditions.versions.keys() >= subjects and self.keys >= keys


def preconditions_of(
    cursor: sqlite3.Cursor, subjects: Iterable[str], keys: Iterable[tuple[str, str]]
) -> AppendPreconditions:
    names = list(subjects)
    versions: dict[str, int]
    if len(names) > _FEW:
        ((position, recorded_at, versions_json),) = cursor.execute(_PRECONDITIONS, (_json(names),)).fetchall()
        versions = msgspec.json.decode(versions_json)
    else:
        statement = f"SELECT {', '.join((_LAST, *[_VERSION] * len(names)))}"
        ((position, recorded_at, *highest),) = cursor.execute(statement, names).fetchall()
        versions = {subject: version or 0 for subject, version in zip(names, highest, strict=True)}
    known = {key: earlier for key in keys if (earlier := _known_submission(cursor, key)) is not None}
    return AppendPreconditions(Head(position or 0, recorded_at), versions, known)


def _known_submission(cursor: sqlite3.Cursor, key: tuple[str, str]) -> KnownSubmission | None:
    row = cursor.execute(
        "SELECT body_sha256, first_position, event_count FROM submissions WHERE caller = ? AND key = ?", key
    ).fetchone()
    return None if row is None else KnownSubmission(*row)


def append(
    cursor: sqlite3.Cursor,
    requests: Sequence[AppendRequest],
    clock: Clock,
    guard: AppendGuard,
    cached: CachedPreconditions | None,
) -> list[Outcome] | None:
    """The caller holds the write lock. `cached`: preconditions that this transaction has read and that still hold.
    None: `guard` does not let the append pass."""
    subjects = {subject for request in requests for subject in request.plan.versions}
    keys = {key for request in requests if (key := request.key) is not None}
    preconditions = (
        preconditions_of(cursor, subjects, keys)
        if cached is None or not cached.cover(subjects, keys)
        else cached.preconditions
    )
    now = clock.now()
    if not guard.clock_allows(*preconditions.head, now) or not _holds(cursor, guard.remembered()):
        return None
    outcomes = assign_positions(requests, preconditions, now)
    rows: list[tuple[object, ...]] = []
    personal: list[tuple[int, PersonalData]] = []
    submissions: list[tuple[object, ...]] = []
    for request, outcome in zip(requests, outcomes, strict=True):
        if not isinstance(outcome, Placement):
            continue
        first, recorded_at = outcome
        drafts = request.plan.drafts
        leaves = fill_templates(request.templates, first, recorded_at)
        for position, (draft, leaf) in enumerate(zip(drafts, leaves, strict=True), first):
            rows.append((position, draft.subject, draft.version, draft.topic, leaf, recorded_at, leaf_hash(leaf)))
            if draft.personal is not None:
                personal.append((position, draft.personal))
        if request.idempotency is not None:
            submissions.append((*request.idempotency, first, len(drafts), recorded_at))
    insert_events(cursor, rows)
    if personal:
        insert_personal(cursor, personal)
    if submissions:
        cursor.executemany("INSERT INTO submissions VALUES (?,?,?,?,?,?)", submissions)
    if rows:
        require_stored(cursor, preconditions.head.position, rows, personal, submissions)
    return outcomes


def _holds(cursor: sqlite3.Cursor, head: RememberedHead | None) -> bool:
    """Whether the ledger still holds the event that was its head."""
    if head is None:
        return True
    row = cursor.execute(_HOLDS, (id_member(head.event_id), head.position)).fetchone()
    return row is not None and bool(row[0])


def insert_events(cursor: sqlite3.Cursor, rows: Sequence[tuple[object, ...]]) -> None:
    """`rows`: values of `COLUMNS`."""
    for start, count in _slices(len(rows)):
        cursor.execute(_INSERT + _FURTHER_ROW * (count - 1), tuple(chain.from_iterable(rows[start : start + count])))


def require_stored(
    cursor: sqlite3.Cursor,
    after: int,
    rows: Sequence[tuple[object, ...]],
    personal: Sequence[tuple[int, PersonalData]] = (),
    submissions: Sequence[tuple[object, ...]] = (),
) -> None:
    """Reads back what this transaction wrote behind the position `after`. A foreign trigger can drop, change or add
    rows, and SQLite reports none of that. Raises `LedgerCorrupt`, which rolls the transaction back."""
    stored = cursor.execute(f"SELECT {COLUMNS} FROM {EVENTS_TABLE} WHERE position > ? ORDER BY position", (after,))
    if (events := stored.fetchall()) != rows:
        raise not_stored_as_written("events", len(rows), len(events))
    expected = [(position, data.salt, data.content) for position, data in personal]
    if expected:
        stored = cursor.execute("SELECT * FROM personal_data WHERE position > ? ORDER BY position", (after,))
        if (reasons := stored.fetchall()) != expected:
            raise not_stored_as_written("reasons", len(expected), len(reasons))
    for start, count in _slices(len(submissions)):
        written = submissions[start : start + count]
        keys = f"WITH used (caller, key) AS (VALUES {','.join(['(?,?)'] * count)})"
        stored = cursor.execute(
            # CROSS makes SQLite look up each key, instead of reading all submissions.
            f"{keys} SELECT s.* FROM used CROSS JOIN submissions s ON s.caller = used.caller AND s.key = used.key",
            [name for submission in written for name in submission[:2]],
        )
        if (rows_read := stored.fetchall()) != list(written):
            raise not_stored_as_written("idempotency keys", count, len(rows_read))


def _slices(rows: int) -> Iterator[tuple[int, int]]:
    """(first, count) of each statement for so many rows. Halved when fewer rows are left, so that only a few different
    statements exist, which the connection caches."""
    start, count = 0, _ROWS
    while start < rows:
        while count > rows - start:
            count //= 2
        yield start, count
        start += count


def insert_personal(cursor: sqlite3.Cursor, personal: Iterable[tuple[int, PersonalData]]) -> None:
    cursor.executemany(
        "INSERT INTO personal_data VALUES (?,?,?)", [(position, data.salt, data.content) for position, data in personal]
    )


def fetched(
    cursor: sqlite3.Cursor, statement: str, parameters: Sequence[object] | Mapping[str, object]
) -> list[tuple[Any, ...]]:
    """The rows. A text that is no UTF-8 comes with surrogates, which no text that we write has."""
    try:
        return cursor.execute(statement, parameters).fetchall()
    except sqlite3.OperationalError as error:
        if "decode" not in str(error):
            raise
    with texts_of_any_bytes(cursor):
        return cursor.execute(statement, parameters).fetchall()


@contextmanager
def texts_of_any_bytes(cursor: sqlite3.Cursor) -> Iterator[None]:
    """Lets a text that is no UTF-8 be read, with surrogates."""
    connection = cursor.connection
    connection.text_factory = lambda text: text.decode(errors="surrogateescape")
    try:
        yield
    finally:
        connection.text_factory = str


@contextmanager
def refused() -> Iterator[None]:
    """Raises the error of a constraint or a trigger as `LedgerCorrupt`."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise refused_by_the_database(str(error)) from error
