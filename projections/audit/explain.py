"""Why a row was decided as it was: the smallest set of events that its verdict and reasons rest on.

What is looked for is a smallest set of events such that a ledger which holds nothing but them, and the catalog as it
was first defined, comes to the same verdict and the same reasons. So none of them can be left out, and all others can:
where the evidence says what the default says anyway, it is not among them. The worlds that are tried go through `check`
itself. Events that can be taken away are the changes and clears that decided the settings of the evidence, definitions
that came after a setting's first, and the retractions that an enforcement lag hangs on.

Beside it stands what each of these events changed by itself: the decision without it, all else being as it was, and
what had been said before it showing through.
Proved by tests/audit/test_explain.py: every smaller set is tried there, by brute force.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from ledger.subjects import CATALOG_SUBJECT
from projections.decisions.check import OF_MODEL, POLICY, check
from projections.decisions.model import (
    Decision,
    Outcome,
    Reason,
    RequestRecord,
    Verdict,
    change_json,
    decision_json,
    retraction_json,
)
from projections.query.as_of_view import AsOfView
from projections.query.pinned import PinnedQuery
from projections.query.query import IN_FORCE, KnownAt
from projections.temporal.changes import Assertion, Change, Retraction
from projections.temporal.effective_state import SettingState, effective
from projections.temporal.fold import deciding_retraction, fold

SETTINGS: Final = (*POLICY, *OF_MODEL, "owner", "attached_to")
"""Every setting that a decision may rest on."""

Place = tuple[str, str]
"""Subject and setting."""


class SubjectEvent(NamedTuple):
    """An event that can be taken away, and what it is about. Of a definition the subject is the catalog."""

    subject: str
    event: Change | Retraction

    @property
    def position(self) -> int:
        return self.event.position

    @property
    def place(self) -> Place:
        return self.subject, self.event.setting


class WeighedEvent(NamedTuple):
    """An event of the evidence. needed: it is of the smallest set. verdict, reasons: those without this one event."""

    source: SubjectEvent
    needed: bool
    verdict: Verdict
    reasons: tuple[Reason, ...]


class Explanation(NamedTuple):
    """events: in position order. others: how many other sets are as small and suffice as well."""

    record: RequestRecord
    decision: Decision
    events: tuple[WeighedEvent, ...]
    others: int

    @property
    def needed(self) -> tuple[SubjectEvent, ...]:
        """The smallest set; of several the one with the lowest positions. Empty: what the catalog first said of its
        settings' defaults, and silence, come to the same."""
        return tuple(weighed.source for weighed in self.events if weighed.needed)


def explain(query: PinnedQuery, record: RequestRecord, known_at: KnownAt = IN_FORCE) -> Explanation:
    """Of the decision on `record` at the query's pin."""
    decision = query.check(record, known_at)
    view = AsOfView(query.context(), record.at, known_at)
    ground = _ground(record, view)
    sets = smallest_sets(record, ground, decision.outcome)
    events = []
    for told in ground.events():
        other = check(record, _Without(view, told))
        events.append(WeighedEvent(told, told.position in sets[0], other.verdict, other.reasons))
    return Explanation(record, decision, tuple(events), len(sets) - 1)


class EvidenceEvents(NamedTuple):
    """What worlds are made of. own: the change or clear that decided at a place; definitions, first: of each setting,
    the definition then and the first one; retractions: what `retraction_since` answered at a place."""

    own: Mapping[Place, Change]
    definitions: Mapping[str, Change]
    first: Mapping[str, Change]
    retractions: Mapping[Place, Retraction]

    def events(self) -> list[SubjectEvent]:
        """All that can be taken away, in position order."""
        found = [SubjectEvent(subject, change) for (subject, _), change in self.own.items()]
        found += [SubjectEvent(subject, said) for (subject, _), said in self.retractions.items()]
        asked = {setting for _, setting in self.own} | set(self.definitions)
        found += [SubjectEvent(CATALOG_SUBJECT, self.definitions[s]) for s in asked if self.redefined(s)]
        return sorted({told.position: told for told in found}.values(), key=lambda told: told.position)

    def redefined(self, setting: str) -> bool:
        first, now = self.first.get(setting), self.definitions.get(setting)
        return first is not None and now is not None and first.position != now.position


class PartialLedger:
    """A ledger with the events at the positions `kept` of `ground`, and nothing else; as
    `projections.temporal.effective_state.States`.

    asked: the positions of all events that would have had a say in what was asked so far.
    """

    def __init__(self, ground: EvidenceEvents, kept: frozenset[int]) -> None:
        self.asked: set[int] = set()
        self._ground = ground
        self._kept = kept

    def setting(self, subject: str, setting: str) -> SettingState:
        own = self._ground.own.get((subject, setting))
        return effective(subject, setting, own and self._if_kept(own), self._definition(setting, noted=True))

    def definition(self, setting: str) -> Mapping[str, Any] | None:
        # Only asked for protective values, which are handling: verdict and reasons do not hang on them.
        change = self._definition(setting, noted=False)
        return change.value if change is not None and isinstance(change.value, dict) else None

    def retraction_since(self, subject: str, setting: str, after: int) -> Retraction | None:
        said = self._ground.retractions.get((subject, setting))
        if said is None:
            return None
        self.asked.add(said.position)
        return said if said.position in self._kept else None

    def _if_kept(self, change: Change) -> Change | None:
        self.asked.add(change.position)
        return change if change.position in self._kept else None

    def _definition(self, setting: str, *, noted: bool) -> Change | None:
        if not self._ground.redefined(setting):
            return self._ground.definitions.get(setting)
        change = self._ground.definitions[setting]
        if noted:
            self.asked.add(change.position)
        return change if change.position in self._kept else self._ground.first[setting]


def smallest_sets(record: RequestRecord, ground: EvidenceEvents, outcome: Outcome) -> list[frozenset[int]]:
    """The positions of every smallest set that comes to the verdict and reasons of `outcome`, lowest positions first.

    Sets are tried by size, and grow only by what was asked in them: a set that lacks nothing that is asked in it comes
    to the same as any larger one. So every smallest set is reached, by way of sets that do not suffice, and long chains
    of owners cost their length instead of two to the power of it.
    """
    layer = {frozenset[int]()}
    while layer:
        found: list[frozenset[int]] = []
        larger: set[frozenset[int]] = set()
        for kept in layer:
            world = PartialLedger(ground, kept)
            other = check(record, world)
            if (other.verdict, other.reasons) == (outcome.verdict, outcome.reasons):
                found.append(kept)
            else:
                larger |= {kept | {position} for position in world.asked - kept}
        if found:
            return sorted(found, key=sorted)
        layer = larger
    raise AssertionError("with all its evidence a decision comes out as it did")


class _Noting:
    """A view that remembers what it was asked."""

    def __init__(self, view: AsOfView) -> None:
        self.states: dict[Place, SettingState] = {}
        self.retractions: dict[Place, Retraction] = {}
        self._view = view

    def setting(self, subject: str, setting: str) -> SettingState:
        state = self.states[subject, setting] = self._view.setting(subject, setting)
        return state

    def definition(self, setting: str) -> Mapping[str, Any] | None:
        return self._view.definition(setting)

    def retraction_since(self, subject: str, setting: str, after: int) -> Retraction | None:
        said = self._view.retraction_since(subject, setting, after)
        if said is not None:
            self.retractions[subject, setting] = said
        return said


def _ground(record: RequestRecord, view: AsOfView) -> EvidenceEvents:
    noting = _Noting(view)
    check(record, noting)
    own: dict[Place, Change] = {}
    for place, state in noting.states.items():
        change = state.change if state.source == "explicit" else state.cleared_by
        if change is not None:
            own[place] = change
    said = _known(view, CATALOG_SUBJECT)
    gone = {one.retracts for one in said if isinstance(one, Retraction)}
    first: dict[str, Change] = {}
    for one in said:
        if isinstance(one, Change) and one.event_id not in gone and one.value is not None:
            first.setdefault(one.setting, one)
    definitions = {setting: view.change(CATALOG_SUBJECT, setting) for setting in SETTINGS}
    now = {setting: change for setting, change in definitions.items() if change is not None}
    return EvidenceEvents(own, now, first, noting.retractions)


class _Without:
    """A view of a ledger in which one event was never recorded."""

    def __init__(self, view: AsOfView, told: SubjectEvent) -> None:
        self._view = view
        self._told = told

    def setting(self, subject: str, setting: str) -> SettingState:
        definition = self._own(CATALOG_SUBJECT, setting)
        return effective(subject, setting, self._own(subject, setting), definition)

    def definition(self, setting: str) -> Mapping[str, Any] | None:
        change = self._own(CATALOG_SUBJECT, setting)
        return change.value if change is not None and isinstance(change.value, dict) else None

    def retraction_since(self, subject: str, setting: str, after: int) -> Retraction | None:
        if (subject, setting) != self._told.place:
            return self._view.retraction_since(subject, setting, after)
        return deciding_retraction(self._rest(), setting, self._view.at, after)

    def _own(self, subject: str, setting: str) -> Change | None:
        if (subject, setting) != self._told.place:
            return self._view.change(subject, setting)
        timeline = fold(self._rest()).get(setting)
        return None if timeline is None else timeline.at(self._view.at)

    def _rest(self) -> list[Assertion]:
        return [one for one in _known(self._view, self._told.subject) if one.position != self._told.position]


def _known(view: AsOfView, subject: str) -> list[Assertion]:
    known_at = view.at if view.known_at == IN_FORCE else view.known_at
    return view.context.snapshot.assertions(subject, known_at if isinstance(known_at, int) else None)


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    """For programs: the decision, and each event with whether it is needed and what would hold without it."""
    return {
        "decision": decision_json(explanation.decision),
        "decided_by": [told.position for told in explanation.needed],
        "other_sets_as_small": explanation.others,
        "events": [
            event_json(weighed.source)
            | {"needed": weighed.needed, "without": {"verdict": weighed.verdict, "reasons": list(weighed.reasons)}}
            for weighed in explanation.events
        ],
    }


def event_json(told: SubjectEvent) -> dict[str, Any]:
    event = told.event
    if isinstance(event, Retraction):
        return {"subject": told.subject, **retraction_json(event)}
    return {"subject": told.subject, "setting": event.setting, "value": event.value} | change_json(event)
