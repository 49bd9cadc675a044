"""What an audit found, for people and for programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from projections.audit.summary import VERDICTS, SubjectCount, Summary, summary_json
from projections.decisions.model import REASONS
from scripts.audit.outputs import Finding, finding_json
from scripts.cli.options import Format
from scripts.cli.output import Columns, human_instant, print_line, print_table, show
from scripts.cli.show_decision import print_decision

SUBJECTS_SHOWN: Final = 10


def show_summary(format_: Format, summary: Summary, rejects: str | None, found: Sequence[Finding]) -> None:
    """`rejects`: the file that names what could not be read, if anything could not; None: it was not kept."""
    written = summary_json(summary)
    findings = [finding_json(finding) for finding in found]
    if format_ != "table":
        document = written | {"findings": findings, "rejects_file": rejects if summary.rejects else None}
        counts = [{"what": "rows", "name": None, "count": summary.rows}]
        counts += [{"what": "rejects", "name": None, "count": summary.rejects}]
        for what, member in (("verdict", "verdicts"), ("reason", "reasons")):
            counts += [{"what": what, "name": name, "count": count} for name, count in written[member].items()]
        counts += [{"what": "hindsight", "name": None, "count": summary.hindsight}]
        show(format_, document, counts, ("what", "name", "count"), {})
        return
    _show_tables(summary)
    for finding in found:
        print_line()
        print_line(f"{finding.source} line {finding.line}", "bold underline")
        print_decision(finding.decision)


def _show_tables(summary: Summary) -> None:
    pin = summary.pin
    lines = f"{summary.rows:,} lines" + (f", {summary.rejects:,} rejected" if summary.rejects else "")
    if summary.first_at is not None and summary.last_at is not None:
        lines += f"; requests from {human_instant(summary.first_at)} to {human_instant(summary.last_at)}"
    print_line(lines, "bold")
    print_line(f"at position {pin.position} of {pin.origin}, whose event has leaf hash {pin.leaf_hash}")
    print_line(f"the log has SHA-256 {summary.log.sha256}")
    if summary.first_at is None:
        return
    print_line()
    verdicts = [(verdict, summary.verdicts[verdict]) for verdict in VERDICTS if summary.verdicts[verdict]]
    print_table(_counted("verdict"), verdicts)
    reasons = [(reason, summary.reasons[reason]) for reason in REASONS if summary.reasons[reason]]
    if reasons:
        print_line()
        print_table({**_counted("reason"), "": lambda pair: REASONS[pair[0]]}, reasons)
    print_line()
    of: Columns = {verdict: _verdict_count(verdict) for verdict, _ in verdicts}
    who: Columns = {"governed by": lambda one: one.subject or "(nobody that can be told)"}
    print_table({**who, **of}, summary.subjects[:SUBJECTS_SHOWN])
    if summary.subject_count > SUBJECTS_SHOWN:
        listed = len(summary.subjects)
        named = "them" if listed == summary.subject_count else f"the first {listed:,} of all"
        print_line(f"and {summary.subject_count - SUBJECTS_SHOWN:,} more; --format json names {named}")
    if summary.hindsight:
        print_line()
        print_line(f"{summary.hindsight:,} of these would be decided otherwise with what was recorded later.")


def _counted(title: str) -> dict[str, Callable[[Any], object]]:
    return {title: lambda pair: pair[0], "requests": lambda pair: f"{pair[1]:,}"}


def _verdict_count(verdict: str) -> Callable[[SubjectCount], object]:
    return lambda one: f"{one.verdicts.get(verdict, 0):,}"
