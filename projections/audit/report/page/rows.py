"""The page's boxes of single rows: findings with their evidence, and rows that hindsight decides differently."""

from __future__ import annotations

from typing import NamedTuple

from projections.audit.explain import WeighedEvent
from projections.audit.report.commands import check_command, explain_command, record_json
from projections.audit.report.report import AuditReport, ShownRow
from projections.decisions.model import Handling, Hindsight
from projections.temporal.changes import Change, JsonValue, Retraction
from projections.temporal.effective_state import SettingState


class FindingBox(NamedTuple):
    """members: of the request record. evidence: the settings that rest on an event, with it; defaults: the others."""

    number: int
    row: ShownRow
    commands: tuple[str, ...]
    members: dict[str, JsonValue]
    evidence: tuple[tuple[SettingState, Change, WeighedEvent], ...]
    defaults: tuple[SettingState, ...]


class FindingGroup(NamedTuple):
    """The findings with a reason, which `rows` rows have. boxes: those that no earlier group has; see_also: the numbers
    of the others; more: rows that the report does not show."""

    reason: str
    rows: int
    boxes: tuple[FindingBox, ...]
    see_also: tuple[int, ...]
    more: int


class HindsightBox(NamedTuple):
    """handling: (member, before, after) of what differs. causes: the events that changed the decision, each with the
    state that it gave, or None if it is a retraction."""

    number: int
    row: ShownRow
    commands: tuple[str, ...]
    handling: tuple[tuple[str, object, object], ...]
    causes: tuple[tuple[Change | Retraction, SettingState | None], ...]


def finding_groups(report: AuditReport) -> tuple[FindingGroup, ...]:
    groups = []
    boxed: set[int] = set()
    for one in report.findings_of:
        new = [index for index in one.shown if index not in boxed]
        see_also = (index + 1 for index in one.shown if index in boxed)
        boxes = (_finding(report.findings[index], index + 1, report) for index in new)
        groups.append(FindingGroup(one.reason, one.rows, tuple(boxes), tuple(see_also), one.rows - len(one.shown)))
        boxed.update(new)
    return tuple(groups)


def hindsight_boxes(report: AuditReport) -> tuple[HindsightBox, ...]:
    return tuple(_hindsight(row, number, report) for number, row in enumerate(report.hindsight.shown, 1))


def _finding(row: ShownRow, number: int, report: AuditReport) -> FindingBox:
    weighed = {one.source.position: one for one in row.explanation.events}
    evidence, defaults = [], []
    for state in row.explanation.decision.outcome.evidence:
        change = state.newest
        if change is not None and change.position in weighed:
            evidence.append((state, change, weighed[change.position]))
        else:
            defaults.append(state)
    record = record_json(row.sample.record)
    members = {name: value for name, value in record.items() if name not in ("request_id", "at", "handling")}
    members |= record.get("handling", {})
    return FindingBox(number, row, _commands(row, report), members, tuple(evidence), tuple(defaults))


def _hindsight(row: ShownRow, number: int, report: AuditReport) -> HindsightBox:
    decision = row.explanation.decision
    assert decision.hindsight is not None, "the row was counted because it has a hindsight"
    pairs = zip(Handling._fields, decision.outcome.handling, decision.hindsight.outcome.handling, strict=True)
    handling = tuple((name, before, after) for name, before, after in pairs if before != after)
    return HindsightBox(number, row, _commands(row, report), handling, _causes(decision.hindsight))


def _causes(hindsight: Hindsight) -> tuple[tuple[Change | Retraction, SettingState | None], ...]:
    causes: list[tuple[Change | Retraction, SettingState | None]] = []
    for one in hindsight.changed_by:
        if isinstance(one, Retraction):
            causes.append((one, None))
        elif one.newest is not None:
            causes.append((one.newest, one))
    return tuple(causes)


def _commands(row: ShownRow, report: AuditReport) -> tuple[str, ...]:
    """The commands that show the row again."""
    record, known_at = row.sample.record, report.summary.known_at
    explained = explain_command(
        report.invocation.arguments, record.request_id, known_at, row.sample.source, row.sample.line
    )
    return (check_command(record, known_at), *([] if explained is None else [explained]))
