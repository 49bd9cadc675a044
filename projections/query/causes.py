"""Which events made the difference: between two instants, and between what was known then and now."""

from __future__ import annotations

from projections.decisions.model import AsOf, Hindsight, Outcome
from projections.query.snapshots import IN_FORCE, KnownAt, ReadContext
from projections.temporal.changes import Change, Retraction
from projections.temporal.effective_state import SettingState


def between(
    moment: ReadContext, earlier: SettingState, later: SettingState, first: int, last: int, known_at: KnownAt
) -> tuple[Change | Retraction, ...]:
    """The events by which one setting of one subject came from `earlier` (at `first`, µs) to `later` (at `last`)."""
    found: dict[int, Change | Retraction] = {}
    if later.newest is not None and later.newest != earlier.newest:
        found[later.newest.position] = later.newest
    gone = earlier.newest
    if gone is not None and gone.effective_until is not None and gone.effective_until <= last:
        found[gone.position] = gone
    if known_at == IN_FORCE and gone is not None:
        for said in moment.snapshot.retractions(earlier.subject):
            if first < said.recorded_at <= last and said.retracts == gone.event_id:
                found[said.position] = said
    return tuple(found[position] for position in sorted(found))


def hindsight(moment: ReadContext, outcome: Outcome, later: Outcome, as_of: AsOf) -> Hindsight | None:
    """The later decision and what changed it; None where neither verdict nor handling is another."""
    if (outcome.verdict, outcome.handling) == (later.verdict, later.handling):
        return None
    before = {(state.subject, state.setting): state for state in outcome.evidence}
    changed_by: list[SettingState | Retraction] = []
    for state in later.evidence:
        known = before.get((state.subject, state.setting))
        if known is not None and known.value == state.value:
            continue
        newer = state.newest is not None and state.newest.recorded_at > as_of.known_at
        if newer:
            changed_by.append(state)
        if known is not None:
            changed_by.extend(_retracted_since(moment, known, as_of, of_any=not newer))
    return Hindsight(later, tuple(changed_by))


def _retracted_since(moment: ReadContext, known: SettingState, as_of: AsOf, *, of_any: bool) -> list[Retraction]:
    """What was retracted since: the change that `known` rested on. Or, `of_any` where it still stands, others: an
    open change may reach further once a bounded one that it began in is gone."""
    since = [
        said
        for said in moment.snapshot.retractions(known.subject)
        if said.recorded_at > as_of.known_at and said.setting == known.setting
    ]
    rested_on = [said for said in since if known.newest and said.retracts == known.newest.event_id]
    return rested_on or (since if of_any else [])
