"""Enforcement lag: a breach that rests on something newer than the position that the gateway enforced."""

from __future__ import annotations

from typing import NamedTuple

from projections.decisions.model import EnforcementLag, Reason
from projections.decisions.states import States
from projections.temporal.effective_state import SettingState


class Breach(NamedTuple):
    """A reason against the request, and the settings that it rests on."""

    reason: Reason
    rests_on: tuple[SettingState, ...]


def excuse_by_lag(
    at: int,
    enforced_position: int,
    breaches: list[Breach],
    scope_evidence: tuple[SettingState, ...],
    states: States,
) -> tuple[set[Reason], EnforcementLag | None]:
    """The reasons, with `enforcement_lag` in place of each breach that rests on something newer than was enforced."""
    reasons: set[Reason] = set()
    lag: EnforcementLag | None = None
    for breach in breaches:
        lags = [_lag(at, enforced_position, state, states) for state in (*breach.rests_on, *scope_evidence)]
        newest = max(filter(None, lags), key=lambda one: one.deciding_position, default=None)
        if newest is None:
            reasons.add(breach.reason)
            continue
        reasons.add("enforcement_lag")
        lag = newest if lag is None else max(lag, newest)
    return reasons, lag


def _lag(at: int, enforced_position: int, state: SettingState, states: States) -> EnforcementLag | None:
    """The lag of a state that a change or a retraction newer than the enforced position brought about; else None."""
    newer: list[tuple[int, int]] = []
    if state.newest is not None:
        newer.append((state.newest.position, max(state.newest.recorded_at, state.newest.effective_from)))
    retraction = states.retraction_since(state.subject, state.setting, enforced_position)
    if retraction is not None:
        newer.append((retraction.position, retraction.recorded_at))
    position, in_force_since = max(newer, default=(0, 0))
    if position <= enforced_position:
        return None
    return EnforcementLag(max(0, at - in_force_since), enforced_position, position)
