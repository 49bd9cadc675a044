"""Appending to PostgreSQL: one function in the database, called by one statement, in one round trip.

The append lock is held for that statement and its commit, so several server processes share a ledger and none of them
waits for another's network. The function does the work of `assign_positions`, fills the placeholders of the templates
as `codec.fill_templates` does, hashes, inserts, and reads back what it inserted. Its text is in `postgres_functions`.
Proved by tests/contracts/test_append.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import psycopg

from ledger.recorders.append_guard import AppendGuard, id_member
from ledger.recorders.contract import EVENTS_TABLE, AppendRequest, KnownSubmission, Outcome, Placement
from ledger.recorders.postgres_server import SCHEMA

APPEND: Final = (
    # The guard sees the head as it is before the lock. If it has moved meanwhile, an error undoes everything.
    "SELECT appended.*, 1 / CASE WHEN EXISTS (SELECT 1 FROM unnest(appended.firsts, appended.recorded_ats)"
    " AS placed (first, at) WHERE first <= %s::bigint OR (at > %s::bigint AND at - first > %s::bigint))"
    f" THEN 0 ELSE 1 END FROM {SCHEMA}.append_group(%s::bigint, %b::text[], %s::bigint[], %s::bigint[], %s::bigint[],"
    " %s::bigint[], %b::text[], %b::text[], %b::bytea[], %s::bigint[], %s::boolean[], %s::bigint[], %s::bigint[],"
    " %b::text[], %s::bigint[], %b::text[], %b::bytea[], %s::bigint[], %s::bigint[], %b::bytea[], %b::text[])"
    # The guard. A condition on no column is evaluated once, before the function is called.
    f" AS appended WHERE NOT EXISTS (SELECT 1 FROM (SELECT position, recorded_at FROM {SCHEMA}.{EVENTS_TABLE}"
    " ORDER BY position DESC LIMIT 1) AS head"
    " WHERE recorded_at > %s::bigint AND recorded_at - position > %s::bigint)"
    f" AND (%s::bigint IS NULL OR EXISTS (SELECT 1 FROM {SCHEMA}.{EVENTS_TABLE}"
    " WHERE position = %s::bigint AND position(%b::bytea IN state) > 0))"
)
"""One row, or none where the guard does not let the append pass; then nothing was written. `MOVED`, an error, where
the head moved between the guard and the lock so that the guard would not; then nothing was written either."""

MOVED: Final = psycopg.errors.DivisionByZero

_ALWAYS: Final = 2**63 - 1
"""As a `recorded_at_max`: at any time. Not NULL, which a database with `array_nulls` off takes for a text."""
_NEVER: Final = -(2**63)
"""As a `recorded_at_max`: always stale. Such a request is sent only for its key, which may be known."""


class AppendCall:
    """The arguments and the result of one call of the function."""

    def __init__(self, requests: Sequence[AppendRequest], guard: AppendGuard) -> None:
        self._requests = requests
        self._guard = guard
        # Subject → version, as the first request that relies on the subject expects it.
        self._base: dict[str, int] = {}
        # For each request: the subjects it relies on, its key, and its `recorded_at_max`, as the function gets them.
        self._relied: list[Collection[str]] = []
        self._keys: list[tuple[Any, ...]] = []
        self._recorded_at_maxes: list[int | None] = []
        # Marks the requests that are stale whatever the database holds, because of a request before them.
        versions: dict[str, int] = {}
        not_appended: set[str] = set()
        keys: set[tuple[str, str]] = set()
        for request in requests:
            relied, drafts, key = request.plan.versions, request.plan.drafts, request.key
            key_repeats = key in keys
            self._keys.append((None, None, None) if key_repeats or request.idempotency is None else request.idempotency)
            if key is not None:
                keys.add(key)
            if key_repeats or any(
                subject in not_appended or versions.get(subject, version) != version
                for subject, version in relied.items()
            ):
                not_appended.update(draft.subject for draft in drafts)
                self._relied.append(())
                self._recorded_at_maxes.append(_NEVER)
                continue
            for subject, version in relied.items():
                if subject not in versions:
                    versions[subject] = self._base[subject] = version
            for draft in drafts:
                versions[draft.subject] = draft.version
            self._relied.append(relied)
            self._recorded_at_maxes.append(request.plan.recorded_at_max)

    def arguments(self, now: int) -> list[Any]:
        """The arguments of `APPEND`. `now`: read the clock at the last moment before the call."""
        places = {subject: place for place, subject in enumerate(self._base, 1)}
        relied_places: list[int] = []
        relied_drafted: list[str] = []
        numbers: list[tuple[int, int]] = []
        personal: list[tuple[int, int, bytes, str]] = []
        for number, (request, relied) in enumerate(zip(self._requests, self._relied, strict=True), 1):
            drafted = {draft.subject for draft in request.plan.drafts}
            for subject in relied:
                relied_places.append(places[subject])
                relied_drafted.append("true" if subject in drafted else "false")
            for place, draft in enumerate(request.plan.drafts):
                numbers.append((number, place))
                if draft.personal is not None:
                    personal.append((number, place, *draft.personal))
        drafts = [draft for request in self._requests for draft in request.plan.drafts]
        head, (latest_head, covered) = self._guard.remembered(), self._guard.head_max(now)
        return [
            None if head is None else head.position,
            # Behind a head at the bound, each request lies one µs after the one before.
            latest_head + len(self._requests),
            covered,
            now,
            list(self._base),
            _array(self._base.values()),
            _array(map(len, self._relied)),
            _array(len(request.plan.drafts) for request in self._requests),
            _array(_ALWAYS if latest is None else latest for latest in self._recorded_at_maxes),
            *([key[field] for key in self._keys] for field in range(3)),
            _array(relied_places),
            _array(relied_drafted),
            _array(number for number, _ in numbers),
            _array(place for _, place in numbers),
            [draft.subject for draft in drafts],
            _array(draft.version for draft in drafts),
            [draft.topic for draft in drafts],
            [template for request in self._requests for template in request.templates],
            _array(row[0] for row in personal),
            _array(row[1] for row in personal),
            [row[2] for row in personal],
            [row[3] for row in personal],
            latest_head,
            covered,
            *((None, None, b"") if head is None else (head.position, head.position, id_member(head.event_id))),
        ]

    @staticmethod
    def outcomes(row: tuple[Any, ...]) -> list[Outcome]:
        """The outcome of each request, from the row that the function answers."""
        firsts, recorded_ats, known_firsts, known_counts, known_bodies, _ = row
        outcomes: list[Outcome] = []
        for place, first in enumerate(firsts):
            if first is not None:
                outcomes.append(Placement(first, recorded_ats[place]))
            elif known_firsts[place] is not None:
                outcomes.append(KnownSubmission(bytes(known_bodies[place]), known_firsts[place], known_counts[place]))
            else:
                outcomes.append(None)
        return outcomes


def _array(items: Iterable[int | str]) -> str:
    """PostgreSQL's text form of an array of numbers: one type whatever their size, so one prepared statement."""
    return f"{{{','.join(map(str, items))}}}"
