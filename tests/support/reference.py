"""The slow, obvious reference: what DESIGN.md sections 2 to 4 say, worked out event by event and point by point.

It reads events as the JSON that is exported, shares no code with projections/ (only the reading of times with ledger/)
and keeps nothing between two questions. Where a fast path and this disagree, one of them misreads the law.
"""

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from ledger.times import BEGINNING, format_time, parse_time

Json = dict[str, Any]
"""An event, a record or an answer, as parsed from JSON."""

FOR_EVER = None
"""As an end: none. As a known_at: everything that was ever recorded."""

OWNERS_FOLLOWED_MAX = 7
"""So that a chain of owners has at most eight subjects (projections/decisions/scope.py)."""

ORDER_OF_REASONS = (
    "before_first_record",
    "scope_conflict",
    "unknown_owner",
    "unknown_model",
    "passthrough_not_allowed",
    "left_platform",
    "wrong_provider",
    "outside_residency",
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


class Told(NamedTuple):
    """What a setting of a subject came to. `event`: its own change, or for a default the definition; `cleared_by`: the
    clear that a default shows through."""

    subject: str
    setting: str
    value: Any
    source: str
    event: Json | None
    cleared_by: Json | None = None

    @property
    def position(self) -> int:
        """Of the last event that made it so; 0 where nothing did."""
        return max((e["data"]["position"] for e in (self.event, self.cleared_by) if e is not None), default=0)


class Followed(NamedTuple):
    """The subjects from one that a record names to the one that governs, unless there is a problem."""

    trail: list[str]
    facts: list[Told]
    problem: str | None


class Charge(NamedTuple):
    """Something against a request, and what it rests on besides the governing subject."""

    reason: str
    facts: list[Told]


class Reference:
    """A ledger's events, in position order, and every question about them."""

    def __init__(self, leaves: Iterable[bytes]) -> None:
        self.events: list[Json] = [json.loads(leaf) for leaf in leaves]

    # The fold (section 3).

    def known(self, subject: str, setting: str, known_at: int | None) -> list[Json]:
        """The changes of one setting of one subject that were recorded by then and not retracted by then."""
        heard = [
            event
            for event in self.events
            if event["subject"] == subject
            and event["data"]["setting"] == setting
            and (known_at is FOR_EVER or _instant(event["time"]) <= known_at)
        ]
        taken_back = [event["data"]["retracts"] for event in heard if "retracts" in event["data"]]
        return [event for event in heard if "retracts" not in event["data"] and event["id"] not in taken_back]

    def boundaries(self, subject: str, setting: str, known_at: int | None = FOR_EVER) -> list[int]:
        """Every instant at which what is in force may change: between two of them nothing does."""
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
        found = None
        for instant, event in self.steps(subject, setting, known_at):
            if instant <= at:
                found = event
        return found

    # Effective state (sections 1 and 3).

    def definition(self, setting: str, at: int, known_at: int | None) -> Json | None:
        return self.deciding("catalog:settings", setting, at, known_at)

    def told(self, subject: str, setting: str, at: int, known_at: int | None) -> Told:
        definition = self.definition(setting, at, known_at)
        if definition is None:
            return Told(subject, setting, None, "undefined", None)
        members = definition["data"]["definition"]
        if _kind(subject) not in members["kinds"]:
            return Told(subject, setting, members["default"], "not_applicable", definition)
        own = self.deciding(subject, setting, at, known_at)
        if own is not None and "value" in own["data"]:
            return Told(subject, setting, own["data"]["value"], "explicit", own)
        return Told(subject, setting, members["default"], "default", definition, own)

    # Which subject governs (section 2).

    def follow(self, subject: str, at: int, known_at: int | None, hops: int = OWNERS_FOLLOWED_MAX) -> Followed:
        kind = _kind(subject)
        if kind == "org":
            return Followed([subject], [], None)
        if kind == "account":
            attached = self.told(subject, "attached_to", at, known_at)
            if attached.source == "undefined":
                return Followed([subject], [attached], "before_first_record")
            return Followed([subject] if attached.value is None else [subject, attached.value], [attached], None)
        if kind not in ("key", "project"):
            return Followed([subject], [], "unknown_owner")
        owner = self.told(subject, "owner", at, known_at)
        if owner.source == "undefined":
            return Followed([subject], [owner], "before_first_record")
        if owner.value is None or hops == 0:
            return Followed([subject], [owner], "unknown_owner")
        rest = self.follow(owner.value, at, known_at, hops - 1)
        return Followed([subject, *rest.trail], [owner, *rest.facts], rest.problem)

    def scope(self, record: Json, at: int, known_at: int | None) -> Followed:
        named = {kind: f"{kind}:{record[f'{kind}_id']}" for kind in KINDS_NAMED if record.get(f"{kind}_id") is not None}
        chain = self.follow(next(iter(named.values())), at, known_at)
        if chain.problem:
            return chain
        facts = chain.facts
        project = named.get("project")
        if project is not None and project not in chain.trail:
            other = self.follow(project, at, known_at)
            facts = facts + other.facts
            if other.problem:
                return Followed(chain.trail, facts, other.problem)
            if other.trail[-1] != chain.trail[-1]:
                return Followed(chain.trail, facts, "scope_conflict")
        org_agrees = named.get("org") in (None, chain.trail[-1])
        accounts = [subject for subject in chain.trail if subject.startswith("account:")]
        account_agrees = named.get("account") is None or not accounts or named["account"] in accounts
        return Followed(chain.trail, facts, None if org_agrees and account_agrees else "scope_conflict")

    # Decisions (section 4).

    def check(self, record: Json, at: int, known_at: int | None) -> Json:
        """The decision on a request record (as JSON, without hindsight and as_of) made at `at` (µs)."""
        scope = self.scope(record, at, known_at)
        if scope.problem:
            return self._indeterminate(scope.problem, scope, at, known_at)
        governing = scope.trail[-1]
        policy = {setting: self.told(governing, setting, at, known_at) for setting in POLICY}
        if any(told.source == "undefined" for told in policy.values()):
            return self._indeterminate("before_first_record", scope, at, known_at)
        model: dict[str, Told] = {}
        if record.get("model_id") is not None:
            model = {s: self.told(f"model:{record['model_id']}", s, at, known_at) for s in OF_MODEL}
        done = {name: value for name, value in (record.get("handling") or {}).items() if value is not None}
        charges = [*self._against_the_model(policy, model), *self._against_what_was_done(policy, model, done)]
        unresolved = _unresolved(policy, model, done)
        if charges:
            verdict = "violation" if done else "denied"
        elif unresolved:
            verdict = "indeterminate"
        else:
            verdict = "compliant" if done else "allowed"
        answer: Json = {
            "verdict": verdict,
            "governed_by": {"subject": governing, "via": scope.trail},
            "handling": _handling(policy, model),
            "evidence": [_evidence(told) for told in [*scope.facts, *policy.values(), *model.values()]],
        }
        reasons = {charge.reason for charge in charges}
        enforced = record.get("enforced_position")
        if done and enforced is not None:
            reasons, late = set(), []
            for charge in charges:
                rests_on = [*charge.facts, *scope.facts]
                became_so = [(told.position, _since(told)) for told in rests_on if told.position]
                became_so += [pair for told in rests_on for pair in self._undone(told, enforced, at, known_at)]
                position, since = max(became_so)
                if position > enforced:
                    reasons.add("enforcement_lag")
                    late.append((at - since, position))
                else:
                    reasons.add(charge.reason)
            if late:
                lag, position = max((max(lag, 0), position) for lag, position in late)
                answer["enforcement_lag"] = {
                    "lag_us": lag,
                    "enforced_position": enforced,
                    "deciding_position": position,
                }
        if unresolved:
            reasons.add("unknown_model")
        answer["reasons"] = [reason for reason in ORDER_OF_REASONS if reason in reasons]
        return answer

    def _undone(self, told: Told, enforced: int, at: int, known_at: int | None) -> Iterable[tuple[int, int]]:
        """The retractions, by position and instant, of what the gateway saw deciding when it enforced that position."""
        seen_by_gateway = Reference([])
        seen_by_gateway.events = self.events[:enforced]
        seen = seen_by_gateway.deciding(told.subject, told.setting, at, known_at)
        for event in self.events[enforced:]:
            recorded = _instant(event["time"])
            is_known = known_at is FOR_EVER or recorded <= known_at
            if is_known and seen is not None and event["data"].get("retracts") == seen["id"]:
                yield event["data"]["position"], recorded

    def _against_the_model(self, policy: dict[str, Told], model: dict[str, Told]) -> Iterable[Charge]:
        if not model:
            return
        passthrough, hosting = policy["passthrough.allowed"], model["model.hosting"]
        if hosting.value == "passthrough" and not passthrough.value:
            yield Charge("passthrough_not_allowed", [passthrough, hosting])
        residency, regions = policy["residency.regions"], model["model.regions"]
        if residency.value and regions.value and not [r for r in regions.value if r in residency.value]:
            yield Charge("outside_residency", [residency, regions])

    def _against_what_was_done(self, policy: dict[str, Told], model: dict[str, Told], done: Json) -> Iterable[Charge]:
        for deed, setting, reason in (
            ("stored", "storage.inputs_outputs", "stored_against_setting"),
            ("cached", "caching.temporary", "cached_against_setting"),
            ("trained", "training.opt_in", "trained_without_opt_in"),
        ):
            if done.get(deed) and not policy[setting].value:
                yield Charge(reason, [policy[setting]])
        residency = policy["residency.regions"]
        if "region" in done and residency.value and done["region"] not in residency.value:
            yield Charge("outside_residency", [residency])
        if done.get("network") == "public" and policy["network.private_only"].value:
            yield Charge("public_network", [policy["network.private_only"]])
        if "forwarded_to" not in done:
            return
        passthrough = policy["passthrough.allowed"]
        hosted = model["model.hosting"].value if model else None
        if hosted == "hosted":
            yield Charge("left_platform", [model["model.hosting"]])
        if hosted is None and not passthrough.value:
            yield Charge("left_platform", [passthrough])
        if hosted == "passthrough" and passthrough.value:
            provider = model["model.provider"]
            if provider.value not in (None, done["forwarded_to"]):
                yield Charge("wrong_provider", [provider, model["model.hosting"]])

    def _indeterminate(self, reason: str, scope: Followed, at: int, known_at: int | None) -> Json:
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
            "evidence": [_evidence(told) for told in scope.facts],
            "reasons": [reason],
        }


KINDS_NAMED = ("key", "project", "org", "account")
"""What a record may name, in the order in which the rules of section 2 look at it."""


def _kind(subject: str) -> str:
    return subject.partition(":")[0]


def _period(event: Json) -> tuple[int, int | None]:
    data = event["data"]
    until = data.get("effective_until")
    return _instant(data["effective_from"]), None if until is None else _instant(until)


def _since(told: Told) -> int:
    """When the last event behind it was both recorded and effective."""
    event = max((e for e in (told.event, told.cleared_by) if e is not None), key=lambda e: e["data"]["position"])
    return max(_instant(event["time"]), _period(event)[0])


def _unresolved(policy: dict[str, Told], model: dict[str, Told], done: Json) -> bool:
    """Whether how the model is hosted matters and is not known, or whether the receiver was the right one."""
    if model and model["model.hosting"].value is None:
        return True
    if "forwarded_to" not in done or not policy["passthrough.allowed"].value:
        return False
    if not model:
        return True
    return model["model.hosting"].value == "passthrough" and model["model.provider"].value is None


def _handling(policy: dict[str, Told], model: dict[str, Told]) -> Json:
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


def _evidence(told: Told) -> Json:
    written: Json = {"subject": told.subject, "setting": told.setting, "value": told.value, "source": told.source}
    if told.event is not None:
        written |= _event_json(told.event)
    if told.cleared_by is not None:
        written["cleared_by"] = _event_json(told.cleared_by)
    return written


def _event_json(event: Json) -> Json:
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
