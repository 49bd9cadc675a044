"""The page's section of days: the chart over time, and the days with the most verdicts against requests."""

from __future__ import annotations

from typing import Final, NamedTuple

from projections.audit.counting import AGAINST_CODES
from projections.audit.report.plots import ColumnChart, column_chart
from projections.audit.report.report import AuditReport
from projections.audit.schemas import VERDICT_NAMES

DAYS_SHOWN: Final = 10
_CODES: Final = [VERDICT_NAMES.index(verdict) for verdict in ("violation", "denied", "indeterminate")]
"""The verdicts of the section, in the order in which its chart stacks them."""


class WorstDays(NamedTuple):
    """rows: (day, counts of the chart's verdicts, requests), worst first; days: how many days have such verdicts."""

    chart: ColumnChart
    rows: tuple[tuple[int, tuple[int, ...], int], ...]
    days: int


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
