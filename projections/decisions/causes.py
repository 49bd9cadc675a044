"""The causes of a decision: the settings that each reason rests on, and the observed handling that contradicts them.

A request with several acts rests on each of them apart: a setting that permits one act is no cause of a reason against
another. If no reason speaks against the request, its causes are the settings that permit what was done.
Proved by tests/audit/test_explain.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from ledger.subjects import MUST_BE_KNOWN, kind_of
from projections.decisions.check import DecisionBasis, breaches_of
from projections.decisions.directory import DIRECTORY_KINDS, PROVIDER_NAMES, REGION_NAMES, WITHIN
from projections.decisions.lag import Breach
from projections.decisions.model import Observed, Outcome, Reason, RequestRecord
from projections.decisions.published import MEMBER_OF
from projections.decisions.rule_settings import (
    CACHING,
    HOSTING,
    MODEL_REGIONS,
    NETWORK,
    PASSTHROUGH,
    PROVIDER,
    RESIDENCY,
    STORAGE,
    TRAINING,
)
from projections.temporal.changes import JsonValue
from projections.temporal.effective_state import SettingState


class Cause(NamedTuple):
    """`reason` None: the settings permit the request. `observed`: the members of the handling that the reason is about;
    empty if the reason lies in using the model at all."""

    reason: Reason | None
    rests_on: tuple[SettingState, ...]
    observed: tuple[tuple[str, JsonValue], ...]


_MEMBERS_OF: Final[Mapping[Reason, tuple[str, ...]]] = {
    "stored_against_setting": ("stored",),
    "cached_against_setting": ("cached",),
    "trained_without_opt_in": ("trained",),
    "public_network": ("network",),
    "left_platform": ("forwarded_to",),
    "wrong_provider": ("forwarded_to",),
    "outside_residency": ("region",),
    "served_elsewhere": ("region",),
}
"""The members of the handling that a reason is about."""
_PERMITS: Final[Mapping[str, tuple[str, ...]]] = {
    "stored": (STORAGE,),
    "cached": (CACHING,),
    "trained": (TRAINING,),
    "forwarded_to": (PASSTHROUGH, HOSTING, PROVIDER),
    "region": (RESIDENCY,),
    "network": (NETWORK,),
    **{member: (setting,) for setting, member in MEMBER_OF.items()},
}
"""Member of the handling → the settings that permit it."""
_UNRESOLVED: Final[Mapping[Reason, tuple[str, ...]]] = {
    "unknown_model": (HOSTING, PROVIDER),
    "unknown_region": (RESIDENCY, MODEL_REGIONS, REGION_NAMES, WITHIN),
    "unknown_subject": (MUST_BE_KNOWN,),
}
"""Reason of an indeterminate decision → the settings that could not be resolved."""


def causes(record: RequestRecord, basis: DecisionBasis, outcome: Outcome) -> tuple[Cause, ...]:
    """The causes of `outcome`, which is the decision on `record` with this basis: in the order of its reasons, a breach
    that is excused as an enforcement lag included."""
    denied = len(basis.denials)
    all_causes = [
        Cause(
            breach.reason,
            tuple(filter(_is_shown, breach.rests_on)),
            () if number < denied else _observed(record, breach),
        )
        for number, breach in enumerate(breaches_of(record.handling, basis))
    ]
    breached = {cause.reason for cause in all_causes}
    for reason in outcome.reasons:
        if reason != "enforcement_lag" and reason not in breached:
            unresolved = _unresolved(reason, outcome)
            all_causes.append(Cause(reason, unresolved, _unresolved_members(reason, unresolved, record)))
    return tuple(all_causes) or _permissions(record, outcome)


def _is_shown(state: SettingState) -> bool:
    """A region's or provider's setting that nobody recorded is no cause."""
    return state.change is not None or kind_of(state.subject) not in DIRECTORY_KINDS


def _observed(record: RequestRecord, breach: Breach) -> tuple[tuple[str, JsonValue], ...]:
    handling = record.handling or Observed()
    names = _MEMBERS_OF.get(breach.reason, ())
    if breach.reason == "not_as_published":
        names = tuple(MEMBER_OF[state.setting] for state in breach.rests_on)
    members = ((name, getattr(handling, name)) for name in names)
    return tuple((name, value) for name, value in members if value is not None)


def _unresolved(reason: Reason, outcome: Outcome) -> tuple[SettingState, ...]:
    settings = outcome.undecidable if reason == "undecidable_value" else _UNRESOLVED.get(reason)
    if settings is None:
        # The owner chain: its last link leads nowhere, or to another subject than the record names.
        links = tuple(state for state in outcome.evidence if state.setting in ("owner", "attached_to"))
        return links[-1:] if reason == "unknown_owner" else links
    if reason == "unknown_model" and _states_provider(outcome):
        # The model is known, but its provider and the receiver have a name that several providers claim.
        settings = (*settings, PROVIDER_NAMES)
    return tuple(state for state in outcome.evidence if state.setting in settings)


def _states_provider(outcome: Outcome) -> bool:
    values = {state.setting: state.value for state in outcome.evidence}
    return values.get(HOSTING) == "passthrough" and isinstance(values.get(PROVIDER), str)


def _unresolved_members(
    reason: Reason, unresolved: tuple[SettingState, ...], record: RequestRecord
) -> tuple[tuple[str, JsonValue], ...]:
    """The observed member that could not be compared."""
    member = {"unknown_region": "region", "unknown_model": "forwarded_to"}.get(reason)
    value = None if member is None or record.handling is None else getattr(record.handling, member)
    if member is None or value is None or (member == "forwarded_to" and not _names_provider(unresolved)):
        return ()
    return ((member, value),)


def _names_provider(unresolved: tuple[SettingState, ...]) -> bool:
    return any(state.setting == PROVIDER_NAMES for state in unresolved)


def _permissions(record: RequestRecord, outcome: Outcome) -> tuple[Cause, ...]:
    """The settings that permit each observed act, or the use of the model if nothing was observed."""
    by_setting = {state.setting: state for state in outcome.evidence}

    def states(settings: Iterable[str]) -> tuple[SettingState, ...]:
        return tuple(by_setting[setting] for setting in settings if setting in by_setting)

    if record.handling is None or record.handling == Observed():
        hosting = by_setting.get(HOSTING)
        passed = hosting is not None and hosting.value == "passthrough"
        used = states((HOSTING, PASSTHROUGH) if passed else (HOSTING,))
        return (Cause(None, used, ()),) if used else ()
    acts = ((name, value) for name, value in record.handling._asdict().items() if value not in (None, False))
    permissions = (Cause(None, states(_PERMITS.get(name, ())), ((name, value),)) for name, value in acts)
    return tuple(cause for cause in permissions if cause.rests_on)


def because(cause: Cause) -> str:
    """The cause as a clause: because `storage.inputs_outputs` was false (default, #2) and the log says stored."""
    facts = [_fact(state) for state in cause.rests_on]
    facts += [f"the log says {observed_words((member,))}" for member in cause.observed]
    return f"because {' and '.join(facts)}" if facts else ""


def observed_words(members: Iterable[tuple[str, JsonValue]]) -> str:
    """Observed handling for people: `stored, not trained, region eu`."""
    return ", ".join(
        name if value is True else f"not {name}" if value is False else f"{name} {value}" for name, value in members
    )


def _fact(state: SettingState) -> str:
    of = f" of {state.subject}" if kind_of(state.subject) in DIRECTORY_KINDS else ""
    value = f"`{state.setting}`{of} was {json.dumps(state.value, ensure_ascii=False)}"
    match state.source:
        case "undefined":
            return f"`{state.setting}` was not defined"
        case "not_applicable":
            return f"`{state.setting}` does not apply to {state.subject}"
        case "explicit":
            return f"{value} (#{state.change.position})" if state.change else value
    cleared = f", cleared by #{state.cleared_by.position}" if state.cleared_by else ""
    return f"{value} (default, #{state.change.position}{cleared})" if state.change else value
