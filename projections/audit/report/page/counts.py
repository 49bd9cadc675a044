"""The page's sections of counts: overview, by reason, by day, by subject, by model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from projections.audit.counting import AGAINST_CODES
from projections.audit.report.formats import day_text, percent
from projections.audit.report.page.plots import ColumnChart, StackedBar, column_chart, stacked_bar
from projections.audit.report.report import AuditReport
from projections.audit.schemas import VERDICT_NAMES
from projections.audit.summary import AGAINST, VERDICTS
from projections.decisions.model import REASONS

CONSPICUOUS: Final = ("violation", "denied", "indeterminate")
"""The verdicts that the page lists, in the order in which its plots stack them."""
DAYS_SHOWN: Final = 10
_CODES: Final = [VERDICT_NAMES.index(verdict) for verdict in CONSPICUOUS]


class VerdictShare(NamedTuple):
    verdict: str
    requests: int
    share: str


class Overview(NamedTuple):
    """later: rows that hindsight decides differently; shares, bar: the verdicts that occurred."""

    requests: int
    violation: int
    denied: int
    indeterminate: int
    compliant: int
    allowed: int
    later: int
    rejects: int
    first_at: int | None
    last_at: int | None
    position: int
    origin: str
    shares: tuple[VerdictShare, ...]
    bar: StackedBar


class ReasonRow(NamedTuple):
    reason: str
    meaning: str
    against: int
    bar: StackedBar


class DayRow(NamedTuple):
    """counts: of the chart's verdicts."""

    day: str
    counts: tuple[int, ...]
    requests: int


class Days(NamedTuple):
    """rows: the worst days of the `conspicuous` ones. chart None: no request had a conspicuous verdict."""

    requests: int
    conspicuous: int
    rows: tuple[DayRow, ...]
    chart: ColumnChart | None


class NameRow(NamedTuple):
    """A subject or a model. name None: nobody governs, or the rows name no model. counts: of the ranking's verdicts."""

    name: str | None
    counts: tuple[int, ...]
    requests: int
    share: str
    bar: StackedBar


class Ranking(NamedTuple):
    """more: how many further names there are."""

    verdicts: tuple[str, ...]
    rows: tuple[NameRow, ...]
    more: int


def overview(report: AuditReport) -> Overview:
    summary = report.summary
    requests = summary.rows - summary.rejects
    counts = [(verdict, summary.verdicts[verdict]) for verdict in VERDICTS]
    return Overview(
        requests=requests,
        violation=summary.verdicts["violation"],
        denied=summary.verdicts["denied"],
        indeterminate=summary.verdicts["indeterminate"],
        compliant=summary.verdicts["compliant"],
        allowed=summary.verdicts["allowed"],
        later=summary.hindsight,
        rejects=summary.rejects,
        first_at=summary.first_at,
        last_at=summary.last_at,
        position=summary.pin.position,
        origin=summary.pin.origin,
        shares=tuple(VerdictShare(verdict, n, percent(n, requests)) for verdict, n in counts if n),
        bar=stacked_bar(counts, requests, length=1000, least=2),
    )


def reason_rows(report: AuditReport) -> tuple[ReasonRow, ...]:
    """The reasons of verdicts against requests; `report.reasons` has the most frequent one first."""
    against = [one for one in report.reasons if one.against]
    return tuple(
        ReasonRow(one.reason, REASONS[one.reason], one.against, _bar([("violation", one.against)], against[0].against))
        for one in against
    )


def days(report: AuditReport) -> Days:
    requests = report.summary.rows - report.summary.rejects
    codes = [code for code in _CODES if any(counts[code] for _, counts in report.days)]
    if not codes:
        return Days(requests, 0, (), None)
    conspicuous = [(day, counts) for day, counts in report.days if any(counts[code] for code in codes)]
    conspicuous.sort(
        key=lambda one: (-sum(one[1][code] for code in AGAINST_CODES), -sum(one[1][code] for code in codes), one[0])
    )
    rows = (
        DayRow(day_text(day), tuple(counts[code] for code in codes), sum(counts))
        for day, counts in conspicuous[:DAYS_SHOWN]
    )
    chart = column_chart(
        [(day, [counts[code] for code in codes]) for day, counts in report.days],
        [VERDICT_NAMES[code] for code in codes],
    )
    return Days(requests, len(conspicuous), tuple(rows), chart)


def subjects(report: AuditReport) -> Ranking:
    counts = [(one.subject, one.verdicts) for one in report.subjects]
    return _ranking(counts, report.summary.subject_count - len(counts), report)


def models(report: AuditReport) -> Ranking:
    counts = [(one.model, one.verdicts) for one in report.models]
    return _ranking(counts, report.models_count - sum(name is not None for name, _ in counts), report)


def _ranking(names: Sequence[tuple[str | None, Mapping[Any, int]]], more: int, report: AuditReport) -> Ranking:
    verdicts = [one for one in CONSPICUOUS if report.summary.verdicts[one] or one == "violation"]
    longest = max((_against(counts) for _, counts in names), default=0)
    rows = (
        NameRow(
            name=name,
            counts=tuple(counts.get(verdict, 0) for verdict in verdicts),
            requests=sum(counts.values()),
            share=percent(_against(counts), sum(counts.values())),
            bar=_bar([(verdict, counts.get(verdict, 0)) for verdict in CONSPICUOUS if verdict in AGAINST], longest),
        )
        for name, counts in names
    )
    return Ranking(tuple(verdicts), tuple(rows), more)


def _against(counts: Mapping[Any, int]) -> int:
    return sum(counts.get(verdict, 0) for verdict in AGAINST)


def _bar(counts: Sequence[tuple[str, int]], longest: int) -> StackedBar:
    return stacked_bar(counts, longest, length=100, least=0.6)
