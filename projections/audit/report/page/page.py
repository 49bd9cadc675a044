"""The report as one HTML page: no script, and nothing from anywhere else. Proved by tests/audit/report/test_page.py."""

from __future__ import annotations

import shlex
from typing import Final

from projections.audit.report.commands import audit_command, known_at_words
from projections.audit.report.formats import (
    Cell,
    code,
    command,
    definitions,
    many,
    number,
    paragraph,
    section,
    table,
    when,
)
from projections.audit.report.missing_facts import Unsettled
from projections.audit.report.page.counts import by_day, by_model, by_reason, by_subject, glance, headline
from projections.audit.report.page.markup import Markup, tag
from projections.audit.report.page.rows import findings, rewritten
from projections.audit.report.page.style import STYLE
from projections.audit.report.report import Report
from projections.decisions.model import REASONS

DIGEST_FILES_MAX: Final = 20
SOURCES_SHOWN: Final = 50
LEAF_COMMAND: Final = "(printf '\\000'; sed -n {0}p events.jsonl | tr -d '\\n') | sha256sum"
"""The RFC 6962 leaf hash of an exported event."""
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""For the browser: should ever something of a log become more than text, it can load and run nothing."""
_CONTENTS: Final = (
    ("reasons", "By reason"),
    ("days", "By day"),
    ("subjects", "Worst subjects"),
    ("models", "By model"),
    ("findings", "Findings"),
    ("hindsight", "Hindsight"),
    ("indeterminate", "Indeterminate"),
    ("rejects", "Unreadable lines"),
    ("pin", "What it rests on"),
)


def page(report: Report) -> str:
    """The whole document. The same report gives the same text."""
    title = f"Audit of {_sources(report)}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(STYLE)),
    )
    contents = [tag("li", tag("a", words, href=f"#{id_}")) for id_, words in _CONTENTS]
    body = tag(
        "body",
        tag(
            "div",
            tag(
                "header",
                paragraph("inforce audit report", class_="brand"),
                tag("h1", title),
                headline(report),
                glance(report),
                tag("nav", tag("ul", *contents), aria_label="Contents"),
            ),
            tag(
                "main",
                by_reason(report),
                by_day(report),
                by_subject(report),
                by_model(report),
                findings(report),
                rewritten(report),
                _indeterminate(report),
                _rejects(report),
                _pin(report),
            ),
            tag(
                "footer",
                paragraph(
                    f"Made by inforce {report.reading.version}. The same content for programs is in report.json. "
                    "This page loads nothing and runs nothing."
                ),
            ),
            class_="page",
        ),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _sources(report: Report) -> str:
    names = [source for source, _ in report.summary.log.sources]
    if not names:
        return "a request log"
    return names[0] if len(names) == 1 else f"{names[0]} and {many(len(names) - 1, 'other log')}"


def _indeterminate(report: Report) -> Markup:
    if not report.unsettled:
        words = "Every request could be decided."
        return section("indeterminate", "Indeterminate, and what is missing", paragraph(words))
    count = report.summary.verdicts["indeterminate"]
    parts = [
        paragraph(
            f"{many(count, 'request')} could not be decided with what was known, and {'is' if count == 1 else 'are'} "
            "held to be neither compliant nor a violation. What is recorded now decides them in hindsight only ",
            "(",
            code("--known-at now"),
            "): it does not change what was known then.",
        )
    ]
    for one in report.unsettled:
        parts += [
            tag("h3", code(one.reason), f" — {many(one.rows, 'request')}"),
            paragraph(REASONS[one.reason]),
            _missing(one),
        ]
    return section("indeterminate", "Indeterminate, and what is missing", *parts)


def _missing(one: Unsettled) -> Markup:
    rows: list[list[Cell]] = []
    for missing in one.missing:
        named = ", ".join(f"{name.removesuffix('_id')}:{value}" for name, value in missing.ids.items())
        needed = f"{missing.setting} of {missing.subject}" if missing.setting else ""
        since = missing.since or ""
        span = when(missing.first_at) if missing.rows == 1 else f"{when(missing.first_at)} – {when(missing.last_at)}"
        rows.append([named or "(no id of its own)", missing.words, needed, since, missing.rows, span])
    more = one.groups - len(one.missing)
    caption = "What the requests have in common, those with the most requests first" + (
        f"; and {number(more)} more, of fewer." if more > 0 else "."
    )
    heads = [
        "Named in the log",
        "What was known at the first of them",
        "To be recorded",
        "Known now",
        "Requests",
        "When",
    ]
    return table(caption, heads, rows, ["id", "", "id", "id", "n", ""])


def _rejects(report: Report) -> Markup:
    summary, rejected = report.summary, report.rejected
    if not summary.rejects:
        return section("rejects", "Unreadable lines", paragraph("Every line of the log was read."))
    counted = "is" if summary.rejects == 1 else "are"
    of = (
        f"{many(summary.rejects, 'line')} of {number(summary.rows)} could not be read, and {counted} in no count above."
    )
    file = report.reading.rejects
    where = [" All of them, with line and reason, are in ", code(file), "."] if file else []
    more = rejected.faults_count - len(rejected.faults)
    return section(
        "rejects",
        "Unreadable lines",
        paragraph(of, *where),
        table(
            "By reason." + (f" And {number(more)} more." if more > 0 else ""),
            ["Reason", "Lines"],
            rejected.faults,
            ["", "n"],
        ),
        table(
            f"The first {many(len(rejected.first), 'line')}.",
            ["Log", "Line", "Reason"],
            [[row.source, row.line, row.fault] for row in rejected.first],
            ["id", "n", ""],
        ),
    )


def _pin(report: Report) -> Markup:
    summary, reading = report.summary, report.reading
    pin = summary.pin
    known = known_at_words(summary.known_at)
    meaning = {
        "at": "at — in force: what anyone could have known at the moment of each request",
        "now": "now — in hindsight: everything recorded up to the position",
    }.get(known, f"{known} — what was recorded by then")
    pairs = [
        ("Ledger", pin.origin),
        ("Position", number(pin.position)),
        ("Recorded", "" if pin.recorded_at is None else when(pin.recorded_at)),
        ("Leaf hash", code(pin.leaf_hash or "none: the ledger is empty")),
        ("Known at", meaning),
        ("Log, SHA-256", code(summary.log.sha256 or "not taken")),
        ("inforce", reading.version),
    ]
    sources: list[list[Cell]] = [[source, size] for source, size in summary.log.sources[:SOURCES_SHOWN]]
    more = len(summary.log.sources) - len(sources)
    listed = "The log, in the order in which it was read" + (f"; and {many(more, 'more file')}." if more > 0 else ".")
    known_option = f"--known-at={known}"
    return section(
        "pin",
        "What this rests on, and how to repeat it",
        definitions(pairs),
        table(listed, ["File", "Bytes"], sources, ["id", "n"]) if sources else Markup(""),
        tag("h3", "Repeating it"),
        paragraph(
            "Whoever has the same log and the same ledger comes to the same verdicts. The leaf hash is the RFC 6962 "
            "hash of the exact bytes of the event at that position: it tells whether a ledger, or an export of it, is "
            "the one that was audited. Events that were recorded later change no verdict that was in force, only what "
            "hindsight says. Commands ask the ledger that ",
            code("INFORCE_DATABASE"),
            " names.",
        ),
        command(audit_command(reading.arguments, known_option)),
        paragraph("The leaf hash and the digest of the log, with standard tools:"),
        command(*_leaf_commands(report), *_digest_commands(report)),
    )


def _digest_commands(report: Report) -> list[str]:
    """How the log's digest is had again, where it was read from files that a page can list."""
    names = [source for source, _ in report.summary.log.sources]
    if not names or "-" in names or len(names) > DIGEST_FILES_MAX:
        return []
    return [shlex.join(["cat", "--", *names]) + " | sha256sum"]


def _leaf_commands(report: Report) -> list[str]:
    """How the leaf hash is had again, with nothing but an export and standard tools."""
    position = report.summary.pin.position
    if not position:
        return []
    return ["inforce export --out events.jsonl", LEAF_COMMAND.format(position)]
