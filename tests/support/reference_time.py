"""The time model, effective states and governing subject, slowly and obviously: see `tests.support.reference`."""

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from ledger.times import BEGINNING, parse_time

Json = dict[str, Any]
"""An event, a request record or an answer, as parsed JSON."""

UNLIMITED = None
"""As an end: no end. As a known_at: everything recorded so far."""

CATALOG = "catalog:settings"

OWNERS_FOLLOWED_MAX = 7
"""A chain of owners has at most eight subjects (projections/decisions/scope.py)."""

instant_of = lru_cache(maxsize=None)(parse_time)


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


class ReferenceLedger:
    """A ledger's events, in position order, and what held at an instant as known at another."""

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
            and (known_at is UNLIMITED or instant_of(event["time"]) <= known_at)
        ]
        retracted_ids = [event["data"]["retracts"] for event in events if "retracts" in event["data"]]
        return [event for event in events if "retracts" not in event["data"] and event["id"] not in retracted_ids]

    def boundaries(self, subject: str, setting: str, known_at: int | None = UNLIMITED) -> list[int]:
        """Every instant at which the change in force may differ from the one before."""
        instants = {BEGINNING}
        for event in self.known(subject, setting, known_at):
            start, until = period_of(event)
            instants.add(start)
            if until is not None:
                instants.add(until)
        return sorted(instants)

    def steps(self, subject: str, setting: str, known_at: int | None) -> list[tuple[int, Json | None]]:
        """(instant, the change in force from there to the next instant), for every boundary."""
        instants = self.boundaries(subject, setting, known_at)
        return [(instant, self.deciding(subject, setting, instant, known_at)) for instant in instants]

    def stops_deciding(self, event: Json, known_at: int | None) -> int | None:
        """When a change first stops deciding; at its own beginning, if it never decides; `UNLIMITED`: never."""
        decides = False
        for instant, deciding in self.steps(event["subject"], event["data"]["setting"], known_at):
            if deciding is not None and deciding["id"] == event["id"]:
                decides = True
            elif decides:
                return instant
        return UNLIMITED if decides else period_of(event)[0]

    def beginning_after(self, event: Json, known_at: int | None) -> list[Json]:
        """The changes of the same setting that begin later than a change, or than the recording of a retraction."""
        data = event["data"]
        after = instant_of(event["time"]) if "retracts" in data else period_of(event)[0]
        known = self.known(event["subject"], data["setting"], known_at)
        later = [one for one in known if period_of(one)[0] > after]
        return sorted(later, key=lambda one: (period_of(one)[0], one["data"]["position"]))

    def deciding(self, subject: str, setting: str, at: int, known_at: int | None) -> Json | None:
        """The change in force at instant `at`, knowing what was recorded by `known_at`.

        Standing changes are regimes, and temporary ones are exceptions over them, each cut where a standing change that
        was recorded after it begins within it. The last exception over `at` decides, else the latest regime begun.
        """
        known = self.known(subject, setting, known_at)
        periods = [period_of(event) for event in known]
        deciding: Json | None = None
        for index, (start, until) in enumerate(periods):
            if until is not None:
                cuts = [other for other, end in periods[index + 1 :] if end is None and start <= other < until]
                if start <= at < min([until, *cuts]):
                    deciding = known[index]
        if deciding is not None:
            return deciding
        latest: int | None = None
        for event, (start, until) in zip(known, periods, strict=True):
            if until is None and start <= at and (latest is None or start >= latest):
                deciding, latest = event, start
        return deciding

    # Effective state.

    def definition(self, setting: str, at: int, known_at: int | None) -> Json | None:
        return self.deciding("catalog:settings", setting, at, known_at)

    def setting_state(self, subject: str, setting: str, at: int, known_at: int | None) -> ReferenceState:
        definition = self.definition(setting, at, known_at)
        if definition is None:
            return ReferenceState(subject, setting, None, "undefined", None)
        members = definition["data"]["definition"]
        if kind_of(subject) not in members["kinds"]:
            return ReferenceState(subject, setting, members["default"], "not_applicable", definition)
        own = self.deciding(subject, setting, at, known_at)
        if own is not None and "value" in own["data"]:
            return ReferenceState(subject, setting, own["data"]["value"], "explicit", own)
        return ReferenceState(subject, setting, members["default"], "default", definition, own)

    def next_change(
        self, subject: str, setting: str, at: int, known_at: int | None
    ) -> tuple[int, ReferenceState] | None:
        """The first instant after `at` from which another event decides, and the state from there."""
        now = self.setting_state(subject, setting, at, known_at)
        boundaries = self.boundaries(subject, setting, known_at) + self.boundaries(CATALOG, setting, known_at)
        for instant in sorted(boundary for boundary in boundaries if boundary > at):
            state = self.setting_state(subject, setting, instant, known_at)
            if (state.source, state.event) != (now.source, now.event):
                return instant, state
        return None

    def is_known(self, subject: str, known_at: int | None) -> bool:
        """Whether the ledger has an event of the subject, of whatever kind, that was recorded by `known_at`."""
        return any(
            event["subject"] == subject and (known_at is UNLIMITED or instant_of(event["time"]) <= known_at)
            for event in self.events
        )

    # Governing subject.

    def owner_chain(self, subject: str, at: int, known_at: int | None, hops: int = OWNERS_FOLLOWED_MAX) -> OwnerChain:
        kind = kind_of(subject)
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


KINDS_NAMED = ("key", "project", "org", "account")
"""The kinds that a record may name, in the order of the rules."""


def kind_of(subject: str) -> str:
    return subject.partition(":")[0]


def period_of(event: Json) -> tuple[int, int | None]:
    data = event["data"]
    until = data.get("effective_until")
    return instant_of(data["effective_from"]), None if until is None else instant_of(until)
