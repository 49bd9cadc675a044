"""Assigning positions and times to a group of requests, given the state under the append lock. Pure.

This is the rule of `Recorder.append`. SQLite uses it; PostgreSQL repeats it inside its append function
(`postgres_append`). tests/contracts/test_append.py proves that the two agree.
"""

from __future__ import annotations

from collections.abc import Sequence

from ledger.recorders.contract import AppendPreconditions, AppendRequest, Outcome, Placement


def assign_positions(requests: Sequence[AppendRequest], preconditions: AppendPreconditions, now: int) -> list[Outcome]:
    """`preconditions` covers every subject that a request relies on and every key. `now` in µs."""
    position, recorded_at = preconditions.head
    versions = dict(preconditions.versions)
    keys: set[tuple[str, str]] = set()
    not_appended: set[str] = set()
    outcomes: list[Outcome] = []
    for request in requests:
        plan, key = request.plan, request.key
        key_repeats = key in keys
        known = None if key is None or key_repeats else preconditions.known.get(key)
        if key is not None:
            keys.add(key)
        at = now if recorded_at is None else max(now, recorded_at + 1)
        if (
            known is not None
            or key_repeats
            or (plan.recorded_at_max is not None and at > plan.recorded_at_max)
            or any(
                versions[subject] != version or subject in not_appended for subject, version in plan.versions.items()
            )
        ):
            not_appended.update(draft.subject for draft in plan.drafts)
            outcomes.append(known)
            continue
        outcomes.append(Placement(position + 1, at))
        for draft in plan.drafts:
            versions[draft.subject] = draft.version
        position += len(plan.drafts)
        recorded_at = at
    return outcomes
