"""The report as JSON, for programs: the same content as the page. Proved by tests/audit/report/test_page.py."""

from __future__ import annotations

from typing import Any, Final

from ledger.times import format_time
from projections.audit.explain import explanation_json
from projections.audit.report.commands import (
    audit_command,
    check_command,
    explain_command,
    known_at_option,
    record_json,
)
from projections.audit.report.formats import day_text
from projections.audit.report.missing_facts import MissingFact
from projections.audit.report.report import AuditReport, ShownRow
from projections.audit.schemas import REASON_NAMES, VERDICT_NAMES
from projections.audit.summary import summary_json

FORMAT: Final = 1


def report_json(report: AuditReport) -> dict[str, Any]:
    """`verdicts` and `reasons` leave out names that count nothing. Instants are RFC 3339, days `YYYY-MM-DD`."""
    summary, invocation, rejected = report.summary, report.invocation, report.rejected
    return {
        "format": FORMAT,
        "inforce": invocation.version,
        "command": audit_command(invocation.arguments, known_at_option(summary.known_at)),
        **summary_json(summary),
        "subjects": [one._asdict() for one in report.subjects],
        "by_reason": [one._asdict() for one in report.reasons],
        "by_day": _by_day(report),
        "by_model": [one._asdict() for one in report.models],
        "model_count": report.models_count,
        "findings": [_row_json(row, report) for row in report.findings],
        "findings_by_reason": [one._asdict() for one in report.findings_of],
        "hindsight_by_verdict": [
            {"verdict": verdict, "hindsight": later, "rows": rows} for verdict, later, rows in report.hindsight.rows
        ],
        "hindsight_shown": [_row_json(row, report) for row in report.hindsight.shown],
        "indeterminate": [
            {"reason": one.reason, "rows": one.rows, "groups": one.groups, "missing": [*map(_missing, one.missing)]}
            for one in report.undecided
        ],
        "rejected": {
            "lines": summary.rejects,
            "file": invocation.rejects,
            "reasons": [{"reason": fault, "lines": lines} for fault, lines in rejected.faults],
            "reason_count": rejected.faults_count,
            "first": [{"source": row.source, "line": row.line, "reason": row.fault} for row in rejected.first],
        },
    }


def _row_json(row: ShownRow, report: AuditReport) -> dict[str, Any]:
    sample = row.sample
    known_at, arguments = report.summary.known_at, report.invocation.arguments
    return {
        "source": sample.source,
        "line": sample.line,
        "record": record_json(sample.record),
        **explanation_json(row.explanation),
        "commands": {
            "check": check_command(sample.record, known_at),
            "explain": explain_command(arguments, sample.record.request_id, known_at, sample.source, sample.line),
        },
    }


def _by_day(report: AuditReport) -> list[dict[str, Any]]:
    reasons = dict(report.days_reasons)
    return [
        {
            "day": day_text(day),
            "verdicts": {verdict: n for verdict, n in zip(VERDICT_NAMES, counts, strict=True) if n},
            "reasons": {reason: n for reason, n in zip(REASON_NAMES, reasons.get(day, []), strict=False) if n},
        }
        for day, counts in report.days
    ]


def _missing(fact: MissingFact) -> dict[str, Any]:
    return fact._asdict() | {"first_at": format_time(fact.first_at), "last_at": format_time(fact.last_at)}
