"""The events that made a difference: between two instants, or between what was known then and what is known now."""

from __future__ import annotations

from projections.decisions.model import AsOf, Hindsight, Outcome
from projections.query.snapshots import IN_FORCE, KnownAt, ReadContext
from projections.temporal.changes import Assertion, Change, Retraction
from projections.temporal.effective_state import SettingState
from projections.temporal.fold import Timeline


def changes_between(
    context: ReadContext,
    earlier: SettingState,
    later: SettingState,
    within: tuple[int, int],
    own: Timeline,
    known_at: KnownAt,
) -> tuple[Assertion, ...]:
    """The events that turned `earlier` into `later`, in position order.

    `within`: the instants (µs) of the two. `own`: the subject's timeline of the setting, on the axis of `known_at`.
    """
    first, last = within
    causes: dict[int, Assertion] = {}
    if later.newest is not None and later.newest != earlier.newest:
        causes[later.newest.position] = later.newest
    before = earlier.newest
    if before is not None and before.effective_until is not None and before.effective_until <= last:
        # Its end is a cause unless a standing change had ended it before.
        at_its_end = own.at(before.effective_until - 1)
        if at_its_end is not None and at_its_end.effective_until is not None:
            causes[before.position] = before
    if known_at == IN_FORCE and before is not None:
        for retraction in context.snapshot.retractions(earlier.subject):
            if first < retraction.recorded_at <= last and retraction.retracts == before.event_id:
                causes[retraction.position] = retraction
    return tuple(causes[position] for position in sorted(causes))


def hindsight(context: ReadContext, outcome: Outcome, later: Outcome, as_of: AsOf) -> Hindsight | None:
    """The later decision and the events that changed it; None if verdict and handling are the same."""
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
            changed_by.extend(_retracted_since(context, known, as_of, of_any=not newer))
    return Hindsight(later, tuple(changed_by) or _became_known(context, outcome, as_of))


def _became_known(context: ReadContext, outcome: Outcome, as_of: AsOf) -> tuple[SettingState, ...]:
    """The first event of each subject on the way to the governing one that was not known yet."""
    snapshot = context.snapshot
    firsts = [(subject, next(snapshot.read_assertions(subject), None)) for subject in outcome.governed_by.via]
    return tuple(
        snapshot.large_values.state(SettingState(subject, first.setting, first.value, "explicit", first))
        for subject, first in firsts
        if isinstance(first, Change) and first.recorded_at > as_of.known_at
    )


def _retracted_since(context: ReadContext, known: SettingState, as_of: AsOf, *, of_any: bool) -> list[Retraction]:
    """The retractions since of the change that `known` rested on; if there are none and `of_any`, those of others.

    Retracting another change can matter, too: an exception reaches further once the standing change that ended it is
    removed.
    """
    since = [
        retraction
        for retraction in context.snapshot.retractions(known.subject)
        if retraction.recorded_at > as_of.known_at and retraction.setting == known.setting
    ]
    of_known = [retraction for retraction in since if known.newest and retraction.retracts == known.newest.event_id]
    return of_known or (since if of_any else [])
