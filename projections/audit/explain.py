"""Explains a decision: the smallest set of events that its verdict and reasons rest on.

A ledger with only these events, and with each setting's first definition, gives the same verdict and the same reasons.
So none of them can be left out, and every other event can: an event that repeats the default is not needed. The search
decides with `check` itself. Candidates are the changes and clears that decided the settings of the evidence, a
setting's definitions after its first, and the retractions that cause enforcement lag.

Beside this set stands the effect of each candidate alone: the decision if that one event had never been recorded, with
the earlier events that it hid. Proved by tests/audit/test_explain.py, which tries every smaller set by brute force.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeVar

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
from projections.query.query import IN_FORCE, KnownAt, PinnedQuery
from projections.query.snapshots import ReadContext
from projections.temporal.changes import Assertion, Change, Retraction
from projections.temporal.effective_state import SettingState, effective
from projections.temporal.fold import fold

SETTINGS: Final = (*POLICY, *OF_MODEL, "owner", "attached_to")
"""Every setting that a decision may rest on."""

Key = tuple[str, str]
"""(subject, setting)"""
_Event = TypeVar("_Event", Change, Retraction)


class SubjectEvent(NamedTuple):
    """A candidate. The subject of a definition is the catalog."""

    subject: str
    event: Change | Retraction

    @property
    def position(self) -> int:
        return self.event.position

    @property
    def key(self) -> Key:
        return self.subject, self.event.setting


class WeighedEvent(NamedTuple):
    """needed: whether the event is in the smallest set. verdict, reasons: of the decision without this one event."""

    source: SubjectEvent
    needed: bool
    verdict: Verdict
    reasons: tuple[Reason, ...]


class Explanation(NamedTuple):
    """events: by position. others: the number of further sets that are as small and suffice, too."""

    record: RequestRecord
    decision: Decision
    events: tuple[WeighedEvent, ...]
    others: int

    @property
    def needed(self) -> tuple[SubjectEvent, ...]:
        """The smallest set; of several, the one with the lowest positions. Empty if the defaults of the first
        definitions suffice."""
        return tuple(weighed.source for weighed in self.events if weighed.needed)


def explain(query: PinnedQuery, record: RequestRecord, known_at: KnownAt = IN_FORCE) -> Explanation:
    """Explains the decision on `record` at the query's pin."""
    decision = query.check(record, known_at)
    view = _RecordingView(query.context(), record.at, known_at)
    evidence = _evidence(record, view)
    sets = smallest_sets(record, evidence, decision.outcome)
    events = []
    for candidate in evidence.candidates():
        without = check(record, _ViewWithout(view, candidate))
        events.append(WeighedEvent(candidate, candidate.position in sets[0], without.verdict, without.reasons))
    return Explanation(record, decision, tuple(events), len(sets) - 1)


class EvidenceEvents(NamedTuple):
    """The events that partial ledgers are made of.

    own: the change or clear that decided a setting. definitions: setting → the definition at that time. first: setting
    → its first definition. retractions: the answers of `retraction_since`.
    """

    own: Mapping[Key, Change]
    definitions: Mapping[str, Change]
    first: Mapping[str, Change]
    retractions: Mapping[Key, Retraction]

    def candidates(self) -> list[SubjectEvent]:
        """The events that can be left out, by position."""
        events = [SubjectEvent(subject, change) for (subject, _), change in self.own.items()]
        events += [SubjectEvent(subject, retraction) for (subject, _), retraction in self.retractions.items()]
        settings = {setting for _, setting in self.own} | set(self.definitions)
        events += [SubjectEvent(CATALOG_SUBJECT, self.definitions[s]) for s in settings if self.is_redefined(s)]
        return sorted({event.position: event for event in events}.values(), key=lambda event: event.position)

    def is_redefined(self, setting: str) -> bool:
        first, current = self.first.get(setting), self.definitions.get(setting)
        return first is not None and current is not None and first.position != current.position


class PartialLedger:
    """The states (`projections.temporal.effective_state.States`) of a ledger with only some events of the evidence.

    positions: of the events that it holds. relevant: positions of the events that the questions so far would depend on.
    """

    def __init__(self, evidence: EvidenceEvents, positions: frozenset[int]) -> None:
        self.relevant: set[int] = set()
        self._evidence = evidence
        self._positions = positions

    def setting(self, subject: str, setting: str) -> SettingState:
        own = self._if_held(self._evidence.own.get((subject, setting)))
        return effective(subject, setting, own, self._definition(setting, relevant=True))

    def definition(self, setting: str) -> Mapping[str, Any] | None:
        # `check` reads only protective values here. They affect the handling, but no verdict and no reason.
        change = self._definition(setting, relevant=False)
        return change.value if change is not None and isinstance(change.value, dict) else None

    def retraction_since(self, subject: str, setting: str, after: int) -> Retraction | None:
        return self._if_held(self._evidence.retractions.get((subject, setting)))

    def _if_held(self, event: _Event | None) -> _Event | None:
        if event is None:
            return None
        self.relevant.add(event.position)
        return event if event.position in self._positions else None

    def _definition(self, setting: str, *, relevant: bool) -> Change | None:
        if not self._evidence.is_redefined(setting):
            return self._evidence.definitions.get(setting)
        change = self._evidence.definitions[setting]
        if relevant:
            self.relevant.add(change.position)
        return change if change.position in self._positions else self._evidence.first[setting]


def smallest_sets(record: RequestRecord, evidence: EvidenceEvents, outcome: Outcome) -> list[frozenset[int]]:
    """The positions of each smallest set that gives the verdict and reasons of `outcome`, lowest positions first.

    The search tries sets by size, and extends a set only by events that were relevant with it: a set that holds all its
    relevant events decides as every larger set does. So it finds all smallest sets, and a long chain of owners costs
    its length instead of two to the power of its length.
    """
    layer = {frozenset[int]()}
    while layer:
        sufficient: list[frozenset[int]] = []
        larger: set[frozenset[int]] = set()
        for positions in layer:
            ledger = PartialLedger(evidence, positions)
            partial = check(record, ledger)
            if (partial.verdict, partial.reasons) == (outcome.verdict, outcome.reasons):
                sufficient.append(positions)
            else:
                larger |= {positions | {position} for position in ledger.relevant - positions}
        if sufficient:
            return sorted(sufficient, key=sorted)
        layer = larger
    raise AssertionError("all the evidence together gives the decision")


class _RecordingView(AsOfView):
    """A view that records its answers."""

    def __init__(self, context: ReadContext, at: int, known_at: KnownAt) -> None:
        super().__init__(context, at, known_at)
        self.states: dict[Key, SettingState] = {}
        self.retractions: dict[Key, Retraction] = {}

    def setting(self, subject: str, setting: str) -> SettingState:
        state = self.states[subject, setting] = super().setting(subject, setting)
        return state

    def retraction_since(self, subject: str, setting: str, after: int) -> Retraction | None:
        retraction = super().retraction_since(subject, setting, after)
        if retraction is not None:
            self.retractions[subject, setting] = retraction
        return retraction


def _evidence(record: RequestRecord, view: _RecordingView) -> EvidenceEvents:
    check(record, view)
    own: dict[Key, Change] = {}
    for key, state in view.states.items():
        change = state.change if state.source == "explicit" else state.cleared_by
        if change is not None:
            own[key] = change
    catalog = view.assertions(CATALOG_SUBJECT)
    retracted = {one.retracts for one in catalog if isinstance(one, Retraction)}
    first: dict[str, Change] = {}
    for one in catalog:
        if isinstance(one, Change) and one.event_id not in retracted and one.value is not None:
            first.setdefault(one.setting, one)
    definitions = {setting: view.change(CATALOG_SUBJECT, setting) for setting in SETTINGS}
    current = {setting: change for setting, change in definitions.items() if change is not None}
    return EvidenceEvents(own, current, first, view.retractions)


class _ViewWithout(AsOfView):
    """A view of the ledger as if one event had never been recorded."""

    def __init__(self, view: AsOfView, omitted: SubjectEvent) -> None:
        super().__init__(view.context, view.at, view.known_at)
        self._omitted = omitted

    def setting(self, subject: str, setting: str) -> SettingState:
        return effective(subject, setting, self.change(subject, setting), self.change(CATALOG_SUBJECT, setting))

    def change(self, subject: str, setting: str) -> Change | None:
        if (subject, setting) != self._omitted.key:
            return super().change(subject, setting)
        timeline = fold(self.assertions(subject)).get(setting)
        return None if timeline is None else timeline.at(self.at)

    def assertions(self, subject: str) -> list[Assertion]:
        return [one for one in super().assertions(subject) if one.position != self._omitted.position]


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    """For programs: the decision, and each event with whether it is needed and the verdict without it."""
    return {
        "decision": decision_json(explanation.decision),
        "decided_by": [event.position for event in explanation.needed],
        "other_sets_as_small": explanation.others,
        "events": [
            _event_json(weighed.source)
            | {"needed": weighed.needed, "without": {"verdict": weighed.verdict, "reasons": list(weighed.reasons)}}
            for weighed in explanation.events
        ],
    }


def _event_json(source: SubjectEvent) -> dict[str, Any]:
    event = source.event
    if isinstance(event, Retraction):
        return {"subject": source.subject, **retraction_json(event)}
    return {"subject": source.subject, "setting": event.setting, "value": event.value} | change_json(event)
