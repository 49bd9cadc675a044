"""The decision rules of DESIGN.md section 4: one pure function over (request record, states).

How a verdict comes about:

- Whatever cannot be resolved is handled at its protective value. Where nobody can be said to govern, the verdict is
  `indeterminate` and nothing more is claimed.
- A question without observed handling is `denied` where the model may not be used by this subject, `indeterminate`
  where that cannot be told, else `allowed`.
- A record with observed handling is a `violation` where something was done that was not permitted, or the model ought
  to have been denied. Only what was observed is judged. A certain violation outweighs what could not be resolved.
- A setting that is not for the governing subject's kind counts at its default: an account has no
  `passthrough.allowed`, so its traffic does not leave the platform, and no residency, so it may be handled anywhere.
- A violation that rests on an event newer than the position that the gateway enforced, a retraction too, is
  `enforcement_lag`.

Every bulk path must equal this function, row by row. Proved by tests/scenarios and tests/test_check.py (against a
reference that shares no code with it).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from projections.changes import JsonValue
from projections.decision import (
    REASONS,
    DataPolicy,
    EnforcementLag,
    GovernedBy,
    Handling,
    Observed,
    Outcome,
    Reason,
    RequestRecord,
    Verdict,
)
from projections.scope import resolve
from projections.state import SettingState, States

TRAINING: Final = "training.opt_in"
STORAGE: Final = "storage.inputs_outputs"
CACHING: Final = "caching.temporary"
PASSTHROUGH: Final = "passthrough.allowed"
RESIDENCY: Final = "residency.regions"
NETWORK: Final = "network.private_only"
HOSTING: Final = "model.hosting"
PROVIDER: Final = "model.provider"
POLICY_URL: Final = "model.policy_url"
MODEL_REGIONS: Final = "model.regions"

POLICY: Final = (TRAINING, STORAGE, CACHING, PASSTHROUGH, RESIDENCY, NETWORK)
"""The settings of the governing subject that a decision rests on."""
OF_MODEL: Final = (HOSTING, PROVIDER, POLICY_URL, MODEL_REGIONS)
"""The settings of the model that a decision rests on."""

_ORDER: Final = {reason: place for place, reason in enumerate(REASONS)}
_PLATFORM: Final = DataPolicy("platform")


class Breach(NamedTuple):
    """A reason against the request, and the settings that it rests on."""

    reason: Reason
    rests_on: tuple[SettingState, ...]


def check(record: RequestRecord, states: States) -> Outcome:
    """The decision on `record` with `states` at (record.at, some known_at)."""
    scope = resolve(record, states)
    governed_by = GovernedBy(scope.governing, scope.via)
    if scope.governing is None:
        assert scope.problem is not None
        return _unresolved(governed_by, scope.problem, scope.evidence, states)
    policy = {setting: states.setting(scope.governing, setting) for setting in POLICY}
    if any(state.source == "undefined" for state in policy.values()):
        return _unresolved(GovernedBy(None, scope.via), "before_first_record", scope.evidence, states)
    model = _model(record, states)
    evidence = (*scope.evidence, *policy.values(), *model.values())
    handling = _handling(policy, model)
    unknown: set[Reason] = set()
    if model and model[HOSTING].value is None:
        unknown.add("unknown_model")
    breaches = [*_denials(policy, model)]
    if record.handling is not None:
        breaches += _misdeeds(record.handling, handling, policy, model)
        if _provider_unknown(record.handling, policy, model):
            unknown.add("unknown_model")
    lag = None
    reasons: set[Reason] = {breach.reason for breach in breaches}
    if breaches and record.handling is not None and record.enforced_position is not None:
        reasons, lag = _excuse(record.at, record.enforced_position, breaches, scope.evidence, states)
    return Outcome(
        verdict=_verdict(record.handling is not None, bool(breaches), bool(unknown)),
        governed_by=governed_by,
        handling=handling,
        reasons=tuple(sorted(reasons | unknown, key=_ORDER.__getitem__)),
        evidence=evidence,
        enforcement_lag=lag,
    )


def _model(record: RequestRecord, states: States) -> dict[str, SettingState]:
    if record.model_id is None:
        return {}
    subject = f"model:{record.model_id}"
    return {setting: states.setting(subject, setting) for setting in OF_MODEL}


def _verdict(observed: bool, breached: bool, unknown: bool) -> Verdict:
    if breached:
        return "violation" if observed else "denied"
    if unknown:
        return "indeterminate"
    return "compliant" if observed else "allowed"


def _handling(policy: dict[str, SettingState], model: dict[str, SettingState]) -> Handling:
    hosting = model[HOSTING].value if model else None
    leaves = policy[PASSTHROUGH].value is True and (not model or hosting == "passthrough")
    regions = _texts(policy[RESIDENCY].value)
    data_policy = _PLATFORM
    if hosting == "passthrough":
        data_policy = DataPolicy("provider", _text(model[PROVIDER].value), _text(model[POLICY_URL].value))
    return Handling(
        may_store=policy[STORAGE].value is True,
        may_cache=policy[CACHING].value is True,
        may_train=policy[TRAINING].value is True,
        may_leave_platform=leaves,
        allowed_regions=regions or None,
        private_network_required=policy[NETWORK].value is True,
        data_policy=data_policy,
    )


def _denials(policy: dict[str, SettingState], model: dict[str, SettingState]) -> Iterable[Breach]:
    """What speaks against using the model at all, whatever was done then."""
    if not model:
        return
    if model[HOSTING].value == "passthrough" and policy[PASSTHROUGH].value is not True:
        yield Breach("passthrough_not_allowed", (policy[PASSTHROUGH], model[HOSTING]))
    allowed, runs_in = _texts(policy[RESIDENCY].value), _texts(model[MODEL_REGIONS].value)
    if allowed and runs_in and not set(allowed) & set(runs_in):
        yield Breach("outside_residency", (policy[RESIDENCY], model[MODEL_REGIONS]))


def _misdeeds(
    observed: Observed, handling: Handling, policy: dict[str, SettingState], model: dict[str, SettingState]
) -> Iterable[Breach]:
    """What was done and was not permitted."""
    if observed.stored and not handling.may_store:
        yield Breach("stored_against_setting", (policy[STORAGE],))
    if observed.cached and not handling.may_cache:
        yield Breach("cached_against_setting", (policy[CACHING],))
    if observed.trained and not handling.may_train:
        yield Breach("trained_without_opt_in", (policy[TRAINING],))
    if observed.region is not None and handling.allowed_regions and observed.region not in handling.allowed_regions:
        yield Breach("outside_residency", (policy[RESIDENCY],))
    if observed.network == "public" and handling.private_network_required:
        yield Breach("public_network", (policy[NETWORK],))
    if observed.forwarded_to is not None:
        yield from _forwarding(observed.forwarded_to, policy, model)


def _forwarding(receiver: str, policy: dict[str, SettingState], model: dict[str, SettingState]) -> Iterable[Breach]:
    allowed = policy[PASSTHROUGH].value is True
    hosting = model[HOSTING] if model else None
    if hosting is not None and hosting.value == "hosted":
        yield Breach("left_platform", (hosting,))
    elif hosting is not None and hosting.value == "passthrough":
        # Without permission `_denials` has said so already.
        provider = model[PROVIDER]
        if allowed and provider.value is not None and provider.value != receiver:
            yield Breach("wrong_provider", (provider, hosting))
    elif not allowed:
        yield Breach("left_platform", (policy[PASSTHROUGH],))


def _provider_unknown(observed: Observed, policy: dict[str, SettingState], model: dict[str, SettingState]) -> bool:
    """Forwarded with permission, and nobody can say whether the receiver was the right one."""
    if observed.forwarded_to is None or policy[PASSTHROUGH].value is not True:
        return False
    return not model or (model[HOSTING].value == "passthrough" and model[PROVIDER].value is None)


def _excuse(
    at: int,
    enforced_position: int,
    breaches: list[Breach],
    scope_evidence: tuple[SettingState, ...],
    states: States,
) -> tuple[set[Reason], EnforcementLag | None]:
    reasons: set[Reason] = set()
    lag: EnforcementLag | None = None
    for breach in breaches:
        late = [_late(at, enforced_position, state, states) for state in (*breach.rests_on, *scope_evidence)]
        newest = max((one for one in late if one is not None), key=lambda one: one.deciding_position, default=None)
        if newest is None:
            reasons.add(breach.reason)
            continue
        reasons.add("enforcement_lag")
        lag = newest if lag is None else max(lag, newest)
    return reasons, lag


def _late(at: int, enforced_position: int, state: SettingState, states: States) -> EnforcementLag | None:
    """The lag of a state that came about after the position that was enforced: by a change, or by taking one back."""
    found: list[tuple[int, int]] = []
    if state.newest is not None:
        found.append((state.newest.position, max(state.newest.recorded_at, state.newest.effective_from)))
    retraction = states.taken_back(state.subject, state.setting, enforced_position)
    if retraction is not None:
        found.append((retraction.position, retraction.recorded_at))
    position, in_force_since = max(found, default=(0, 0))
    if position <= enforced_position:
        return None
    return EnforcementLag(max(0, at - in_force_since), enforced_position, position)


def _unresolved(governed_by: GovernedBy, reason: Reason, evidence: tuple[SettingState, ...], states: States) -> Outcome:
    handling = Handling(
        may_store=_protective(states, STORAGE) is True,
        may_cache=_protective(states, CACHING) is True,
        may_train=_protective(states, TRAINING) is True,
        may_leave_platform=_protective(states, PASSTHROUGH) is True,
        allowed_regions=_texts(_protective(states, RESIDENCY)),
        private_network_required=_protective(states, NETWORK) is not False,
        data_policy=_PLATFORM,
    )
    return Outcome("indeterminate", governed_by, handling, (reason,), evidence, None)


def _protective(states: States, setting: str) -> JsonValue:
    definition = states.definition(setting)
    protective: JsonValue = None if definition is None else definition["protective"]
    return protective


def _texts(value: JsonValue) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) else ()


def _text(value: JsonValue) -> str | None:
    return value if isinstance(value, str) else None
