"""The page's sections of single rows: findings with their evidence, and rows that hindsight decides differently."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from ledger.times import BEGINNING
from projections.audit.explain import WeighedEvent
from projections.audit.report.commands import (
    audit_command,
    check_command,
    explain_command,
    known_at_option,
    record_json,
)
from projections.audit.report.formats import handling_value, setting_value, when
from projections.audit.report.report import AuditReport, ShownRow
from projections.decisions.model import REASONS, EnforcementLag, Handling, Outcome
from projections.temporal.changes import Change, Retraction
from projections.temporal.effective_state import SettingState

CAUSES_SHOWN: Final = 4
"""Events shown of those that change a decision in hindsight."""


class RowHeader(NamedTuple):
    """commands: show the row again."""

    request_id: str | None
    source: str
    line: int
    at: int
    commands: tuple[str, ...]


class DecisionText(NamedTuple):
    verdict: str
    reasons: tuple[str, ...]


class EvidenceRow(NamedTuple):
    """A setting with the event that decided it. note: the part of a default. needed: the event is in the smallest set
    that gives the verdict. without: the decision without the event, if it is another."""

    setting: str
    subject: str
    value: str
    position: int
    actor: str
    note: str
    recorded_at: int
    effective_from: str
    needed: bool
    without: str


class DefaultRow(NamedTuple):
    """A setting that rests on no event of the evidence."""

    setting: str
    subject: str
    value: str


class Cause(NamedTuple):
    """An event: a retraction if `value` is None, else the change that gave the setting the value."""

    position: int
    recorded_at: int
    actor: str
    setting: str
    subject: str
    value: str | None = None
    effective_from: str = ""


class FindingBox(NamedTuple):
    """members: of the request record. retractions: the needed ones, which have no evidence row."""

    number: int
    header: RowHeader
    decision: DecisionText
    lag: EnforcementLag | None
    governing: str | None
    via: tuple[str, ...]
    members: tuple[tuple[str, str], ...]
    evidence: tuple[EvidenceRow, ...]
    defaults: tuple[DefaultRow, ...]
    retractions: tuple[Cause, ...]


class ReasonGroup(NamedTuple):
    """boxes: the findings that no earlier group shows; see_also: the numbers of those that one does; more: rows that
    the page does not show."""

    reason: str
    meaning: str
    rows: int
    boxes: tuple[FindingBox, ...]
    see_also: tuple[int, ...]
    more: int


class Findings(NamedTuple):
    """complete: the groups show every row with a verdict against it. command: lists all verdicts."""

    groups: tuple[ReasonGroup, ...]
    complete: bool
    command: str


class HindsightPair(NamedTuple):
    """later "": the same verdict with another handling."""

    verdict: str
    later: str
    rows: int


class HindsightBox(NamedTuple):
    """handling: (member, before, after) of what changed. causes: the first events that changed the decision."""

    number: int
    header: RowHeader
    decision: DecisionText
    later: DecisionText
    handling: tuple[tuple[str, str, str], ...]
    causes: tuple[Cause, ...]
    more_causes: int


class HindsightSection(NamedTuple):
    rows: int
    pairs: tuple[HindsightPair, ...]
    boxes: tuple[HindsightBox, ...]


def findings(report: AuditReport) -> Findings:
    groups = []
    boxed: set[int] = set()
    for one in report.findings_of:
        new = [index for index in one.shown if index not in boxed]
        see_also = tuple(index + 1 for index in one.shown if index in boxed)
        boxes = tuple(_finding(report.findings[index], index + 1, report) for index in new)
        boxed.update(new)
        more = one.rows - len(one.shown)
        groups.append(ReasonGroup(one.reason, REASONS[one.reason], one.rows, boxes, see_also, more))
    known = known_at_option(report.summary.known_at)
    command = audit_command(report.invocation.arguments, known, "--out=verdicts.csv")
    return Findings(tuple(groups), all(not group.more for group in groups), command)


def hindsight(report: AuditReport) -> HindsightSection:
    pairs = (
        HindsightPair(verdict, later if later != verdict else "", rows)
        for verdict, later, rows in report.hindsight.rows
    )
    boxes = (_hindsight(row, index + 1, report) for index, row in enumerate(report.hindsight.shown))
    return HindsightSection(report.summary.hindsight, tuple(pairs), tuple(boxes))


def _header(row: ShownRow, report: AuditReport) -> RowHeader:
    record, known_at = row.sample.record, report.summary.known_at
    commands = [check_command(record, known_at)]
    explained = explain_command(report.invocation.arguments, record.request_id, known_at)
    if explained is not None:
        commands.append(explained)
    return RowHeader(record.request_id, row.sample.source, row.sample.line, record.at, tuple(commands))


def _decision(outcome: Outcome) -> DecisionText:
    return DecisionText(outcome.verdict, outcome.reasons)


def _finding(row: ShownRow, number: int, report: AuditReport) -> FindingBox:
    outcome = row.explanation.decision.outcome
    evidence, defaults = _evidence(row)
    return FindingBox(
        number=number,
        header=_header(row, report),
        decision=_decision(outcome),
        lag=outcome.enforcement_lag,
        governing=outcome.governed_by.subject,
        via=outcome.governed_by.via,
        members=tuple(_members(row)),
        evidence=tuple(evidence),
        defaults=tuple(defaults),
        retractions=tuple(
            _cause_of_retraction(one.source.event, one.source.subject)
            for one in row.explanation.events
            if one.needed and isinstance(one.source.event, Retraction)
        ),
    )


def _members(row: ShownRow) -> Iterator[tuple[str, str]]:
    record = record_json(row.sample.record)
    members = {name: value for name, value in record.items() if name not in ("request_id", "at", "handling")}
    for name, value in (members | record.get("handling", {})).items():
        yield name, setting_value(value)


def _evidence(row: ShownRow) -> tuple[list[EvidenceRow], list[DefaultRow]]:
    outcome = row.explanation.decision.outcome
    weighed = {one.source.position: one for one in row.explanation.events}
    evidence, defaults = [], []
    for state in outcome.evidence:
        change = state.newest
        if change is None or change.position not in weighed:
            defaults.append(DefaultRow(state.setting, state.subject, setting_value(state.value)))
        else:
            evidence.append(_evidence_row(state, change, weighed[change.position], outcome))
    return evidence, defaults


def _evidence_row(state: SettingState, change: Change, weighed: WeighedEvent, outcome: Outcome) -> EvidenceRow:
    note = ""
    if state.source == "default":
        note = "defines the default" if change is state.change else "clears the value: the default applies"
    without = ""
    if not weighed.needed and (weighed.verdict, weighed.reasons) != (outcome.verdict, outcome.reasons):
        without = ", ".join(weighed.reasons) or weighed.verdict
    return EvidenceRow(
        setting=state.setting,
        subject=state.subject,
        value=setting_value(state.value),
        position=change.position,
        actor=change.actor,
        note=note,
        recorded_at=change.recorded_at,
        effective_from="at once" if change.effective_from == change.recorded_at else _start(change),
        needed=weighed.needed,
        without=without,
    )


def _start(change: Change) -> str:
    return "the beginning" if change.effective_from == BEGINNING else when(change.effective_from)


def _hindsight(row: ShownRow, number: int, report: AuditReport) -> HindsightBox:
    decision = row.explanation.decision
    assert decision.hindsight is not None, "the row was counted because it has a hindsight"
    before, after = decision.outcome.handling, decision.hindsight.outcome.handling
    handling = (
        (name, handling_value(one), handling_value(other))
        for name, one, other in zip(Handling._fields, before, after, strict=True)
        if one != other
    )
    causes = [cause for by in decision.hindsight.changed_by if (cause := _cause(by)) is not None]
    return HindsightBox(
        number=number,
        header=_header(row, report),
        decision=_decision(decision.outcome),
        later=_decision(decision.hindsight.outcome),
        handling=tuple(handling),
        causes=tuple(causes[:CAUSES_SHOWN]),
        more_causes=max(len(causes) - CAUSES_SHOWN, 0),
    )


def _cause(by: SettingState | Retraction) -> Cause | None:
    if isinstance(by, Retraction):
        return _cause_of_retraction(by, "")
    change = by.newest
    if change is None:
        return None
    value = setting_value(by.value)
    return Cause(change.position, change.recorded_at, change.actor, by.setting, by.subject, value, _start(change))


def _cause_of_retraction(retraction: Retraction, subject: str) -> Cause:
    return Cause(retraction.position, retraction.recorded_at, retraction.actor, retraction.setting, subject)
