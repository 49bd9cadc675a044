"""The decision rules (projections/README.md, "Decision rules"): one pure function over (request record, states).

- A setting whose value the rules do not speak of (see `is_decidable`) counts at its protective value, and the decision
  is `indeterminate`. A breach never rests on such a value. If no governing subject can be determined, the verdict is
  `indeterminate` and no other claim is made.
- A question (a record without observed handling) is `denied` if this subject may not use the model, `indeterminate` if
  that cannot be determined, else `allowed`.
- A record with observed handling is a `violation` if something was done without permission, or if the request ought to
  have been denied. Only what was observed counts. A certain violation outweighs what could not be resolved.
- A setting that is not for the governing subject's kind counts at its default: an account has no
  `passthrough.allowed`, so its traffic does not leave the platform, and no residency, so any region will do.
- An operator can demand that kinds of subject be known: then a subject on the way to the governing one, and that one
  itself, of which the ledger has no event, makes the verdict `indeterminate`, and no other claim is made.
- A violation that rests on an event (also a retraction) newer than the position that the gateway enforced is
  `enforcement_lag`.

`check` is two steps, so that the first can be cached: `decision_basis` depends on the record's ids and the states
alone, so it holds for every request with the same ids while the states stay the same; `evaluate` adds what was done.
Every bulk path must equal `check`, row by row. Proved by tests/scenarios, tests/decisions/test_check.py (against a
reference that shares no code with it) and tests/query/test_decision_cache.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Any, Final, NamedTuple

from ledger.subjects import kind_of
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
MUST_BE_KNOWN: Final = "subjects.must_be_known"
"""Its default names the kinds of subject without which nothing is decided until the ledger knows them."""
OF_MODEL: Final = (HOSTING, PROVIDER, POLICY_URL, MODEL_REGIONS)
"""The settings of the model that a decision rests on."""

_ORDER: Final = {reason: place for place, reason in enumerate(REASONS)}
_PLATFORM: Final = DataPolicy("platform")

OUTCOMES_MAX: Final = 4
"""Cached for each basis: most requests are handled in one of a few ways. The estimate of the cache includes these."""


class Breach(NamedTuple):
    """A reason against the request, and the settings that it rests on."""

    reason: Reason
    rests_on: tuple[SettingState, ...]


class DecisionBasis(NamedTuple):
    """Everything about a decision that does not depend on what was done.

    `unresolved`: the reason why nothing else is decided: no governing subject can be determined, or one that must be
    known is not. `unknown`: further reasons why the decision is
    `indeterminate`, unless something speaks against the request. `evidence` begins with the `scope_length`
    settings that led to the governing subject. `question`: the outcome of a question, and of every record if
    `unresolved`. `outcomes`: the outcomes of records without an enforced position, by what was done; `evaluate` adds
    to it. `denials`: what speaks against using the model at all.
    """

    handling: Handling
    question: Outcome
    outcomes: dict[Observed, Outcome]
    denials: tuple[Breach, ...]
    evidence: Evidence
    scope_length: int
    unresolved: Reason | None
    unknown: frozenset[Reason] = frozenset()


def check(record: RequestRecord, states: States) -> Outcome:
    """The decision on `record` with `states` at (record.at, some known_at)."""
    return evaluate(record, decision_basis(record, states), states)


def decision_basis(record: RequestRecord, states: States) -> DecisionBasis:
    """The basis of the decision on `record`. Reads only the ids of the record."""
    scope = resolve(record, states)
    if scope.governing is None:
        assert scope.problem is not None
        return _unresolved(GovernedBy(None, scope.via), scope.problem, scope.evidence, states)
    policy = {setting: states.setting(scope.governing, setting) for setting in POLICY}
    if any(state.source == "undefined" for state in policy.values()):
        return _unresolved(GovernedBy(None, scope.via), "before_first_record", scope.evidence, states)
    governed_by = GovernedBy(scope.governing, scope.via, states.known(scope.governing))
    missing = _missing(scope.via, states)
    if missing is not None:
        return _unresolved(governed_by, "unknown_subject", (*scope.evidence, missing), states)
    model = _model(record, states)
    evidence = Evidence((*scope.evidence, *policy.values(), *model.values()))
    undecidable = tuple(state.setting for state in (*policy.values(), *model.values()) if not is_decidable(state))
    handling = _handling(policy, model)
    if undecidable:
        protected = _protected(handling, undecidable, states)
        leaves = protected.may_leave_platform and (not model or model[HOSTING].value == "passthrough")
        handling = protected._replace(may_leave_platform=leaves)
    denials = tuple(_denials(policy, model))
    unknown = _unknown(model, undecidable)
    reasons = _in_order({*unknown, *(breach.reason for breach in denials)})
    verdict = _verdict(observed=False, breached=bool(denials), unknown=bool(unknown))
    question = Outcome(verdict, governed_by, handling, reasons, evidence, None, undecidable)
    return DecisionBasis(handling, question, {}, denials, evidence, len(scope.evidence), None, unknown)


def _missing(via: tuple[str, ...], states: States) -> SettingState | None:
    """The demand that a subject of `via` must be known, which it is not; None if there is no such subject."""
    definition = states.definition(MUST_BE_KNOWN)
    kinds = _texts(definition["default"]) if definition is not None else ()
    for subject in via if kinds else ():
        if kind_of(subject) in kinds and not states.known(subject):
            return states.setting(subject, MUST_BE_KNOWN)
    return None


def is_decidable(state: SettingState) -> bool:
    """Whether the rules speak of the value. They speak of null only where it says: unknown, or not stated."""
    value, setting = state.value, state.setting
    if setting == RESIDENCY:
        return isinstance(value, list)
    if setting in POLICY:
        return value is True or value is False
    if setting == HOSTING:
        return value is None or value in ("hosted", "passthrough")
    return value is None or isinstance(value, list if setting == MODEL_REGIONS else str)


def _unknown(model: dict[str, SettingState], undecidable: tuple[str, ...]) -> frozenset[Reason]:
    unknown: set[Reason] = set()
    if model and model[HOSTING].value is None:
        unknown.add("unknown_model")
    if undecidable:
        unknown.add("undecidable_value")
    return frozenset(unknown)


def evaluate(record: RequestRecord, basis: DecisionBasis, states: States | None) -> Outcome:
    """The decision on `record`, which has this basis. `states`: those that the basis was made from; read only if the
    record has an `enforced_position`, else None will do."""
    observed = record.handling
    if observed is None or basis.unresolved is not None:
        return basis.question
    if record.enforced_position is not None:
        return _evaluate_observed(record, observed, basis, states)
    outcome = basis.outcomes.get(observed)
    if outcome is None:
        outcome = _evaluate_observed(record, observed, basis, states)
        if len(basis.outcomes) < OUTCOMES_MAX:
            basis.outcomes[observed] = outcome
    return outcome


def breaches_of(observed: Observed | None, basis: DecisionBasis) -> list[Breach]:
    """The reasons against a request with this basis and handling, each with the settings that it rests on."""
    if observed is None or basis.unresolved is not None:
        return list(basis.denials)
    policy, model = _policy_and_model(basis)
    return [*basis.denials, *_handling_breaches(observed, policy, model)]


def _policy_and_model(basis: DecisionBasis) -> tuple[dict[str, SettingState], dict[str, SettingState]]:
    """The settings of the governing subject and of the model, from the evidence of a basis that is not `unresolved`."""
    by_setting = {state.setting: state for state in basis.evidence[basis.scope_length :]}
    policy = {setting: by_setting[setting] for setting in POLICY}
    return policy, {setting: by_setting[setting] for setting in OF_MODEL} if HOSTING in by_setting else {}


def _evaluate_observed(
    record: RequestRecord, observed: Observed, basis: DecisionBasis, states: States | None
) -> Outcome:
    scope_evidence = basis.evidence[: basis.scope_length]
    policy, model = _policy_and_model(basis)
    breaches = breaches_of(observed, basis)
    unknown = basis.unknown
    if _provider_unknown(observed, policy, model):
        unknown |= {"unknown_model"}
    lag = None
    reasons: set[Reason] = {breach.reason for breach in breaches}
    if breaches and record.enforced_position is not None:
        assert states is not None
        reasons, lag = _excuse_by_lag(record.at, record.enforced_position, breaches, scope_evidence, states)
    return Outcome(
        verdict=_verdict(observed=True, breached=bool(breaches), unknown=bool(unknown)),
        governed_by=basis.question.governed_by,
        handling=basis.handling,
        reasons=_in_order(reasons | unknown),
        evidence=basis.evidence,
        enforcement_lag=lag,
        undecidable=basis.question.undecidable,
    )


def _in_order(reasons: AbstractSet[Reason]) -> tuple[Reason, ...]:
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
    """The breaches that lie in using the model at all, whatever was done then."""
    if not model:
        return
    if model[HOSTING].value == "passthrough" and policy[PASSTHROUGH].value is False:
        yield Breach("passthrough_not_allowed", (policy[PASSTHROUGH], model[HOSTING]))
    allowed, runs_in = _texts(policy[RESIDENCY].value), _texts(model[MODEL_REGIONS].value)
    if allowed and runs_in and not set(allowed) & set(runs_in):
        yield Breach("outside_residency", (policy[RESIDENCY], model[MODEL_REGIONS]))


def _handling_breaches(
    observed: Observed, policy: dict[str, SettingState], model: dict[str, SettingState]
) -> Iterable[Breach]:
    """The breaches of a request: handling without permission."""
    if observed.stored and policy[STORAGE].value is False:
        yield Breach("stored_against_setting", (policy[STORAGE],))
    if observed.cached and policy[CACHING].value is False:
        yield Breach("cached_against_setting", (policy[CACHING],))
    if observed.trained and policy[TRAINING].value is False:
        yield Breach("trained_without_opt_in", (policy[TRAINING],))
    regions = _texts(policy[RESIDENCY].value)
    if observed.region is not None and regions and observed.region not in regions:
        yield Breach("outside_residency", (policy[RESIDENCY],))
    if observed.network == "public" and policy[NETWORK].value is True:
        yield Breach("public_network", (policy[NETWORK],))
    if observed.forwarded_to is not None:
        yield from _forwarding(observed.forwarded_to, policy, model)


def _forwarding(receiver: str, policy: dict[str, SettingState], model: dict[str, SettingState]) -> Iterable[Breach]:
    allowed = policy[PASSTHROUGH].value
    hosting = model[HOSTING] if model else None
    if hosting is not None and hosting.value == "hosted":
        yield Breach("left_platform", (hosting,))
    elif hosting is not None and hosting.value == "passthrough":
        # Without permission, `_denials` has yielded a breach already.
        provider = model[PROVIDER]
        if allowed is True and isinstance(provider.value, str) and provider.value != receiver:
            yield Breach("wrong_provider", (provider, hosting))
    elif allowed is False:
        yield Breach("left_platform", (policy[PASSTHROUGH],))


def _provider_unknown(observed: Observed, policy: dict[str, SettingState], model: dict[str, SettingState]) -> bool:
    """Whether data was forwarded with permission to a receiver that cannot be compared with the provider."""
    if observed.forwarded_to is None or policy[PASSTHROUGH].value is not True:
        return False
    return not model or (model[HOSTING].value == "passthrough" and model[PROVIDER].value is None)


def _excuse_by_lag(
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


def _unresolved(
    governed_by: GovernedBy, reason: Reason, evidence: tuple[SettingState, ...], states: States
) -> DecisionBasis:
    nothing = Handling(False, False, False, False, (), True, _PLATFORM)
    handling = _protected(nothing, POLICY, states)
    scope_evidence = Evidence(evidence)
    question = Outcome("indeterminate", governed_by, handling, (reason,), scope_evidence, None)
    return DecisionBasis(handling, question, {}, (), scope_evidence, len(scope_evidence), reason)


def _protected(handling: Handling, settings: tuple[str, ...], states: States) -> Handling:
    """`handling` with these settings of the governing subject at their protective values. Where that is no value
    either, nothing is permitted."""
    replaced: dict[str, Any] = {}
    for setting in settings:
        if setting == RESIDENCY:
            replaced["allowed_regions"] = _texts(_protective(states, setting))
        elif setting == NETWORK:
            replaced["private_network_required"] = _protective(states, setting) is not False
        elif setting in _PERMITS:
            replaced[_PERMITS[setting]] = _protective(states, setting) is True
    return handling._replace(**replaced)


_PERMITS: Final = {
    TRAINING: "may_train",
    STORAGE: "may_store",
    CACHING: "may_cache",
    PASSTHROUGH: "may_leave_platform",
}
"""Setting → the member of handling that it permits."""


def _protective(states: States, setting: str) -> JsonValue:
    definition = states.definition(setting)
    protective: JsonValue = None if definition is None else definition["protective"]
    return protective


def _texts(value: JsonValue) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) else ()


def _text(value: JsonValue) -> str | None:
    return value if isinstance(value, str) else None
