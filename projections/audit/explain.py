"""Explains a decision: its causes, the events behind them, and the decision without each of these events.

The causes are those of `projections.decisions.causes`. The events that decide are the changes of the causes' settings,
the definition where a default decided, the links that led to the governing subject, and the retractions that cause
enforcement lag. So a setting that permits an act never counts among the causes of a violation.

Beside them stands the effect of each event alone: the decision if that one event had never been recorded, with the
earlier events that it hid or ended. Proved by tests/audit/test_explain.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ledger.subjects import CATALOG_SUBJECT, kind_of
from projections.decisions.causes import Cause, because, causes
from projections.decisions.check import check, decision_basis
from projections.decisions.directory import SETTINGS_OF, Directory
from projections.decisions.model import (
    Decision,
    Reason,
    RequestRecord,
    Verdict,
    change_json,
    decision_json,
    retraction_json,
)
from projections.decisions.scope import ATTACHED_TO, OWNER
from projections.query.as_of_view import AsOfView
from projections.query.query import IN_FORCE, KnownAt, PinnedQuery
from projections.query.snapshots import ReadContext
from projections.temporal.changes import Assertion, Change, Retraction
from projections.temporal.effective_state import SettingState, effective
from projections.temporal.fold import fold

Key = tuple[str, str]
"""(subject, setting)"""


class SubjectEvent(NamedTuple):
    """An event behind the decision. The subject of a definition is the catalog."""

    subject: str
    event: Change | Retraction

    @property
    def position(self) -> int:
        return self.event.position

    @property
    def key(self) -> Key:
        return self.subject, self.event.setting


class WithoutEvent(NamedTuple):
    """The decision if one event had never been recorded."""

    verdict: Verdict
    reasons: tuple[Reason, ...]


class WeighedEvent(NamedTuple):
    """needed: whether the event is behind a cause. without: None for a setting's first definition, since nothing can be
    decided without it."""

    source: SubjectEvent
    needed: bool
    without: WithoutEvent | None


class Explanation(NamedTuple):
    """causes: in the order of the reasons. events: by position."""

    record: RequestRecord
    decision: Decision
    causes: tuple[Cause, ...]
    events: tuple[WeighedEvent, ...]

    @property
    def needed(self) -> tuple[SubjectEvent, ...]:
        return tuple(weighed.source for weighed in self.events if weighed.needed)


def explain(query: PinnedQuery, record: RequestRecord, known_at: KnownAt = IN_FORCE) -> Explanation:
    """Explains the decision on `record` at the query's pin."""
    decision = query.check(record, known_at)
    view = _RecordingView(query.context(), record.at, known_at)
    check(record, view)
    view.states |= {(state.subject, state.setting): state for state in decision.outcome.evidence}
    row_causes = causes(record, decision_basis(record, view), decision.outcome)
    deciding = _deciding(row_causes, decision, view)
    events = _events(view, deciding)
    weighed = [WeighedEvent(event, event.position in deciding, _without(record, view, event)) for event in events]
    return Explanation(record, decision, row_causes, tuple(weighed))


def _deciding(row_causes: tuple[Cause, ...], decision: Decision, view: _RecordingView) -> set[int]:
    """The positions of the events behind the causes."""
    links = [
        state
        for state in decision.outcome.evidence
        if state.setting in (OWNER, ATTACHED_TO) and state.source == "explicit"
    ]
    states = [*(state for cause in row_causes for state in cause.rests_on), *links]
    positions = {change.position for state in states for change in (state.change, state.cleared_by) if change}
    if decision.outcome.enforcement_lag is not None:
        keys = {(state.subject, state.setting) for state in states}
        positions |= {retraction.position for key, retraction in view.retractions.items() if key in keys}
    return positions


def _events(view: _RecordingView, deciding: set[int]) -> list[SubjectEvent]:
    """The events that the decision rests on, by position: definitions only if they decide or redefine a setting."""
    events: dict[int, SubjectEvent] = {}
    for (subject, setting), state in view.states.items():
        own = state.change if state.source == "explicit" else state.cleared_by
        if own is not None:
            events[own.position] = SubjectEvent(subject, own)
        definition = view.change(CATALOG_SUBJECT, setting)
        if definition is not None and (definition.position in deciding or not _is_first(view, definition)):
            events[definition.position] = SubjectEvent(CATALOG_SUBJECT, definition)
    for (subject, _), retraction in view.retractions.items():
        events[retraction.position] = SubjectEvent(subject, retraction)
    return [events[position] for position in sorted(events)]


def _is_first(view: AsOfView, definition: Change) -> bool:
    """Whether no other definition of the setting was recorded before."""
    earlier = (one for one in view.assertions(CATALOG_SUBJECT) if one.position < definition.position)
    return not any(isinstance(one, Change) and one.setting == definition.setting for one in earlier)


def _without(record: RequestRecord, view: AsOfView, event: SubjectEvent) -> WithoutEvent | None:
    if event.subject == CATALOG_SUBJECT and isinstance(event.event, Change) and _is_first(view, event.event):
        return None
    outcome = check(record, _ViewWithout(view, event))
    return WithoutEvent(outcome.verdict, outcome.reasons)


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


class _ViewWithout(AsOfView):
    """A view of the ledger as if one event had never been recorded."""

    def __init__(self, view: AsOfView, omitted: SubjectEvent) -> None:
        super().__init__(view.context, view.at, view.known_at)
        self._omitted = omitted

    def setting(self, subject: str, setting: str) -> SettingState:
        changes = self.change(subject, setting), self.change(CATALOG_SUBJECT, setting)
        return self.whole(effective(subject, setting, *changes))

    def known(self, subject: str) -> bool:
        return bool(self.assertions(subject))

    def directory(self) -> Directory:
        subjects = self.context.snapshot.directory_subjects()
        keys = [(subject, setting) for subject in subjects for setting in SETTINGS_OF[kind_of(subject)]]
        return Directory({key: self.setting(*key) for key in keys})

    def change(self, subject: str, setting: str) -> Change | None:
        if (subject, setting) != self._omitted.key:
            return super().change(subject, setting)
        timeline = fold(self.assertions(subject)).get(setting)
        return None if timeline is None else timeline.at(self.at)

    def assertions(self, subject: str) -> list[Assertion]:
        return [one for one in super().assertions(subject) if one.position != self._omitted.position]


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    """For programs: the decision, its causes, and each event with whether it decided and the verdict without it."""
    return {
        "decision": decision_json(explanation.decision),
        "causes": causes_json(explanation.causes),
        "decided_by": [event.position for event in explanation.needed],
        "events": [
            _event_json(weighed.source)
            | {"needed": weighed.needed, "without": None if weighed.without is None else weighed.without._asdict()}
            for weighed in explanation.events
        ],
    }


def causes_json(row_causes: tuple[Cause, ...]) -> list[dict[str, Any]]:
    """Each with its reason (null: the settings permit the request), a clause for people, and its parts."""
    return [_cause_json(cause) for cause in row_causes]


def _cause_json(cause: Cause) -> dict[str, Any]:
    return {
        "reason": cause.reason,
        "because": because(cause),
        "observed": dict(cause.observed),
        "rests_on": [
            {
                "subject": state.subject,
                "setting": state.setting,
                "value": state.value,
                "source": state.source,
                "position": None if state.newest is None else state.newest.position,
            }
            for state in cause.rests_on
        ],
    }


def _event_json(source: SubjectEvent) -> dict[str, Any]:
    event = source.event
    if isinstance(event, Retraction):
        return {"subject": source.subject, **retraction_json(event)}
    return {"subject": source.subject, "setting": event.setting, "value": event.value} | change_json(event)
