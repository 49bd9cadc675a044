"""Prints the summary of an audit, for people and for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from projections.audit.explain import causes_json
from projections.audit.summary import VERDICTS, NoticeRows, SubjectCount, Summary, summary_json
from projections.decisions.model import REASONS, decision_json
from projections.temporal.coordinates import Pin
from scripts.audit.explain import print_row
from scripts.audit.outputs import Finding
from scripts.cli.options import Format
from scripts.cli.output import Columns, human_time, print_line, print_table, show, show_clock_notices
from scripts.cli.show_decision import UNKNOWN_SUBJECT

SUBJECTS_SHOWN: Final = 10
UNKNOWN_SHOWN: Final = 5
COUNT_FIELDS: Final = ("what", "name", "count")


_PROVIDER_COLUMNS: Final[Columns] = {
    "data policy of": lambda one: one.provider or one.name or "an unknown provider",
    "requests": lambda one: f"{one.rows:,}",
    "trains": lambda one: f"{one.trains:,}",
    "stores": lambda one: f"{one.stores:,}",
    "unknown": lambda one: f"{one.unknown:,}",
}


def show_summary(format_: Format, summary: Summary, rejects: str | None, findings: Sequence[Finding]) -> None:
    """`rejects`: the file of unreadable lines, if there are any; None: there is no such file."""
    members = summary_json(summary)
    if format_ != "table":
        document = members | {
            "findings": [
                {"source": source, "line": line, "causes": causes_json(explanation.causes)}
                | decision_json(explanation.decision)
                for source, line, explanation in findings
            ],
            "rejects_file": rejects if summary.rejects else None,
        }
        counts = [{"what": "unknown_rows", "name": None, "count": summary.unknown_rows}]
        counts += [{"what": "rows", "name": None, "count": summary.rows}]
        counts += [{"what": "rejects", "name": None, "count": summary.rejects}]
        for what, member in (("verdict", "verdicts"), ("reason", "reasons")):
            counts += named_counts(what, members[member])
        counts += [{"what": "hindsight", "name": None, "count": summary.hindsight}]
        counts += clock_counts(summary.notices)
        show(format_, document, counts, COUNT_FIELDS, {})
        show_clock_notices(format_, summary.notices)
        return
    _print_summary(summary)
    for source, line, explanation in findings:
        print_line()
        print_row(source, line, explanation)


def clock_counts(notices: Iterable[NoticeRows]) -> list[dict[str, Any]]:
    """Each stretch of a clock that was ahead, named by the event that acknowledges it."""
    return [
        {
            "what": "clock_notice",
            "name": None if notice.position is None else f"#{notice.position}",
            "count": rows,
        }
        for notice, rows in notices
    ]


def named_counts(what: str, counts: dict[str, int]) -> list[dict[str, Any]]:
    return [{"what": what, "name": name, "count": count} for name, count in counts.items()]


def position_text(pin: Pin) -> str:
    return f"at position {pin.position} of {pin.origin} (leaf hash {pin.leaf_hash})"


def _print_summary(summary: Summary) -> None:
    of_rows = f"{summary.rows:,} rows"
    lines = f"{summary.rejects:,} of {of_rows} could not be read" if summary.rejects else of_rows
    if summary.first_at is not None and summary.last_at is not None:
        lines += f"; requests from {human_time(summary.first_at)} to {human_time(summary.last_at)}"
    print_line(lines, "bold")
    if summary.nothing_observed is not None:
        print_line(summary.nothing_observed, "bold yellow")
    _print_unknown(summary)
    print_line(position_text(summary.pin))
    print_line(f"the log has SHA-256 {summary.log.sha256}")
    show_clock_notices("table", summary.notices)
    if summary.first_at is None:
        return
    print_line()
    verdicts = [(verdict, summary.verdicts[verdict]) for verdict in VERDICTS if summary.verdicts[verdict]]
    print_table(count_columns("verdict"), verdicts)
    reasons = [(reason, summary.reasons[reason]) for reason in REASONS if summary.reasons[reason]]
    if reasons:
        print_line()
        print_table({**count_columns("reason"), "": lambda pair: REASONS[pair[0]]}, reasons)
    print_line()
    verdict_columns: Columns = {verdict: _verdict_count(verdict) for verdict, _ in verdicts}
    subject_column: Columns = {"governed by": lambda one: one.subject or UNKNOWN_SUBJECT}
    print_table({**subject_column, **verdict_columns}, summary.subjects[:SUBJECTS_SHOWN])
    if summary.subject_count > SUBJECTS_SHOWN:
        listed = len(summary.subjects)
        which = "them" if listed == summary.subject_count else f"the first {listed:,} of all"
        print_line(f"and {summary.subject_count - SUBJECTS_SHOWN:,} more; --format json lists {which}")
    if summary.providers:
        print_line()
        print_table(_PROVIDER_COLUMNS, summary.providers[:SUBJECTS_SHOWN])
    if summary.hindsight:
        print_line()
        print_line(f"In hindsight, with everything recorded since, {summary.hindsight:,} would be decided differently.")


def _print_unknown(summary: Summary) -> None:
    """First, because what follows about these rows rests on defaults."""
    if not summary.unknown_rows:
        return
    rows, subjects = summary.unknown_rows, summary.unknown_count
    counts = f"{rows:,} request{'' if rows == 1 else 's'}, {subjects:,} subject{'' if subjects == 1 else 's'} in all"
    print_line(f"the ledger had no event of the governing subject of {counts}:", "bold yellow")
    for one in summary.unknown[:UNKNOWN_SHOWN]:
        print_line(f"  {one.subject} ({one.total:,})")
    if summary.unknown_count > UNKNOWN_SHOWN:
        print_line(f"  and {summary.unknown_count - UNKNOWN_SHOWN:,} more")


def count_columns(title: str) -> dict[str, Callable[[Any], object]]:
    return {title: lambda pair: pair[0], "requests": lambda pair: f"{pair[1]:,}"}


def _verdict_count(verdict: str) -> Callable[[SubjectCount], object]:
    return lambda one: f"{one.verdicts.get(verdict, 0):,}"
