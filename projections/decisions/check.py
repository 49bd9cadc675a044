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

It is made of two steps, so that what they rest on can be kept: `decision_basis` follows from the record's ids and the
states
alone and holds for every request by the same ids while those states do; `judge` looks at what was done. `check` is the
one after the other, and the one meaning: every bulk path must equal it, row by row. Proved by tests/scenarios,
tests/test_check.py (against a reference that shares no code with it) and tests/query/test_grounds.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from projections.decisions.model import (
    REASONS,
    DataPolicy,
    EnforcementLag,
    Evidence,
    GovernedBy,
    Handling,
    Observed,
    Outcome,
    Reason,
    RequestRecord,
    Verdict,
)
from projections.decisions.scope import resolve
from projections.temporal.changes import JsonValue
from projections.temporal.effective_state import SettingState, States

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


JUDGED_MAX: Final = 4
"""Of one ground: most requests are handled in one of a few ways, and what is kept here is counted in a lump."""


class Breach(NamedTuple):
    """A reason against the request, and the settings that it rests on."""

    reason: Reason
    rests_on: tuple[SettingState, ...]


class DecisionBasis(NamedTuple):
    """What a decision stands on before what was done is looked at.

    `unresolved`: nobody can be said to govern, for this reason. `evidence` begins with the `scope_length` settings that
    led to the governing subject. `asked`: the outcome of a question, and of every record where it is unresolved.
    `judged`: outcomes of records without an enforced position, by what was done: kept by `judge`, which adds to them.
    """

    handling: Handling
    asked: Outcome
    judged: dict[Observed, Outcome]
    denials: tuple[Breach, ...]
    evidence: Evidence
    scope_length: int
    unresolved: Reason | None


def check(record: RequestRecord, states: States) -> Outcome:
    """The decision on `record` with `states` at (record.at, some known_at)."""
    return judge(record, decision_basis(record, states), states)


def decision_basis(record: RequestRecord, states: States) -> DecisionBasis:
    """What the decision on `record` stands on. Of the record only its ids are looked at."""
    scope = resolve(record, states)
    if scope.governing is None:
        assert scope.problem is not None
        return _unresolved(GovernedBy(None, scope.via), scope.problem, scope.evidence, states)
    policy = {setting: states.setting(scope.governing, setting) for setting in POLICY}
    if any(state.source == "undefined" for state in policy.values()):
        return _unresolved(GovernedBy(None, scope.via), "before_first_record", scope.evidence, states)
    model = _model(record, states)
    evidence = Evidence((*scope.evidence, *policy.values(), *model.values()))
    handling = _handling(policy, model)
    denials = tuple(_denials(policy, model))
    unknown: tuple[Reason, ...] = ("unknown_model",) if model and model[HOSTING].value is None else ()
    reasons = _in_order({*unknown, *(breach.reason for breach in denials)})
    verdict = _verdict(observed=False, breached=bool(denials), unknown=bool(unknown))
    asked = Outcome(verdict, GovernedBy(scope.governing, scope.via), handling, reasons, evidence, None)
    return DecisionBasis(handling, asked, {}, denials, evidence, len(scope.evidence), None)


def judge(record: RequestRecord, decision_basis: DecisionBasis, states: States | None) -> Outcome:
    """The decision on `record`, which stands on `decision_basis`. `states` are those of the ground, and are only asked
    of a
    record with an `enforced_position`: without one they may be None."""
    observed = record.handling
    if observed is None or decision_basis.unresolved is not None:
        return decision_basis.asked
    if record.enforced_position is not None:
        return _judged(record, observed, decision_basis, states)
    outcome = decision_basis.judged.get(observed)
    if outcome is None:
        outcome = _judged(record, observed, decision_basis, states)
        if len(decision_basis.judged) < JUDGED_MAX:
            decision_basis.judged[observed] = outcome
    return outcome


def _judged(record: RequestRecord, observed: Observed, decision_basis: DecisionBasis, states: States | None) -> Outcome:
    scope_evidence = decision_basis.evidence[: decision_basis.scope_length]
    found = {state.setting: state for state in decision_basis.evidence[decision_basis.scope_length :]}
    policy = {setting: found[setting] for setting in POLICY}
    model = {setting: found[setting] for setting in OF_MODEL} if HOSTING in found else {}
    breaches = [*decision_basis.denials, *_misdeeds(observed, decision_basis.handling, policy, model)]
    unknown: set[Reason] = set()
    if (model and model[HOSTING].value is None) or _provider_unknown(observed, policy, model):
        unknown.add("unknown_model")
    lag = None
    reasons: set[Reason] = {breach.reason for breach in breaches}
    if breaches and record.enforced_position is not None:
        assert states is not None
        reasons, lag = _excuse(record.at, record.enforced_position, breaches, scope_evidence, states)
    return Outcome(
        verdict=_verdict(observed=True, breached=bool(breaches), unknown=bool(unknown)),
        governed_by=decision_basis.asked.governed_by,
        handling=decision_basis.handling,
        reasons=_in_order(reasons | unknown),
        evidence=decision_basis.evidence,
        enforcement_lag=lag,
    )


def _in_order(reasons: set[Reason]) -> tuple[Reason, ...]:
    return tuple(sorted(reasons, key=_ORDER.__getitem__))


def _model(record: RequestRecord, states: States) -> dict[str, SettingState]:
    if record.model_id is None:
        return {}
    subject = f"model:{record.model_id}"
    return {setting: states.setting(subject, setting) for setting in OF_MODEL}


def _verdict(*, observed: bool, breached: bool, unknown: bool) -> Verdict:
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


def _unresolved(
    governed_by: GovernedBy, reason: Reason, evidence: tuple[SettingState, ...], states: States
) -> DecisionBasis:
    handling = Handling(
        may_store=_protective(states, STORAGE) is True,
        may_cache=_protective(states, CACHING) is True,
        may_train=_protective(states, TRAINING) is True,
        may_leave_platform=_protective(states, PASSTHROUGH) is True,
        allowed_regions=_texts(_protective(states, RESIDENCY)),
        private_network_required=_protective(states, NETWORK) is not False,
        data_policy=_PLATFORM,
    )
    led = Evidence(evidence)
    asked = Outcome("indeterminate", governed_by, handling, (reason,), led, None)
    return DecisionBasis(handling, asked, {}, (), led, len(led), reason)


def _protective(states: States, setting: str) -> JsonValue:
    definition = states.definition(setting)
    protective: JsonValue = None if definition is None else definition["protective"]
    return protective


def _texts(value: JsonValue) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) else ()


def _text(value: JsonValue) -> str | None:
    return value if isinstance(value, str) else None
