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
- A request handled by a model that was not served as the model's settings say is a violation. A setting that states
  nothing (null) is compared with nothing.
- An operator can demand that kinds of subject be known: then a subject on the way to the governing one, and that one
  itself, of which the ledger has no event, makes the verdict `indeterminate`, and no other claim is made.
- A violation that rests on an event (also a retraction) newer than the position that the gateway enforced is
  `enforcement_lag`.

`check` is two steps, so that the first can be cached: `decision_basis` depends on the record's ids and the states
alone, so it holds for every request with the same ids while the states stay the same; `evaluate` adds what was done.
Only a basis that was made for a record that says how the model was served `suffices` for other such records.
Every bulk path must equal `check`, row by row. Proved by tests/scenarios, tests/decisions/test_check.py (against a
reference that shares no code with it) and tests/query/test_decision_cache.py.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from ledger.subjects import MUST_BE_KNOWN, kind_of
from projections.decisions.breaches import denials, handling_breaches, provider_unknown
from projections.decisions.directory import EMPTY_DIRECTORY, Directory
from projections.decisions.lag import Breach, excuse_by_lag
from projections.decisions.model import (
    REASONS,
    DataPolicy,
    Evidence,
    GovernedBy,
    Handling,
    Observed,
    Outcome,
    Reason,
    RequestRecord,
    Verdict,
)
from projections.decisions.places import (
    ModelPlaces,
    ObservedPlaces,
    further_facts,
    observed_places,
    places_of_model,
    places_without_model,
)
from projections.decisions.protective import protected
from projections.decisions.published import (
    Published,
    published_breaches,
    published_facts,
    published_of,
    says_how_served,
    undecidable_facts,
)
from projections.decisions.regions import ModelRegions
from projections.decisions.rule_settings import (
    CACHING,
    HOSTING,
    MODEL_REGIONS,
    NETWORK,
    OF_MODEL,
    PASSTHROUGH,
    POLICY,
    POLICY_URL,
    PROVIDER,
    RESIDENCY,
    STORAGE,
    TRAINING,
    is_decidable,
    texts_of,
)
from projections.decisions.scope import resolve
from projections.decisions.states import States
from projections.temporal.changes import JsonValue
from projections.temporal.effective_state import SettingState

Settings = dict[str, SettingState]
"""Setting → its state."""

_ORDER: Final = {reason: place for place, reason in enumerate(REASONS)}
_PLATFORM: Final = DataPolicy("platform")

OUTCOMES_MAX: Final = 4
"""Cached for each basis: most requests are handled in one of a few ways. The estimate of the cache includes these."""


class DecisionBasis(NamedTuple):
    """Everything about a decision that does not depend on what was done.

    `unresolved`: the reason why nothing else is decided: no governing subject can be determined, or one that must be
    known is not. `unknown`: further reasons why the decision is
    `indeterminate`, unless something speaks against the request. `evidence` begins with the `scope_length`
    settings that led to the governing subject. `question`: the outcome of a question, and of every record if
    `unresolved`. `outcomes`: the outcomes of records without an enforced position, by what was done; `evaluate` adds
    to it. `denials`: what speaks against using the model at all. `directory`: the regions and providers, as far as an
    observed region or receiver is compared with anything. `published`: how the model is to be served; None if that was
    not read, because few records say how it was served.
    """

    handling: Handling
    question: Outcome
    outcomes: dict[Observed, Outcome]
    denials: tuple[Breach, ...]
    evidence: Evidence
    scope_length: int
    unresolved: Reason | None
    unknown: frozenset[Reason] = frozenset()
    directory: Directory = EMPTY_DIRECTORY
    published: Published | None = ()


def check(record: RequestRecord, states: States) -> Outcome:
    """The decision on `record` with `states` at (record.at, some known_at)."""
    return evaluate(record, decision_basis(record, states), states)


def decision_basis(record: RequestRecord, states: States) -> DecisionBasis:
    """The basis of the decision on `record`. Reads only the ids of the record, and whether it says how the model was
    served."""
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
    places = _places(policy, model, states)
    evidence = Evidence((*scope.evidence, *policy.values(), *model.values(), *places.facts))
    undecidable = tuple(state.setting for state in (*policy.values(), *model.values()) if not is_decidable(state))
    handling = _handling(policy, model, places)
    if undecidable:
        at_protective = protected(handling, undecidable, states)
        leaves = at_protective.may_leave_platform and (not model or model[HOSTING].value == "passthrough")
        handling = at_protective._replace(may_leave_platform=leaves)
    against = tuple(denials(policy, model, places.regions))
    unknown = _unknown(model, undecidable, places.regions)
    reasons = _in_order({*unknown, *(breach.reason for breach in against)})
    verdict = _verdict(observed=False, breached=bool(against), unknown=bool(unknown))
    question = Outcome(verdict, governed_by, handling, reasons, evidence, None, undecidable)
    published: Published | None = ()
    if record.model_id is not None:
        needed = record.handling is not None and says_how_served(record.handling)
        published = published_of(states, f"model:{record.model_id}") if needed else None
    return DecisionBasis(
        handling, question, {}, against, evidence, len(scope.evidence), None, unknown, places.directory, published
    )


def suffices(basis: DecisionBasis, observed: Observed | None) -> bool:
    """Whether `evaluate` can decide on records with this handling by this basis."""
    return basis.published is not None or observed is None or not says_how_served(observed)


def _places(policy: Settings, model: Settings, states: States) -> ModelPlaces:
    residency, runs_in = _regions_of(policy, model)
    if not model:
        return places_without_model(states, residency)
    passed = model[HOSTING].value == "passthrough"
    return places_of_model(
        states, residency, runs_in, _text(model[PROVIDER].value), _text(model[POLICY_URL].value), passed=passed
    )


def _regions_of(policy: Settings, model: Settings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The allowed regions (empty: anywhere), and those in which the model runs (empty: not stated)."""
    return texts_of(policy[RESIDENCY].value), texts_of(model[MODEL_REGIONS].value) if model else ()


def _missing(via: tuple[str, ...], states: States) -> SettingState | None:
    """The demand that a subject of `via` must be known, which it is not; None if there is no such subject."""
    definition = states.definition(MUST_BE_KNOWN)
    kinds = texts_of(definition["default"]) if definition is not None else ()
    for subject in via if kinds else ():
        if kind_of(subject) in kinds and not states.known(subject):
            return states.setting(subject, MUST_BE_KNOWN)
    return None


def _unknown(model: Settings, undecidable: tuple[str, ...], regions: ModelRegions) -> frozenset[Reason]:
    unknown: set[Reason] = set()
    if model and model[HOSTING].value is None:
        unknown.add("unknown_model")
    if undecidable:
        unknown.add("undecidable_value")
    if regions.meeting == "untold":
        unknown.add("unknown_region")
    return frozenset(unknown)


def evaluate(record: RequestRecord, basis: DecisionBasis, states: States | None) -> Outcome:
    """The decision on `record`, which has this basis. `states`: those that the basis was made from; read only if the
    record has an `enforced_position`, else None will do. The basis `suffices`."""
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
    places = _observed_places(observed, basis.directory, policy, model)
    return _breaches(observed, basis, policy, model, places, _published_facts(observed, basis))


def _breaches(
    observed: Observed,
    basis: DecisionBasis,
    policy: Settings,
    model: Settings,
    places: ObservedPlaces,
    published: Published,
) -> list[Breach]:
    handled = handling_breaches(observed, policy, model, places)
    return [*basis.denials, *handled, *published_breaches(published)]


def _published_facts(observed: Observed, basis: DecisionBasis) -> Published:
    assert suffices(basis, observed), "made for a record that does not say how the model was served"
    return published_facts(observed, basis.published) if basis.published else ()


def _observed_places(observed: Observed, directory: Directory, policy: Settings, model: Settings) -> ObservedPlaces:
    residency, runs_in = _regions_of(policy, model)
    forwards = bool(model) and model[HOSTING].value == "passthrough" and policy[PASSTHROUGH].value is True
    provider = _text(model[PROVIDER].value) if forwards else None
    return observed_places(directory, residency, runs_in, observed.region, provider, observed.forwarded_to)


def _policy_and_model(basis: DecisionBasis) -> tuple[Settings, Settings]:
    """The settings of the governing subject and of the model, from the evidence of a basis that is not `unresolved`."""
    by_setting = {state.setting: state for state in basis.evidence[basis.scope_length :]}
    policy = {setting: by_setting[setting] for setting in POLICY}
    return policy, {setting: by_setting[setting] for setting in OF_MODEL} if HOSTING in by_setting else {}


def _evaluate_observed(
    record: RequestRecord, observed: Observed, basis: DecisionBasis, states: States | None
) -> Outcome:
    policy, model = _policy_and_model(basis)
    places = _observed_places(observed, basis.directory, policy, model)
    published = _published_facts(observed, basis)
    breaches = _breaches(observed, basis, policy, model, places, published)
    unknown = _unknown_observed(basis.unknown, observed, policy, model, places)
    undecidable = undecidable_facts(published)
    if undecidable:
        unknown |= {"undecidable_value"}
    lag = None
    reasons: set[Reason] = {breach.reason for breach in breaches}
    if breaches and record.enforced_position is not None:
        assert states is not None
        followed = basis.evidence[: basis.scope_length]
        reasons, lag = excuse_by_lag(record.at, record.enforced_position, breaches, followed, states)
    return Outcome(
        verdict=_verdict(observed=True, breached=bool(breaches), unknown=bool(unknown)),
        governed_by=basis.question.governed_by,
        handling=basis.handling,
        reasons=_in_order(reasons | unknown),
        evidence=_observed_evidence(observed, basis, places, published),
        enforcement_lag=lag,
        undecidable=basis.question.undecidable + undecidable,
    )


def _unknown_observed(
    unknown: frozenset[Reason], observed: Observed, policy: Settings, model: Settings, places: ObservedPlaces
) -> frozenset[Reason]:
    """`unknown`: the reasons of the basis."""
    undecided = places.receiver is not None and places.receiver.is_provider is None
    if undecided or provider_unknown(observed, policy, model):
        unknown |= {"unknown_model"}
    if places.region is not None and places.region.settles:
        unknown -= {"unknown_region"}
    if places.region is not None and places.region.untold:
        unknown |= {"unknown_region"}
    return unknown


def _observed_evidence(
    observed: Observed, basis: DecisionBasis, places: ObservedPlaces, published: Published
) -> Evidence:
    """The evidence of the basis, and the settings that the observed region and receiver were compared by. The model's
    provider shows another receiver beside it. Behind the model's other settings stand those of `published`."""
    further = further_facts(basis.evidence, places)
    if not further and not places.is_wrong_receiver and not published:
        return basis.evidence
    named = [
        state._replace(observed=observed.forwarded_to)
        if places.is_wrong_receiver and state.setting == PROVIDER
        else state
        for state in basis.evidence
    ]
    behind = basis.scope_length + len(POLICY) + len(OF_MODEL)
    return Evidence((*named[:behind], *published, *named[behind:], *further))


def _in_order(reasons: AbstractSet[Reason]) -> tuple[Reason, ...]:
    return tuple(sorted(reasons, key=_ORDER.__getitem__))


def _model(record: RequestRecord, states: States) -> Settings:
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


def _handling(policy: Settings, model: Settings, places: ModelPlaces) -> Handling:
    hosting = model[HOSTING].value if model else None
    leaves = policy[PASSTHROUGH].value is True and (not model or hosting == "passthrough")
    return Handling(
        may_store=policy[STORAGE].value is True,
        may_cache=policy[CACHING].value is True,
        may_train=policy[TRAINING].value is True,
        may_leave_platform=leaves,
        allowed_regions=places.regions.allowed,
        private_network_required=policy[NETWORK].value is True,
        data_policy=_PLATFORM if places.provider is None else places.provider.policy,
    )


def _unresolved(
    governed_by: GovernedBy, reason: Reason, evidence: tuple[SettingState, ...], states: States
) -> DecisionBasis:
    nothing = Handling(False, False, False, False, (), True, _PLATFORM)
    handling = protected(nothing, POLICY, states)
    scope_evidence = Evidence(evidence)
    question = Outcome("indeterminate", governed_by, handling, (reason,), scope_evidence, None)
    return DecisionBasis(handling, question, {}, (), scope_evidence, len(scope_evidence), reason)


def _text(value: JsonValue) -> str | None:
    return value if isinstance(value, str) else None
