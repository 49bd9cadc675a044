"""The whole page. It has no script and loads nothing, and the same report gives the same bytes.

No text of a log becomes markup: tests/audit/report/test_templating.py puts hostile text into every string of a report.
"""

from __future__ import annotations

import shlex
from typing import Final, NamedTuple

from projections.audit.counting import AGAINST_CODES
from projections.audit.report.commands import audit_command, known_at_option, known_at_word
from projections.audit.report.page.rows import finding_groups, hindsight_boxes
from projections.audit.report.plots import ColumnChart, column_chart
from projections.audit.report.report import AuditReport
from projections.audit.report.templating import environment
from projections.audit.schemas import VERDICT_NAMES
from projections.audit.summary import Summary

DAYS_SHOWN: Final = 10
_CODES: Final = [VERDICT_NAMES.index(verdict) for verdict in ("violation", "denied", "indeterminate")]
"""The verdicts of the section, in the order in which its chart stacks them."""
DIGEST_FILES_MAX: Final = 20
LEAF_COMMAND: Final = "(printf '\\000'; sed -n {0}p events.jsonl | tr -d '\\n') | sha256sum"
"""Computes the RFC 6962 leaf hash of an exported event."""


class WorstDays(NamedTuple):
    """rows: (day, counts of the chart's verdicts, requests), worst first; days: how many days have such verdicts."""

    chart: ColumnChart
    rows: tuple[tuple[int, tuple[int, ...], int], ...]
    days: int


def page(report: AuditReport) -> str:
    """The HTML document."""
    arguments, known = report.invocation.arguments, known_at_option(report.summary.known_at)
    return (
        environment()
        .get_template("report.html.jinja")
        .render(
            report=report,
            summary=report.summary,
            worst=worst_days(report),
            groups=finding_groups(report),
            hindsight_boxes=hindsight_boxes(report),
            known=known_at_word(report.summary.known_at),
            command=audit_command(arguments, known),
            list_command=audit_command(arguments, known, "--out=verdicts.csv"),
            check_commands=check_commands(report.summary),
        )
    )


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
