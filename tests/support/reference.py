"""The slow, obvious reference of the rules in projections/README.md, worked out event by event and instant by instant.

It reads events as exported JSON, shares no code with projections/ (only the parsing of times with ledger/) and caches
nothing between two questions. Where a fast path and this reference disagree, one of them misreads the rules.
"""

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from ledger.times import BEGINNING, format_time, parse_time

Json = dict[str, Any]
"""An event, a request record or an answer, as parsed JSON."""

UNLIMITED = None
"""As an end: no end. As a known_at: everything recorded so far."""

OWNERS_FOLLOWED_MAX = 7
"""A chain of owners has at most eight subjects (projections/decisions/scope.py)."""

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

_instant = lru_cache(maxsize=None)(parse_time)


class ReferenceState(NamedTuple):
    """The effective value of a setting of a subject. `event` is its own change or, for a default, the definition.
    `cleared_by` is the clear that makes the default effective."""

    subject: str
    setting: str
    value: Any
    source: str
    event: Json | None
    cleared_by: Json | None = None

    @property
    def position(self) -> int:
        """The position of the last event behind the value; 0 if there is none."""
        return max((e["data"]["position"] for e in (self.event, self.cleared_by) if e is not None), default=0)


class OwnerChain(NamedTuple):
    """The subjects from the one that a record names to the governing one, unless there is a problem."""

    trail: list[str]
    facts: list[ReferenceState]
    problem: str | None


class Breach(NamedTuple):
    """A reason against a request, and the facts behind it besides the governing subject."""

    reason: str
    facts: list[ReferenceState]


class Reference:
    """A ledger's events, in position order, and every question about them."""

    def __init__(self, leaves: Iterable[bytes]) -> None:
        self.events: list[Json] = [json.loads(leaf) for leaf in leaves]

    # Time model.

    def known(self, subject: str, setting: str, known_at: int | None) -> list[Json]:
        """The changes of a setting of a subject that were recorded, and not retracted, by `known_at`."""
        events = [
            event
            for event in self.events
            if event["subject"] == subject
            and event["data"]["setting"] == setting
            and (known_at is UNLIMITED or _instant(event["time"]) <= known_at)
        ]
        retracted_ids = [event["data"]["retracts"] for event in events if "retracts" in event["data"]]
        return [event for event in events if "retracts" not in event["data"] and event["id"] not in retracted_ids]

    def boundaries(self, subject: str, setting: str, known_at: int | None = UNLIMITED) -> list[int]:
        """Every instant at which the change in force may differ from the one before."""
        instants = {BEGINNING}
        for event in self.known(subject, setting, known_at):
            start, until = _period(event)
            instants.add(start)
            if until is not None:
                instants.add(until)
        return sorted(instants)

    def steps(self, subject: str, setting: str, known_at: int | None) -> list[tuple[int, Json | None]]:
        """(instant, the change in force from there to the next instant), for every boundary."""
        instants = self.boundaries(subject, setting, known_at)
        in_force: list[Json | None] = [None for _ in instants]
        for event in self.known(subject, setting, known_at):
            start, until = _period(event)
            if until is None:
                replaced = in_force[instants.index(start)]
                for index, instant in enumerate(instants):
                    if instant >= start:
                        if in_force[index] is not replaced:
                            break
                        in_force[index] = event
            else:
                for index, instant in enumerate(instants):
                    if start <= instant < until:
                        in_force[index] = event
        return list(zip(instants, in_force, strict=True))

    def deciding(self, subject: str, setting: str, at: int, known_at: int | None) -> Json | None:
        """The change in force at instant `at`, knowing what was recorded by `known_at`."""
        deciding = None
        for instant, event in self.steps(subject, setting, known_at):
            if instant <= at:
                deciding = event
        return deciding

    # Effective state.

    def definition(self, setting: str, at: int, known_at: int | None) -> Json | None:
        return self.deciding("catalog:settings", setting, at, known_at)

    def setting_state(self, subject: str, setting: str, at: int, known_at: int | None) -> ReferenceState:
        definition = self.definition(setting, at, known_at)
        if definition is None:
            return ReferenceState(subject, setting, None, "undefined", None)
        members = definition["data"]["definition"]
        if _kind(subject) not in members["kinds"]:
            return ReferenceState(subject, setting, members["default"], "not_applicable", definition)
        own = self.deciding(subject, setting, at, known_at)
        if own is not None and "value" in own["data"]:
            return ReferenceState(subject, setting, own["data"]["value"], "explicit", own)
        return ReferenceState(subject, setting, members["default"], "default", definition, own)

    # Governing subject.

    def owner_chain(self, subject: str, at: int, known_at: int | None, hops: int = OWNERS_FOLLOWED_MAX) -> OwnerChain:
        kind = _kind(subject)
        if kind == "org":
            return OwnerChain([subject], [], None)
        if kind == "account":
            attached = self.setting_state(subject, "attached_to", at, known_at)
            if attached.source == "undefined":
                return OwnerChain([subject], [attached], "before_first_record")
            return OwnerChain([subject] if attached.value is None else [subject, attached.value], [attached], None)
        if kind not in ("key", "project"):
            return OwnerChain([subject], [], "unknown_owner")
        owner = self.setting_state(subject, "owner", at, known_at)
        if owner.source == "undefined":
            return OwnerChain([subject], [owner], "before_first_record")
        if owner.value is None or hops == 0:
            return OwnerChain([subject], [owner], "unknown_owner")
        rest = self.owner_chain(owner.value, at, known_at, hops - 1)
        return OwnerChain([subject, *rest.trail], [owner, *rest.facts], rest.problem)

    def scope(self, record: Json, at: int, known_at: int | None) -> OwnerChain:
        named = {kind: f"{kind}:{record[f'{kind}_id']}" for kind in KINDS_NAMED if record.get(f"{kind}_id") is not None}
        chain = self.owner_chain(next(iter(named.values())), at, known_at)
        if chain.problem:
            return chain
        facts = chain.facts
        project = named.get("project")
        if project is not None and project not in chain.trail:
            other = self.owner_chain(project, at, known_at)
            facts = facts + other.facts
            if other.problem:
                return OwnerChain(chain.trail, facts, other.problem)
            if other.trail[-1] != chain.trail[-1]:
                return OwnerChain(chain.trail, facts, "scope_conflict")
        org_agrees = named.get("org") in (None, chain.trail[-1])
        accounts = [subject for subject in chain.trail if subject.startswith("account:")]
        account_agrees = named.get("account") is None or not accounts or named["account"] in accounts
        return OwnerChain(chain.trail, facts, None if org_agrees and account_agrees else "scope_conflict")

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
        model: dict[str, ReferenceState] = {}
        if record.get("model_id") is not None:
            model = {s: self.setting_state(f"model:{record['model_id']}", s, at, known_at) for s in OF_MODEL}
        observed = {name: value for name, value in (record.get("handling") or {}).items() if value is not None}
        breaches = [*self._breaches_of_model(policy, model), *self._breaches_of_handling(policy, model, observed)]
        unresolved = _unresolved(policy, model, observed)
        if breaches:
            verdict = "violation" if observed else "denied"
        elif unresolved:
            verdict = "indeterminate"
        else:
            verdict = "compliant" if observed else "allowed"
        answer: Json = {
            "verdict": verdict,
            "governed_by": {"subject": governing, "via": scope.trail},
            "handling": _handling(policy, model),
            "evidence": [_evidence(state) for state in [*scope.facts, *policy.values(), *model.values()]],
        }
        reasons = {breach.reason for breach in breaches}
        enforced = record.get("enforced_position")
        if observed and enforced is not None:
            reasons, lags = set(), []
            for breach in breaches:
                facts = [*breach.facts, *scope.facts]
                causes = [(state.position, _since(state)) for state in facts if state.position]
                causes += [pair for state in facts for pair in self._retractions_since(state, enforced, at, known_at)]
                position, since = max(causes)
                if position > enforced:
                    reasons.add("enforcement_lag")
                    lags.append((at - since, position))
                else:
                    reasons.add(breach.reason)
            if lags:
                lag, position = max((max(lag, 0), position) for lag, position in lags)
                answer["enforcement_lag"] = {
                    "lag_us": lag,
                    "enforced_position": enforced,
                    "deciding_position": position,
                }
        if unresolved:
            reasons.add("unknown_model")
        answer["reasons"] = [reason for reason in ORDER_OF_REASONS if reason in reasons]
        return answer

    def _retractions_since(
        self, state: ReferenceState, enforced: int, at: int, known_at: int | None
    ) -> Iterable[tuple[int, int]]:
        """(position, instant) of each later retraction of the change that decided at the enforced position."""
        gateway = Reference([])
        gateway.events = self.events[:enforced]
        seen = gateway.deciding(state.subject, state.setting, at, known_at)
        for event in self.events[enforced:]:
            recorded = _instant(event["time"])
            is_known = known_at is UNLIMITED or recorded <= known_at
            if is_known and seen is not None and event["data"].get("retracts") == seen["id"]:
                yield event["data"]["position"], recorded

    def _breaches_of_model(
        self, policy: dict[str, ReferenceState], model: dict[str, ReferenceState]
    ) -> Iterable[Breach]:
        if not model:
            return
        passthrough, hosting = policy["passthrough.allowed"], model["model.hosting"]
        if hosting.value == "passthrough" and not passthrough.value:
            yield Breach("passthrough_not_allowed", [passthrough, hosting])
        residency, regions = policy["residency.regions"], model["model.regions"]
        if residency.value and regions.value and not [r for r in regions.value if r in residency.value]:
            yield Breach("outside_residency", [residency, regions])

    def _breaches_of_handling(
        self, policy: dict[str, ReferenceState], model: dict[str, ReferenceState], observed: Json
    ) -> Iterable[Breach]:
        for flag, setting, reason in (
            ("stored", "storage.inputs_outputs", "stored_against_setting"),
            ("cached", "caching.temporary", "cached_against_setting"),
            ("trained", "training.opt_in", "trained_without_opt_in"),
        ):
            if observed.get(flag) and not policy[setting].value:
                yield Breach(reason, [policy[setting]])
        residency = policy["residency.regions"]
        if "region" in observed and residency.value and observed["region"] not in residency.value:
            yield Breach("outside_residency", [residency])
        if observed.get("network") == "public" and policy["network.private_only"].value:
            yield Breach("public_network", [policy["network.private_only"]])
        if "forwarded_to" not in observed:
            return
        passthrough = policy["passthrough.allowed"]
        hosted = model["model.hosting"].value if model else None
        if hosted == "hosted":
            yield Breach("left_platform", [model["model.hosting"]])
        if hosted is None and not passthrough.value:
            yield Breach("left_platform", [passthrough])
        if hosted == "passthrough" and passthrough.value:
            provider = model["model.provider"]
            if provider.value not in (None, observed["forwarded_to"]):
                yield Breach("wrong_provider", [provider, model["model.hosting"]])

    def _indeterminate(self, reason: str, scope: OwnerChain, at: int, known_at: int | None) -> Json:
        def protective(setting: str, unknown: Any) -> Any:
            definition = self.definition(setting, at, known_at)
            return unknown if definition is None else definition["data"]["definition"]["protective"]

        return {
            "verdict": "indeterminate",
            "governed_by": {"subject": None, "via": scope.trail},
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


KINDS_NAMED = ("key", "project", "org", "account")
"""The kinds that a record may name, in the order of the rules."""


def _kind(subject: str) -> str:
    return subject.partition(":")[0]


def _period(event: Json) -> tuple[int, int | None]:
    data = event["data"]
    until = data.get("effective_until")
    return _instant(data["effective_from"]), None if until is None else _instant(until)


def _since(state: ReferenceState) -> int:
    """The instant from which the last event behind the value was both recorded and effective."""
    event = max((e for e in (state.event, state.cleared_by) if e is not None), key=lambda e: e["data"]["position"])
    return max(_instant(event["time"]), _period(event)[0])


def _unresolved(policy: dict[str, ReferenceState], model: dict[str, ReferenceState], observed: Json) -> bool:
    """Whether the verdict depends on an unknown: how the model is hosted, or who its provider is."""
    if model and model["model.hosting"].value is None:
        return True
    if "forwarded_to" not in observed or not policy["passthrough.allowed"].value:
        return False
    if not model:
        return True
    return model["model.hosting"].value == "passthrough" and model["model.provider"].value is None


def _handling(policy: dict[str, ReferenceState], model: dict[str, ReferenceState]) -> Json:
    hosting = model["model.hosting"].value if model else None
    data_policy: Json = {"by": "platform"}
    if hosting == "passthrough":
        data_policy = {
            "by": "provider",
            "name": model["model.provider"].value,
            "url": model["model.policy_url"].value,
        }
    return {
        "may_store": policy["storage.inputs_outputs"].value,
        "may_cache": policy["caching.temporary"].value,
        "may_train": policy["training.opt_in"].value,
        "may_leave_platform": policy["passthrough.allowed"].value and (hosting == "passthrough" or not model),
        "allowed_regions": policy["residency.regions"].value or None,
        "private_network_required": policy["network.private_only"].value,
        "data_policy": data_policy,
    }


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
    start, until = _period(event)
    return {
        "event_id": event["id"],
        "position": data["position"],
        "version": data["version"],
        "recorded_at": event["time"],
        "effective_from": format_time(start),
        "effective_until": None if until is None else format_time(until),
        "actor": data["actor"],
    }
