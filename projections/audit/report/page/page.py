"""The two pages, of all findings and of the counts alone. They have no script and load nothing, and the same report
gives the same bytes.

No text of a log becomes markup: tests/audit/report/test_templating.py puts hostile text into every string of a report.
"""

from __future__ import annotations

import shlex
from typing import Any, Final, NamedTuple

from projections.audit.counting import AGAINST_CODES
from projections.audit.report.commands import audit_command, known_at_option, known_at_word
from projections.audit.report.formats import plural
from projections.audit.report.page.rows import finding_groups, hindsight_boxes
from projections.audit.report.plots import ColumnChart, column_chart
from projections.audit.report.report import AuditReport
from projections.audit.report.templating import environment
from projections.audit.schemas import VERDICT_NAMES
from projections.audit.summary import Summary

DAYS_SHOWN: Final = 10
PROVIDERS_SHOWN: Final = 20
SOURCES_SHOWN: Final = 50
SUMMARY_ROWS: Final = 10
"""Of each table of the summary, so that it has at most ten printed pages."""
SUMMARY_COMMAND_MAX: Final = 2000
"""Characters. An audit of a thousand files has a longer command."""
_CODES: Final = [VERDICT_NAMES.index(verdict) for verdict in ("violation", "denied", "indeterminate")]
"""The verdicts of the section, in the order in which its chart stacks them."""
DIGEST_FILES_MAX: Final = 20
LEAF_COMMAND: Final = "(printf '\\000'; sed -n {0}p events.jsonl | tr -d '\\n') | sha256sum"
"""Computes the RFC 6962 leaf hash of an exported event."""


class SummaryGroup(NamedTuple):
    """A reason, and the index in `AuditReport.findings` of the first row with it that is shown."""

    reason: str
    first: int


class WorstDays(NamedTuple):
    """rows: (day, counts of the chart's verdicts, requests), worst first; days: how many days have such verdicts."""

    chart: ColumnChart
    rows: tuple[tuple[int, tuple[int, ...], int], ...]
    days: int


def page(report: AuditReport) -> str:
    """The HTML document with all findings that the report shows."""
    return _render(
        "report.html.jinja",
        report,
        groups=finding_groups(report),
        providers_shown=PROVIDERS_SHOWN,
        sources_shown=SOURCES_SHOWN,
        command=_command(report),
        check_commands=check_commands(report.summary),
    )


def summary_page(report: AuditReport) -> str:
    """The HTML document with the counts: at most ten printed pages."""
    command = _command(report)
    short = report._replace(
        subjects=report.subjects[:SUMMARY_ROWS],
        models=report.models[:SUMMARY_ROWS],
        hindsight=report.hindsight._replace(rows=report.hindsight.rows[:SUMMARY_ROWS], shown=()),
        undecided=tuple(one._replace(missing=one.missing[:2]) for one in report.undecided),
        rejected=report.rejected._replace(
            faults=report.rejected.faults[:SUMMARY_ROWS], first=report.rejected.first[: SUMMARY_ROWS // 2]
        ),
    )
    return _render(
        "summary.html.jinja",
        short,
        groups=[SummaryGroup(one.reason, one.shown[0]) for one in report.findings_of if one.shown],
        providers_shown=SUMMARY_ROWS,
        sources_shown=SUMMARY_ROWS // 2,
        command=command if len(command) <= SUMMARY_COMMAND_MAX else None,
        check_commands=check_commands(report.summary) if len(command) <= SUMMARY_COMMAND_MAX else [],
    )


def _render(template: str, report: AuditReport, **variables: Any) -> str:
    known = known_at_option(report.summary.known_at)
    return (
        environment()
        .get_template(template)
        .render(
            title=_title(report),
            report=report,
            summary=report.summary,
            worst=worst_days(report),
            hindsight_boxes=hindsight_boxes(report),
            known=known_at_word(report.summary.known_at),
            list_command=audit_command(report.invocation.arguments, known, "--out=verdicts.csv"),
            **variables,
        )
    )


def _command(report: AuditReport) -> str:
    return audit_command(report.invocation.arguments, known_at_option(report.summary.known_at))


def _title(report: AuditReport) -> str:
    sources = report.summary.log.sources
    name = f"Audit of {sources[0][0] if sources else 'a request log'}"
    return f"{name} and {plural(len(sources) - 1, 'other log')}" if len(sources) > 1 else name


def check_commands(summary: Summary) -> list[str]:
    """Compute the leaf hash and the digest of the log with an export and standard tools."""
    commands = []
    if summary.pin.position:
        commands += ["inforce export --out events.jsonl", LEAF_COMMAND.format(summary.pin.position)]
    names = [name for name, _ in summary.log.sources]
    # Standard input cannot be read again, and a page cannot list a thousand files.
    if names and "-" not in names and len(names) <= DIGEST_FILES_MAX:
        commands.append(f"{shlex.join(['cat', '--', *names])} | sha256sum")
    return commands


def worst_days(report: AuditReport) -> WorstDays | None:
    """None: no request has a verdict of this section."""
    codes = [code for code in _CODES if any(counts[code] for _, counts in report.days)]
    if not codes:
        return None
    days = [(day, tuple(counts[code] for code in codes), counts) for day, counts in report.days]
    worst = sorted(
        (one for one in days if any(one[1])),
        key=lambda one: (-sum(one[2][code] for code in AGAINST_CODES), -sum(one[1]), one[0]),
    )
    chart = column_chart([(day, counts) for day, counts, _ in days], [VERDICT_NAMES[code] for code in codes])
    rows = ((day, counts, sum(all_counts)) for day, counts, all_counts in worst[:DAYS_SHOWN])
    return WorstDays(chart, tuple(rows), len(worst))
