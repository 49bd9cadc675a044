"""The sections that show single rows: findings with their evidence, and what hindsight decides otherwise."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from ledger.times import BEGINNING
from projections.audit.explaining import Weighed
from projections.audit.report.commands import audit_command, check_command, explain_command, known_at_words, record_json
from projections.audit.report.formats import (
    Cell,
    code,
    command,
    many,
    paragraph,
    section,
    table,
    verdict_words,
    when,
)
from projections.audit.report.page.markup import Markup, join, tag
from projections.audit.report.report import Finding, Report
from projections.decisions.model import REASONS, Decision, Handling, Hindsight, Outcome
from projections.temporal.changes import JsonValue, Retraction
from projections.temporal.effective_state import SettingState

BECAUSE_MAX: Final = 4
"""Events that are named of those that hindsight goes back to."""
_HEADS: Final = ["Setting of subject", "Value", "Said by", "Recorded", "In force from", "Part in it"]
_KINDS: Final = ["id", "id", "", "when", "when", ""]


def findings(report: Report) -> Markup:
    if not report.findings_of:
        return section("findings", "Findings", paragraph("There are none."))
    parts: list[Markup] = [
        paragraph(
            "Every request that was found, under each of its reasons. "
            if all(of.rows == len(of.shown) for of in report.findings_of)
            else "The first few requests of every reason, at most two of one subject. ",
            "Each was decided a second time, by itself and not in bulk, and came out the same. ",
            tag("b", "decides"),
            " marks the smallest set of events that the verdict rests on: with these alone, and every default as it "
            "was first defined, it is the same, and without any one of them it is another. Where an event says what "
            "the default says anyway it is not needed; what it changed stands as ",
            tag("b", "without it"),
            ": the verdict or the reasons if it had never been recorded.",
        )
    ]
    seen: set[int] = set()
    for of in report.findings_of:
        parts.append(tag("h3", code(of.reason), f" — {many(of.rows, 'request')}", id=f"reason-{of.reason}"))
        parts.append(paragraph(REASONS[of.reason]))
        again = [place for place in of.shown if place in seen]
        for place in of.shown:
            if place not in seen:
                seen.add(place)
                parts.append(_finding(report.findings[place], report, f"finding-{place + 1}", number=place + 1))
        more = of.rows - len(of.shown)
        notes = [f"See also finding {_list(place + 1 for place in again)}. "] if again else []
        if more > 0:
            notes.append(f"{many(more, 'more request')} with this reason: see below for how to list them.")
        if notes:
            parts.append(paragraph(*notes, class_="note"))
    parts.append(tag("h3", "All of them"))
    parts.append(paragraph("A verdict for every request, with its reasons, can be had by:"))
    known = f"--known-at={known_at_words(report.summary.known_at)}"
    parts.append(command(audit_command(report.reading.arguments, known, "--out=verdicts.csv")))
    return section("findings", "Findings", *parts)


def _list(numbers: Iterable[int]) -> Markup:
    links = [tag("a", str(one), href=f"#finding-{one}") for one in numbers]
    return join(*(part for place, link in enumerate(links) for part in ((", ", link) if place else (link,))))


def rewritten(report: Report) -> Markup:
    summary = report.summary
    if not summary.hindsight:
        words = "None: with everything that was recorded since, every request is decided as it was."
        return section("hindsight", "Hindsight", paragraph(words))
    rows: list[list[Cell]] = [
        [verdict_words(verdict), verdict_words(later) if later != verdict else "the same verdict, other handling", n]
        for verdict, later, n in report.rewritten.rows
    ]
    parts = [
        paragraph(
            f"{many(summary.hindsight, 'request')} would be decided otherwise with what was recorded later: backdated "
            "corrections, and changes that were taken back. Nobody could have known it then, so the verdicts above "
            "stand as they are."
        ),
        table(
            "By verdict, and the verdict in hindsight.", ["Verdict", "In hindsight", "Requests"], rows, ["", "", "n"]
        ),
    ]
    for place, finding in enumerate(report.rewritten.shown):
        parts.append(_hindsight(finding, report, f"hindsight-{place + 1}"))
    more = summary.hindsight - len(report.rewritten.shown)
    if more > 0:
        parts.append(
            paragraph(f"{many(more, 'more request')}: the column hindsight of --out names the verdict.", class_="note")
        )
    return section("hindsight", "Hindsight", *parts)


def _finding(finding: Finding, report: Report, id_: str, number: int) -> Markup:
    decision = finding.explanation.decision
    outcome = decision.outcome
    return tag(
        "article",
        _header(finding, id_, f"{number}. "),
        paragraph(verdict_words(outcome.verdict), ": ", _codes(outcome.reasons), *_lag(decision)),
        paragraph("Governed by ", tag("b", outcome.governed_by.subject or "nobody that can be told"), _via(decision)),
        paragraph("What was asked and done: ", code(_request(finding))),
        _evidence(finding, f"Evidence for finding {number}"),
        *_weighed(finding.explanation.events),
        *_commands(finding, report),
        id=id_,
        aria_labelledby=f"{id_}-title",
        class_=outcome.verdict,
    )


def _hindsight(finding: Finding, report: Report, id_: str) -> Markup:
    decision = finding.explanation.decision
    parts = [_header(finding, id_, "", level=3)]
    if decision.hindsight is not None:
        later = decision.hindsight.outcome
        parts.append(
            paragraph(
                "Then ",
                verdict_words(decision.outcome.verdict),
                " ",
                _codes(decision.outcome.reasons),
                ", in hindsight ",
                verdict_words(later.verdict),
                " ",
                _codes(later.reasons),
            )
        )
        changed = _handling_changed(decision.outcome.handling, later.handling)
        if changed:
            parts.append(paragraph(f"Handling: {changed}."))
        because = list(_because(decision.hindsight))
        parts += [paragraph(line) for line in because[:BECAUSE_MAX]]
        if len(because) > BECAUSE_MAX:
            more = many(len(because) - BECAUSE_MAX, "more event")
            parts.append(paragraph(f"And {more}: report.json and the command name all.", class_="note"))
    parts += _commands(finding, report)
    return tag("article", *parts, id=id_, aria_labelledby=f"{id_}-title", class_="later")


def _header(finding: Finding, id_: str, before: str, level: int = 4) -> Markup:
    sample = finding.sample
    name = sample.record.request_id
    title = f"request {name}" if name is not None else "request without an id"
    place = f"{sample.source} line {sample.line:,}, made {when(sample.record.at)}"
    return tag(
        "header",
        tag(f"h{level}", f"{before}{title[0].upper()}{title[1:]}", id=f"{id_}-title", class_="id"),
        paragraph(place, class_="note"),
    )


def _codes(reasons: Iterable[str]) -> Markup:
    return join(*(part for reason in reasons for part in (code(reason), " ")))


def _lag(decision: Decision) -> list[str]:
    lag = decision.outcome.enforcement_lag
    if lag is None:
        return []
    return [
        f"— the gateway enforced position {lag.enforced_position:,}, when #{lag.deciding_position:,} had been in force "
        f"for {lag.lag_us / 1e6:,.6g} s"
    ]


def _via(decision: Decision) -> str:
    via = decision.outcome.governed_by.via
    return f", by way of {' → '.join(via)}" if len(via) > 1 else ""


def _request(finding: Finding) -> str:
    said = record_json(finding.sample.record)
    said.pop("request_id", None)
    said.pop("at", None)
    done = said.pop("handling", {})
    return ", ".join(f"{name} = {_value(value)}" for name, value in (said | done).items())


def _value(value: JsonValue) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none named"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _evidence(finding: Finding, caption: str) -> Markup:
    outcome = finding.explanation.decision.outcome
    weighed = {one.told.position: one for one in finding.explanation.events}
    rows: list[list[Cell]] = []
    by_default: list[str] = []
    for state in outcome.evidence:
        change = state.newest
        one = None if change is None else weighed.get(change.position)
        if one is None:
            by_default.append(f"{state.setting} of {state.subject}: {_value(state.value)}")
            continue
        rows.append(_row(state, _part(one, outcome)))
    said = paragraph(f"By default: {'; '.join(by_default)}.", class_="note") if by_default else Markup("")
    if not rows:
        return said
    return join(table(caption, _HEADS, rows, _KINDS), said)


def _row(state: SettingState, part: Markup | str) -> list[Cell]:
    place = join(tag("b", state.setting), tag("br"), state.subject)
    change = state.newest
    if change is None:
        return [place, _value(state.value), state.source, "", "", ""]
    event = f"#{change.position:,} by {change.actor}"
    if state.source == "default":
        event += ", the default" if change is state.change else ", cleared: the default"
    start = when(change.effective_from) if change.effective_from != change.recorded_at else "at once"
    if change.effective_from == BEGINNING:
        start = "the beginning"
    return [place, _value(state.value), event, when(change.recorded_at), start, part]


def _part(weighed: Weighed, outcome: Outcome) -> Markup | str:
    """What the event has to do with it."""
    if weighed.needed:
        return tag("b", "decides")
    if (weighed.verdict, weighed.reasons) == (outcome.verdict, outcome.reasons):
        return ""
    return join("without it ", weighed.verdict if not weighed.reasons else ", ".join(weighed.reasons))


def _weighed(events: Iterable[Weighed]) -> list[Markup]:
    """What is not plain from the marks: retractions that decide, and events that decide only for themselves."""
    lines: list[Markup] = []
    for weighed in events:
        event = weighed.told.event
        if isinstance(event, Retraction) and weighed.needed:
            lines.append(
                paragraph(
                    f"#{event.position:,} of {when(event.recorded_at)} by {event.actor} took back what decided before: "
                    f"{event.setting} of {weighed.told.subject}."
                )
            )
    return lines


def _because(hindsight: Hindsight) -> Iterable[str]:
    for by in hindsight.changed_by:
        if isinstance(by, Retraction):
            yield f"Because #{by.position:,} of {when(by.recorded_at)} by {by.actor} took back {by.setting}."
        elif by.newest is not None:
            change = by.newest
            start = when(change.effective_from) if change.effective_from != BEGINNING else "the beginning"
            yield (
                f"Because #{change.position:,} of {when(change.recorded_at)} by {change.actor}: {by.setting} of "
                f"{by.subject} = {_value(by.value)}, from {start} on."
            )


def _handling_changed(before: Handling, after: Handling) -> str:
    changed = []
    for name, was, becomes in zip(Handling._fields, before, after, strict=True):
        if was != becomes:
            changed.append(f"{name} {_handled(was)} → {_handled(becomes)}")
    return ", ".join(changed)


def _handled(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "anywhere"
    return ", ".join(str(part) for part in value if part) or "nowhere" if isinstance(value, tuple) else str(value)


def _commands(finding: Finding, report: Report) -> list[Markup]:
    record = finding.sample.record
    lines = [check_command(record, report.summary.known_at)]
    explained = explain_command(report.reading.arguments, record.request_id, report.summary.known_at)
    return [command(*lines, *([explained] if explained else []))]
