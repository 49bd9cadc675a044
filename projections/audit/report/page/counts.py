"""The sections that count: at a glance, by reason, by day, by subject, by model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from projections.audit.report.formats import (
    BAD,
    VERDICTS,
    Cell,
    code,
    legend,
    many,
    number,
    paragraph,
    section,
    share_text,
    table,
    verdict_bar,
    when,
)
from projections.audit.report.page.markup import Markup, join, tag
from projections.audit.report.page.plots import Binned, bar, binned, columns, share
from projections.audit.report.report import Report
from projections.audit.report.report_json import day_text
from projections.audit.schemas import VERDICT_NAMES
from projections.audit.summary import AGAINST
from projections.decisions.model import REASONS

WORST_DAYS: Final = 10
_PLACES: Final = [VERDICT_NAMES.index(verdict) for verdict in BAD]


def glance(report: Report) -> Markup:
    summary = report.summary
    requests = summary.rows - summary.rejects
    tiles = [("", requests, "requests decided")]
    tiles += [(verdict, summary.verdicts[verdict], words) for verdict, words in _TILES if summary.verdicts[verdict]]
    if not summary.verdicts["violation"]:
        tiles.insert(1, ("violation", 0, "violations"))
    tiles += [("later", summary.hindsight, "otherwise in hindsight"), ("", summary.rejects, "lines unreadable")]
    listed = [
        tag("li", tag("b", number(count)), tag("span", words), class_=class_ or None) for class_, count, words in tiles
    ]
    shown = [(verdict, summary.verdicts[verdict]) for verdict in VERDICTS if summary.verdicts[verdict]]
    said = ", ".join(f"{verdict} {share_text(count, requests)}" for verdict, count in shown)
    parts = legend((verdict, f"{verdict} {number(n)} ({share_text(n, requests)})") for verdict, n in shown)
    return join(
        tag("ul", *listed, class_="tiles"),
        *([share(shown, f"Shares of the verdicts: {said}"), parts] if shown else []),
    )


_TILES: Final = (
    ("violation", "violations"),
    ("denied", "questions denied"),
    ("indeterminate", "indeterminate"),
    ("compliant", "compliant"),
    ("allowed", "questions allowed"),
)


def by_reason(report: Report) -> Markup:
    against = [one for one in report.reasons if one.against]
    if not against:
        return section("reasons", "Violations by reason", paragraph("Nothing speaks against any request."))
    longest = against[0].against
    rows: list[list[Cell]] = [
        [code(one.reason), REASONS[one.reason], one.against, bar([("violation", one.against)], longest)]
        for one in against
    ]
    caption = "Requests with a verdict against them (violation or denied), by reason; a request may have several."
    return section(
        "reasons",
        "Violations by reason",
        table(caption, ["Reason", "What it means", "Requests", ""], rows, ["code", "", "n", "bar"]),
    )


def by_day(report: Report) -> Markup:
    if not report.days:
        return section("days", "Violations by day", paragraph("No request was decided."))
    days = [(day, [counts[place] for place in _PLACES]) for day, counts in report.days]
    occurring = [place for place in range(len(BAD)) if any(counts[place] for _, counts in days)]
    if not occurring:
        return section("days", "Violations by day", paragraph("On no day was there any."))
    names = [BAD[place] for place in occurring]
    plotted = binned([(day, [counts[place] for place in occurring]) for day, counts in days], len(occurring))
    worst = sorted(
        (day for day in report.days if _bad(day[1])), key=lambda day: (-_against(day[1]), -_bad(day[1]), day[0])
    )
    rows: list[list[Cell]] = [
        [day_text(day), *(counts[_PLACES[place]] for place in occurring), sum(counts)]
        for day, counts in worst[:WORST_DAYS]
    ]
    caption = f"The {many(len(rows), 'day')} with the most, of {many(len(worst), 'day')} with any (UTC)."
    return section(
        "days",
        "Violations by day",
        paragraph(
            f"Each bar is a {plotted.unit} (UTC), {plotted.bins[0].name} to {plotted.bins[-1].name}"
            + (", named by its Monday" if plotted.unit == "week" else "")
            + ". All days are in report.json.",
            class_="note",
        ),
        columns(plotted, names, names, _label(plotted, names)),
        legend((name, name) for name in names),
        table(
            caption, ["Day", *(name.capitalize() for name in names), "Requests"], rows, ["when", *"n" * len(names), "n"]
        ),
    )


def _label(plotted: Binned, names: list[str]) -> str:
    most = max(plotted.bins, key=lambda one: sum(one.counts))
    return (
        f"Column chart of {', '.join(names)} by {plotted.unit}, {plotted.bins[0].name} to {plotted.bins[-1].name}. "
        f"The most are {sum(most.counts):,}, in the {plotted.unit} {most.name}."
    )


def _against(counts: list[int]) -> int:
    return sum(n for verdict, n in zip(VERDICT_NAMES, counts, strict=True) if verdict in AGAINST)


def _bad(counts: list[int]) -> int:
    return sum(counts[place] for place in _PLACES)


def by_subject(report: Report) -> Markup:
    counted = [(one.subject or "(nobody that can be told)", one.verdicts) for one in report.subjects]
    more = report.summary.subject_count - len(counted)
    return section(
        "subjects",
        "Worst subjects",
        _ranked("Governing subject", "By governing subject, most violations first.", counted, report),
        *([paragraph(f"And {many(more, 'more subject')}.", class_="note")] if more > 0 else []),
    )


def by_model(report: Report) -> Markup:
    counted = [(one.model or "(none named)", one.verdicts) for one in report.models]
    more = report.models_count - sum(one.model is not None for one in report.models)
    return section(
        "models",
        "Violations by model",
        _ranked("Model", "By model, most violations first.", counted, report),
        *([paragraph(f"And {many(more, 'more model')}.", class_="note")] if more > 0 else []),
    )


def _ranked(what: str, caption: str, counted: Sequence[tuple[str, Mapping[Any, int]]], report: Report) -> Markup:
    if not counted:
        return paragraph("No request was decided.")
    shown = [verdict for verdict in BAD if report.summary.verdicts[verdict] or verdict == "violation"]
    longest = max(sum(verdicts.get(verdict, 0) for verdict in AGAINST) for _, verdicts in counted)
    rows: list[list[Cell]] = []
    for name, verdicts in counted:
        total = sum(verdicts.values())
        against = sum(verdicts.get(verdict, 0) for verdict in AGAINST)
        numbers = [verdicts.get(verdict, 0) for verdict in shown]
        rows.append([name, *numbers, total, share_text(against, total), verdict_bar(verdicts, longest)])
    heads = [what, *(verdict.capitalize() for verdict in shown), "Requests", "Against", ""]
    return table(caption, heads, rows, ["id", *"n" * len(shown), "n", "n", "bar"])


def headline(report: Report) -> Markup:
    summary = report.summary
    requests = summary.rows - summary.rejects
    violations, denied = summary.verdicts["violation"], summary.verdicts["denied"]
    lead = [
        tag("strong", f"{number(violations)} of {many(requests, 'request')}"),
        f" {'was' if violations == 1 else 'were'} handled against the policy in force when "
        f"{'it was' if requests == 1 else 'they were'} made",
    ]
    if denied:
        lead.append(f"; {many(denied, 'question')} had to be denied")
    lead.append(".")
    span = ""
    if summary.first_at is not None and summary.last_at is not None:
        span = f"Requests from {when(summary.first_at)} to {when(summary.last_at)}. "
    pin = summary.pin
    rests = f"Every verdict rests on position {pin.position:,} of the ledger {pin.origin}."
    return join(paragraph(*lead, class_="lead"), paragraph(span, rests, class_="note"))
