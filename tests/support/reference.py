"""The slow, obvious reference of the rules in projections/README.md, worked out event by event and instant by instant.

It reads events as exported JSON, shares no code with projections/ (only the parsing of times with ledger/) and caches
nothing between two questions. Where a fast path and this reference disagree, one of them misreads the rules.
`reference_time` has its time model.
"""

from collections.abc import Iterable
from typing import Any
from unicodedata import normalize

from ledger.times import format_time
from tests.support.reference_places import Places, ReceiverOfRequest, RegionsOfRequest, once, was_recorded
from tests.support.reference_time import (
    UNLIMITED,
    Breach,
    Json,
    OwnerChain,
    ReferenceLedger,
    ReferenceState,
    instant_of,
    period_of,
)

__all__ = ("ORDER_OF_REASONS", "UNLIMITED", "Json", "Reference", "ReferenceState", "event_json")

ORDER_OF_REASONS = (
    "before_first_record",
    "scope_conflict",
    "unknown_owner",
    "unknown_model",
    "unknown_subject",
    "unknown_region",
    "undecidable_value",
    "passthrough_not_allowed",
    "left_platform",
    "wrong_provider",
    "outside_residency",
    "served_elsewhere",
    "not_as_published",
    "public_network",
    "stored_against_setting",
    "cached_against_setting",
    "trained_without_opt_in",
    "enforcement_lag",
)

POLICY = (
    "training.opt_in",
    "storage.inputs_outputs",
    "caching.temporary",
    "passthrough.allowed",
    "residency.regions",
    "network.private_only",
)
OF_MODEL = ("model.hosting", "model.provider", "model.policy_url", "model.regions")
PUBLISHED = {
    "precision": "model.precision",
    "distilled": "model.distilled",
    "system_prompt_forced": "model.system_prompt_forced",
    "censored": "model.censorship_layer",
    "revision": "model.revision",
}
"""Member of the handling → the setting that says the same of the model as published, in the order of evidence."""
SWITCHES = (
    "training.opt_in",
    "storage.inputs_outputs",
    "caching.temporary",
    "passthrough.allowed",
    "network.private_only",
)


class Reference(ReferenceLedger):
    """Every question about a ledger's events."""

    # Decision rules.

    def check(self, record: Json, at: int, known_at: int | None) -> Json:
        """The decision on a request record (as JSON, without hindsight and as_of) made at `at` (µs)."""
        scope = self.scope(record, at, known_at)
        if scope.problem:
            return self._indeterminate(scope.problem, scope, at, known_at)
        governing = scope.trail[-1]
        policy = {setting: self.setting_state(governing, setting, at, known_at) for setting in POLICY}
        if any(state.source == "undefined" for state in policy.values()):
            return self._indeterminate("before_first_record", scope, at, known_at)
        governed_by = {"subject": governing, "via": scope.trail, "known": self.is_known(governing, known_at)}
        demands = self._unmet_demands(scope.trail, at, known_at)
        if demands:
            facts = OwnerChain(scope.trail, [*scope.facts, demands[0]], None)
            return self._indeterminate("unknown_subject", facts, at, known_at) | {"governed_by": governed_by}
        model: dict[str, ReferenceState] = {}
        if record.get("model_id") is not None:
            model = {s: self.setting_state(f"model:{record['model_id']}", s, at, known_at) for s in OF_MODEL}
        observed = {name: value for name, value in (record.get("handling") or {}).items() if value is not None}
        published = self._published(record, observed, at, known_at)
        stated = [*policy.values(), *model.values(), *(state for _, state in published)]
        undecidable = [state for state in stated if not _is_decidable(state)]
        counted = self._counted(policy, at, known_at)
        places = Places(self, at, known_at)
        regions = RegionsOfRequest(places, policy, model, observed)
        receiver = ReceiverOfRequest(places, policy, model, observed)
        breaches = [*self._breaches_of_model(policy, model), *self._breaches_of_handling(policy, model, observed)]
        breaches += [*regions.breaches(), *receiver.breaches()]
        breaches += [Breach("not_as_published", [state]) for seen, state in published if _differs(state, seen)]
        unresolved = _unresolved(policy, model, observed) or receiver.is_provider is None
        if breaches:
            verdict = "violation" if observed else "denied"
        elif unresolved or undecidable or regions.unknown():
            verdict = "indeterminate"
        else:
            verdict = "compliant" if observed else "allowed"
        answer: Json = {
            "verdict": verdict,
            "governed_by": governed_by,
            "handling": _handling(counted, model) | {"allowed_regions": regions.allowed()},
        }
        answer["handling"]["data_policy"], of_places = _data_policy(places, model)
        compared = [*regions.of_model(), *receiver.facts, *regions.facts()]
        of_places += [state for state in compared if was_recorded(state)]
        answer["evidence"] = [
            *(
                _evidence(state) | receiver.observed(state)
                for state in [*scope.facts, *policy.values(), *model.values()]
            ),
            *(_evidence(state) | {"observed": seen} for seen, state in published),
            *(_evidence(state) for state in once(of_places)),
        ]
        if not _is_decidable(policy["residency.regions"]):
            answer["handling"]["allowed_regions"] = counted["residency.regions"].value or []
        reasons = {breach.reason for breach in breaches}
        enforced = record.get("enforced_position")
        if observed and enforced is not None:
            reasons, lag = self._excused(breaches, scope.facts, enforced, at, known_at)
            if lag is not None:
                answer["enforcement_lag"] = lag
        unknown = {"unknown_model": unresolved, "unknown_region": regions.unknown(), "undecidable_value": undecidable}
        reasons |= {reason for reason, holds in unknown.items() if holds}
        if undecidable:
            answer["undecidable"] = [state.setting for state in undecidable]
        answer["reasons"] = [reason for reason in ORDER_OF_REASONS if reason in reasons]
        return answer

    def _published(
        self, record: Json, observed: Json, at: int, known_at: int | None
    ) -> list[tuple[Any, ReferenceState]]:
        """The observed members about how the model was served, each with the setting that says how it should be."""
        if record.get("model_id") is None:
            return []
        model = f"model:{record['model_id']}"
        return [
            (observed[member], self.setting_state(model, setting, at, known_at))
            for member, setting in PUBLISHED.items()
            if member in observed
        ]

    def _unmet_demands(self, trail: list[str], at: int, known_at: int | None) -> list[ReferenceState]:
        """For each subject that must be known and is not, the demand."""
        demands = [self.setting_state(subject, "subjects.must_be_known", at, known_at) for subject in trail]
        return [
            demand
            for demand in demands
            if demand.subject.partition(":")[0] in (demand.value or []) and not self.is_known(demand.subject, known_at)
        ]

    def _excused(
        self, breaches: list[Breach], of_scope: list[ReferenceState], enforced: int, at: int, known_at: int | None
    ) -> tuple[set[str], Json | None]:
        """The reasons, with a lag for each breach that rests on something newer than what was enforced."""
        reasons, lags = set(), []
        for breach in breaches:
            facts = [*breach.facts, *of_scope]
            causes = [(state.position, _since(state)) for state in facts if state.position]
            causes += [pair for state in facts for pair in self._retractions_since(state, enforced, at, known_at)]
            position, since = max(causes)
            if position > enforced:
                reasons.add("enforcement_lag")
                lags.append((at - since, position))
            else:
                reasons.add(breach.reason)
        if not lags:
            return reasons, None
        longest, position = max((max(lag, 0), position) for lag, position in lags)
        return reasons, {"lag_us": longest, "enforced_position": enforced, "deciding_position": position}

    def _counted(self, policy: dict[str, ReferenceState], at: int, known_at: int | None) -> dict[str, ReferenceState]:
        """The settings of the governing subject, with the protective value in place of each undecidable one."""
        counted = dict(policy)
        for setting, state in policy.items():
            if not _is_decidable(state):
                definition = self.definition(setting, at, known_at)
                assert definition is not None
                protective = definition["data"]["definition"]["protective"]
                value: Any = protective is True
                if setting == "network.private_only":
                    value = protective is not False
                if setting == "residency.regions":
                    value = protective if isinstance(protective, list) else None
                counted[setting] = state._replace(value=value)
        return counted

    def _retractions_since(
        self, state: ReferenceState, enforced: int, at: int, known_at: int | None
    ) -> Iterable[tuple[int, int]]:
        """(position, instant) of each later retraction of the change that decided at the enforced position."""
        gateway = Reference([])
        gateway.events = self.events[:enforced]
        seen = gateway.deciding(state.subject, state.setting, at, known_at)
        for event in self.events[enforced:]:
            recorded = instant_of(event["time"])
            is_known = known_at is UNLIMITED or recorded <= known_at
            if is_known and seen is not None and event["data"].get("retracts") == seen["id"]:
                yield event["data"]["position"], recorded

    def _breaches_of_model(
        self, policy: dict[str, ReferenceState], model: dict[str, ReferenceState]
    ) -> Iterable[Breach]:
        if not model:
            return
        passthrough, hosting = policy["passthrough.allowed"], model["model.hosting"]
        if hosting.value == "passthrough" and passthrough.value is False:
            yield Breach("passthrough_not_allowed", [passthrough, hosting])

    def _breaches_of_handling(
        self, policy: dict[str, ReferenceState], model: dict[str, ReferenceState], observed: Json
    ) -> Iterable[Breach]:
        for flag, setting, reason in (
            ("stored", "storage.inputs_outputs", "stored_against_setting"),
            ("cached", "caching.temporary", "cached_against_setting"),
            ("trained", "training.opt_in", "trained_without_opt_in"),
        ):
            if observed.get(flag) and policy[setting].value is False:
                yield Breach(reason, [policy[setting]])
        if observed.get("network") == "public" and policy["network.private_only"].value is True:
            yield Breach("public_network", [policy["network.private_only"]])
        if "forwarded_to" not in observed:
            return
        passthrough = policy["passthrough.allowed"]
        hosted = model["model.hosting"].value if model else None
        if hosted == "hosted":
            yield Breach("left_platform", [model["model.hosting"]])
        if hosted not in ("hosted", "passthrough") and passthrough.value is False:
            yield Breach("left_platform", [passthrough])

    def _indeterminate(self, reason: str, scope: OwnerChain, at: int, known_at: int | None) -> Json:
        def protective(setting: str, unknown: Any) -> Any:
            definition = self.definition(setting, at, known_at)
            return unknown if definition is None else definition["data"]["definition"]["protective"]

        return {
            "verdict": "indeterminate",
            "governed_by": {"subject": None, "via": scope.trail, "known": False},
            "handling": {
                "may_store": bool(protective("storage.inputs_outputs", False)),
                "may_cache": bool(protective("caching.temporary", False)),
                "may_train": bool(protective("training.opt_in", False)),
                "may_leave_platform": bool(protective("passthrough.allowed", False)),
                "allowed_regions": protective("residency.regions", None) or [],
                "private_network_required": protective("network.private_only", True) in (True, None),
                "data_policy": {"by": "platform"},
            },
            "evidence": [_evidence(state) for state in scope.facts],
            "reasons": [reason],
        }


def _since(state: ReferenceState) -> int:
    """The instant from which the last event behind the value was both recorded and effective."""
    event = max((e for e in (state.event, state.cleared_by) if e is not None), key=lambda e: e["data"]["position"])
    return max(instant_of(event["time"]), period_of(event)[0])


def _is_decidable(state: ReferenceState) -> bool:
    """Whether the rules speak of the value: null is one only where they say that something is unknown or not stated."""
    value = state.value
    if state.setting in SWITCHES:
        return isinstance(value, bool)
    if state.setting == "residency.regions":
        return isinstance(value, list)
    if state.setting == "model.hosting":
        return value in (None, "hosted", "passthrough")
    if state.setting in ("model.distilled", "model.system_prompt_forced", "model.censorship_layer"):
        return value is None or isinstance(value, bool)
    return value is None or isinstance(value, list if state.setting == "model.regions" else str)


def _differs(state: ReferenceState, seen: Any) -> bool:
    """Whether the setting states something else than was observed. Texts are trimmed and compared after NFC."""
    if state.value is None or not _is_decidable(state):
        return False
    stated, seen = (normalize("NFC", one.strip()) if isinstance(one, str) else one for one in (state.value, seen))
    return bool(stated != seen)


def _unresolved(policy: dict[str, ReferenceState], model: dict[str, ReferenceState], observed: Json) -> bool:
    """Whether the verdict depends on an unknown: how the model is hosted, or who its provider is."""
    if model and model["model.hosting"].value is None:
        return True
    if "forwarded_to" not in observed or policy["passthrough.allowed"].value is not True:
        return False
    if not model:
        return True
    return model["model.hosting"].value == "passthrough" and model["model.provider"].value is None


def _handling(policy: dict[str, ReferenceState], model: dict[str, ReferenceState]) -> Json:
    hosting = model["model.hosting"].value if model else None
    return {
        "may_store": policy["storage.inputs_outputs"].value,
        "may_cache": policy["caching.temporary"].value,
        "may_train": policy["training.opt_in"].value,
        "may_leave_platform": policy["passthrough.allowed"].value and (hosting == "passthrough" or not model),
        "private_network_required": policy["network.private_only"].value,
    }


def _data_policy(places: Places, model: dict[str, ReferenceState]) -> tuple[Json, list[ReferenceState]]:
    if not model or model["model.hosting"].value != "passthrough":
        return {"by": "platform"}, []
    name, url = (
        value if isinstance(value, str) else None
        for value in (model["model.provider"].value, model["model.policy_url"].value)
    )
    return places.data_policy(name, url)


def _evidence(state: ReferenceState) -> Json:
    evidence: Json = {"subject": state.subject, "setting": state.setting, "value": state.value, "source": state.source}
    if state.event is not None:
        evidence |= event_json(state.event)
    if state.cleared_by is not None:
        evidence["cleared_by"] = event_json(state.cleared_by)
    return evidence


def event_json(event: Json) -> Json:
    """The event as the evidence of an answer."""
    data = event["data"]
    start, until = period_of(event)
    return {
        "event_id": event["id"],
        "position": data["position"],
        "version": data["version"],
        "recorded_at": event["time"],
        "effective_from": format_time(start),
        "effective_until": None if until is None else format_time(until),
        "actor": data["actor"],
    }
