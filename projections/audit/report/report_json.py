"""A report as JSON: the same content as the page, for programs."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any, Final

from ledger.times import format_time
from projections.audit.explaining import explanation_json
from projections.audit.report.commands import audit_command, check_command, explain_command, known_at_words, record_json
from projections.audit.report.missing_facts import Missing
from projections.audit.report.report import Finding, Report
from projections.audit.schemas import REASON_NAMES, VERDICT_NAMES
from projections.audit.summary import summary_json

FORMAT: Final = 1
_EPOCH: Final = date(1970, 1, 1)


def report_json(report: Report) -> dict[str, Any]:
    """Members that count nothing are left out of `verdicts` and `reasons`. Instants are RFC 3339, days `YYYY-MM-DD`."""
    summary, reading = report.summary, report.reading
    known_at, arguments = summary.known_at, reading.arguments
    return {
        "format": FORMAT,
        "inforce": reading.version,
        "command": audit_command(arguments, f"--known-at={known_at_words(known_at)}"),
        **summary_json(summary),
        "subjects": [one._asdict() for one in report.subjects],
        "by_reason": [one._asdict() for one in report.reasons],
        "by_day": _by_day(report),
        "by_model": [one._asdict() for one in report.models],
        "model_count": report.models_count,
        "findings": [finding_json(finding, report) for finding in report.findings],
        "findings_by_reason": [one._asdict() for one in report.findings_of],
        "hindsight_by_verdict": [
            {"verdict": verdict, "hindsight": later, "rows": rows} for verdict, later, rows in report.rewritten.rows
        ],
        "hindsight_shown": [finding_json(finding, report) for finding in report.rewritten.shown],
        "indeterminate": [
            {"reason": one.reason, "rows": one.rows, "groups": one.groups, "missing": [*map(_missing, one.missing)]}
            for one in report.unsettled
        ],
        "rejected": {
            "lines": summary.rejects,
            "file": reading.rejects,
            "reasons": [{"reason": fault, "lines": lines} for fault, lines in report.rejected.faults],
            "reason_count": report.rejected.faults_count,
            "first": [{"source": row.source, "line": row.line, "reason": row.fault} for row in report.rejected.first],
        },
    }


def finding_json(finding: Finding, report: Report) -> dict[str, Any]:
    sample = finding.sample
    known_at, arguments = report.summary.known_at, report.reading.arguments
    return {
        "source": sample.source,
        "line": sample.line,
        "record": record_json(sample.record),
        **explanation_json(finding.explanation),
        "commands": {
            "check": check_command(sample.record, known_at),
            "explain": explain_command(arguments, sample.record.request_id, known_at),
        },
    }


def day_text(day: int) -> str:
    """`YYYY-MM-DD` of a day since 1970-01-01."""
    return (_EPOCH + timedelta(days=day)).isoformat()


def _by_day(report: Report) -> list[dict[str, Any]]:
    reasons = dict(report.days_reasons)
    return [
        {
            "day": day_text(day),
            "verdicts": {verdict: n for verdict, n in zip(VERDICT_NAMES, counts, strict=True) if n},
            "reasons": {reason: n for reason, n in zip(REASON_NAMES, reasons.get(day, []), strict=False) if n},
        }
        for day, counts in report.days
    ]


def _missing(missing: Missing) -> dict[str, Any]:
    written: dict[str, Any] = missing._asdict()
    return written | {"first_at": format_time(missing.first_at), "last_at": format_time(missing.last_at)}
