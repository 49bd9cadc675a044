"""The facts that are missing to decide indeterminate rows: the owner, model or provider that nobody had recorded then.

The report works the facts out for the groups with the most rows, as of the first request of each group.
Proved by tests/audit/report/test_collector.py.
"""

from __future__ import annotations

import json
from typing import Final, NamedTuple

from ledger.subjects import kind_of
from ledger.times import format_time
from projections.audit.report.collector import IDS_OF_REASON, SEPARATOR, ReportCollector
from projections.audit.report.counters import NameCounter, heaviest
from projections.decisions.check import decision_basis
from projections.decisions.model import Reason, RequestRecord
from projections.decisions.published import published_of, undecidable_facts
from projections.decisions.rule_settings import HOSTING, MODEL_REGIONS, PROVIDER
from projections.decisions.scope import resolve
from projections.query.as_of_view import AsOfView
from projections.query.query import KnownAt, PinnedQuery

GROUPS_SHOWN: Final = 15
"""Groups of each reason."""


class MissingFact(NamedTuple):
    """A fact that the ledger lacks for a group of rows with these ids in common.

    first_at, last_at: of the requests (µs). subject, setting: what should have been recorded, if that has a name.
    words: the same as a sentence, as of `first_at`. since: what has been recorded about it by now."""

    ids: dict[str, str]
    rows: int
    first_at: int
    last_at: int
    subject: str | None
    setting: str | None
    words: str
    since: str | None


class UndecidedRows(NamedTuple):
    """The rows that are indeterminate for a reason. missing: of the groups with the most rows; groups: how many there
    are in all."""

    reason: Reason
    rows: int
    groups: int
    missing: tuple[MissingFact, ...]


class _Fact(NamedTuple):
    words: str
    subject: str | None = None
    setting: str | None = None
    since: str | None = None


def missing_facts(collector: ReportCollector, query: PinnedQuery, known_at: KnownAt) -> tuple[UndecidedRows, ...]:
    """The reasons that occurred, most rows first."""
    undecided = [_of_reason(reason, counter, query, known_at) for reason, counter in collector.undecided.items()]
    return tuple(sorted((one for one in undecided if one.rows), key=lambda one: -one.rows))


def _of_reason(reason: Reason, counter: NameCounter, query: PinnedQuery, known_at: KnownAt) -> UndecidedRows:
    counts = counter.counts()
    rows = counts.counts[:, 0]
    missing = []
    for row in heaviest(counts.names, [rows], GROUPS_SHOWN):
        values = counts.names[row].as_py().split(SEPARATOR)
        ids = {name: value for name, value in zip(IDS_OF_REASON[reason], values, strict=False) if value}
        first_at = int(counts.first[row])
        fact = _fact(reason, ids, query, AsOfView(query.context(), first_at, known_at))
        span = first_at, int(counts.last[row])
        missing.append(MissingFact(ids, int(rows[row]), *span, fact.subject, fact.setting, fact.words, fact.since))
    return UndecidedRows(reason, int(rows.sum()), len(rows), tuple(missing))


def _fact(reason: Reason, ids: dict[str, str], query: PinnedQuery, view: AsOfView) -> _Fact:
    if reason == "unknown_model":
        return _model_fact(ids.get("model_id"), view)
    if reason == "unknown_region":
        return _region_fact(ids.get("model_id"), view)
    if reason == "undecidable_value":
        return _undecidable_fact(ids, view)
    if reason == "before_first_record":
        first = query.ledger.recorder.entry(1)
        begun = "is empty" if first is None else f"begins on {format_time(first.recorded_at)}"
        return _Fact(f"the ledger {begun}; no policy was known before")
    if not ids:
        return _Fact("the account is attached to a subject that cannot govern")
    if reason == "scope_conflict":
        return _conflict(ids, view)
    return _owner_fact(ids, view)


def _conflict(ids: dict[str, str], view: AsOfView) -> _Fact:
    chain = " → ".join(resolve(_record(ids, view), view).via)
    for name, kind in (("org_id", "org"), ("account_id", "account")):
        if name in ids:
            return _Fact(f"{chain}, and the record names {kind}:{ids[name]}")
    return _Fact(f"{chain}, and the project of the record leads elsewhere")


def _owner_fact(ids: dict[str, str], view: AsOfView) -> _Fact:
    scope = resolve(_record(ids, view), view)
    ownerless = [state for state in scope.evidence if state.setting == "owner" and not isinstance(state.value, str)]
    if not ownerless:
        end = scope.via[-1]
        return _Fact(f"{' → '.join(scope.via)}: a {kind_of(end)} cannot govern", end)
    state = ownerless[-1]
    words = f"{state.subject} had no owner"
    if state.cleared_by is not None:
        words = f"{state.subject} no longer had an owner (cleared by #{state.cleared_by.position})"
    return _Fact(words, state.subject, state.setting, _since(view, state.subject, state.setting))


def _model_fact(model_id: str | None, view: AsOfView) -> _Fact:
    if model_id is None:
        return _Fact("data was forwarded, but the record names no model that says who may receive it")
    subject = f"model:{model_id}"
    if view.setting(subject, HOSTING).value is None:
        never = "" if view.timelines(subject) else "; no event is about this model"
        words = f"the hosting of {subject} was not known{never}"
        return _Fact(words, subject, HOSTING, _since(view, subject, HOSTING))
    return _Fact(f"the provider of {subject} was not known", subject, PROVIDER, _since(view, subject, PROVIDER))


def _region_fact(model_id: str | None, view: AsOfView) -> _Fact:
    subject = f"model:{model_id}"
    if model_id is not None and not view.setting(subject, MODEL_REGIONS).value:
        words = f"the regions in which {subject} runs were not known"
        return _Fact(words, subject, MODEL_REGIONS, _since(view, subject, MODEL_REGIONS))
    return _Fact("the names and the containment of regions do not tell whether the region is an allowed one")


def _undecidable_fact(ids: dict[str, str], view: AsOfView) -> _Fact:
    outcome = decision_basis(_record(ids, view), view).question
    states = [state for state in outcome.evidence if state.setting in outcome.undecidable]
    if not states and "model_id" in ids:
        # Of a setting that the requests themselves are compared with.
        published = published_of(view, f"model:{ids['model_id']}")
        undecidable = undecidable_facts(published)
        states = [state for state in published if state.setting in undecidable]
    values = ", ".join(
        f"{state.setting} of {state.subject} was {json.dumps(state.value, ensure_ascii=False)}" for state in states
    )
    return _Fact(f"{values}: the rules do not speak of that", states[0].subject, states[0].setting)


def _record(ids: dict[str, str], view: AsOfView) -> RequestRecord:
    return RequestRecord(at=view.at, **ids)  # type: ignore[arg-type] # the keys of IDS_OF_REASON are names of ids


def _since(view: AsOfView, subject: str, setting: str) -> str | None:
    """The setting at the instant of the view, as the ledger knows it by now."""
    later = view.in_hindsight().setting(subject, setting)
    if later.value is None or later.change is None or later.source != "explicit":
        return None
    return f"{setting} = {later.value}, recorded on {format_time(later.change.recorded_at)} as #{later.change.position}"
