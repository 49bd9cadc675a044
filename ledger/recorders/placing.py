"""What becomes of each proposal of a group, given what stands under the append lock: pure, the law of `append`.

PostgreSQL does the same inside its own append function (`postgres_append`); tests/contracts hold the two together.
"""

from __future__ import annotations

from collections.abc import Sequence

from ledger.recorders.contract import AppendPreconditions, Outcome, Proposal, Recorded


def assign_positions(proposals: Sequence[Proposal], preconditions: AppendPreconditions, now: int) -> list[Outcome]:
    """`append_preconditions`: of every subject that a proposal relies on and every key that it has. `now` in µs."""
    position, recorded_at = preconditions.head
    versions = dict(preconditions.versions)
    keys: set[tuple[str, str]] = set()
    missing: set[str] = set()
    outcomes: list[Outcome] = []
    for proposal in proposals:
        decided, key = proposal.decided, proposal.key
        again = key in keys
        known = None if key is None or again else preconditions.known.get(key)
        if key is not None:
            keys.add(key)
        at = now if recorded_at is None else max(now, recorded_at + 1)
        if (
            known is not None
            or again
            or (decided.recorded_at_max is not None and at > decided.recorded_at_max)
            or any(versions[subject] != version or subject in missing for subject, version in decided.versions.items())
        ):
            missing.update(draft.subject for draft in decided.drafts)
            outcomes.append(known)
            continue
        outcomes.append(Recorded(position + 1, at))
        for draft in decided.drafts:
            versions[draft.subject] = draft.version
        position += len(decided.drafts)
        recorded_at = at
    return outcomes
