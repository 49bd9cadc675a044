"""Appending to SQLite: the statements of an append, run on a cursor inside the recorder's transaction.

Statements are few and large, because the driver lets other threads run at the start and end of each one.
Proved by tests/contracts/test_append.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain
from typing import Final, NamedTuple

import msgspec

from ledger.clock import Clock
from ledger.codec import fill_templates, leaf_hash
from ledger.drafts import PersonalData
from ledger.recorders.assign_positions import assign_positions
from ledger.recorders.common import COLUMNS
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
    cursor: sqlite3.Cursor, requests: Sequence[AppendRequest], clock: Clock, cached: CachedPreconditions | None
) -> list[Outcome]:
    """The caller holds the write lock. `cached`: preconditions that this transaction has read and that still hold."""
    subjects = {subject for request in requests for subject in request.plan.versions}
    keys = {key for request in requests if (key := request.key) is not None}
    preconditions = (
        preconditions_of(cursor, subjects, keys)
        if cached is None or not cached.cover(subjects, keys)
        else cached.preconditions
    )
    outcomes = assign_positions(requests, preconditions, clock.now())
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
    return outcomes


def insert_events(cursor: sqlite3.Cursor, rows: Sequence[tuple[object, ...]]) -> None:
    """`rows`: values of `COLUMNS`."""
    start, count = 0, _ROWS
    while start < len(rows):
        # Halved when fewer rows are left, so that only a few different statements exist, which the connection caches.
        while count > len(rows) - start:
            count //= 2
        cursor.execute(_INSERT + _FURTHER_ROW * (count - 1), tuple(chain.from_iterable(rows[start : start + count])))
        start += count


def insert_personal(cursor: sqlite3.Cursor, personal: Iterable[tuple[int, PersonalData]]) -> None:
    cursor.executemany(
        "INSERT INTO personal_data VALUES (?,?,?)", [(position, data.salt, data.content) for position, data in personal]
    )
