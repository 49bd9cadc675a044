"""The whole page: all sections as one value, and its rendering. The page has no script and loads nothing.

The same report gives the same bytes. No text of a log becomes markup: tests/audit/report/test_page.py puts hostile text
into every string of `ReportPage`.
"""

from __future__ import annotations

import shlex
from typing import Final, NamedTuple

from projections.audit.report.commands import audit_command, known_at_option, known_at_word
from projections.audit.report.page.counts import (
    Days,
    Overview,
    Ranking,
    ReasonRow,
    days,
    models,
    overview,
    reason_rows,
    subjects,
)
from projections.audit.report.page.rows import Findings, HindsightSection, findings, hindsight
from projections.audit.report.report import AuditReport
from projections.audit.report.templating import environment
from projections.decisions.model import REASONS

DIGEST_FILES_MAX: Final = 20
SOURCES_SHOWN: Final = 50
LEAF_COMMAND: Final = "(printf '\\000'; sed -n {0}p events.jsonl | tr -d '\\n') | sha256sum"
"""Computes the RFC 6962 leaf hash of an exported event."""


class MissingRow(NamedTuple):
    """A group of undecided rows. ids: (kind, id); to_record: (setting, subject)."""

    ids: tuple[tuple[str, str], ...]
    words: str
    to_record: tuple[str, str] | None
    since: str
    rows: int
    first_at: int
    last_at: int


class UndecidedReason(NamedTuple):
    reason: str
    meaning: str
    rows: int
    missing: tuple[MissingRow, ...]
    more: int


class RejectsSection(NamedTuple):
    """lines: rejected, of `lines_read`; faults: (fault, lines); first: (log, line, fault)."""

    lines: int
    lines_read: int
    file: str | None
    faults: tuple[tuple[str, int], ...]
    more_faults: int
    first: tuple[tuple[str, int, str], ...]


class Basis(NamedTuple):
    """What the verdicts rest on, and the commands that repeat the audit. `known` is `at`, `now` or an instant."""

    origin: str
    position: int
    recorded_at: int | None
    leaf_hash: str | None
    known: str
    digest: str
    sources: tuple[tuple[str, int], ...]
    more_sources: int
    command: str
    check_commands: tuple[str, ...]


class ReportPage(NamedTuple):
    """All that the templates show. more_sources: logs beside the one in the title."""

    source: str | None
    more_sources: int
    version: str
    overview: Overview
    reasons: tuple[ReasonRow, ...]
    days: Days
    subjects: Ranking
    models: Ranking
    findings: Findings
    hindsight: HindsightSection
    undecided: tuple[UndecidedReason, ...]
    rejects: RejectsSection
    basis: Basis


def page(report: AuditReport) -> str:
    """The HTML document."""
    return render(report_page(report))


def render(content: ReportPage) -> str:
    return environment().get_template("report.html.jinja").render(page=content)


def report_page(report: AuditReport) -> ReportPage:
    sources = report.summary.log.sources
    return ReportPage(
        source=sources[0][0] if sources else None,
        more_sources=max(len(sources) - 1, 0),
        version=report.invocation.version,
        overview=overview(report),
        reasons=reason_rows(report),
        days=days(report),
        subjects=subjects(report),
        models=models(report),
        findings=findings(report),
        hindsight=hindsight(report),
        undecided=_undecided(report),
        rejects=_rejects(report),
        basis=_basis(report),
    )


def _undecided(report: AuditReport) -> tuple[UndecidedReason, ...]:
    reasons = []
    for one in report.undecided:
        missing = tuple(
            MissingRow(
                ids=tuple((name.removesuffix("_id"), value) for name, value in fact.ids.items()),
                words=fact.words,
                to_record=(fact.setting, fact.subject) if fact.setting and fact.subject else None,
                since=fact.since or "",
                rows=fact.rows,
                first_at=fact.first_at,
                last_at=fact.last_at,
            )
            for fact in one.missing
        )
        reasons.append(UndecidedReason(one.reason, REASONS[one.reason], one.rows, missing, one.groups - len(missing)))
    return tuple(reasons)


def _rejects(report: AuditReport) -> RejectsSection:
    summary, rejected = report.summary, report.rejected
    return RejectsSection(
        lines=summary.rejects,
        lines_read=summary.rows,
        file=report.invocation.rejects,
        faults=rejected.faults,
        more_faults=rejected.faults_count - len(rejected.faults),
        first=tuple((row.source, row.line, row.fault or "") for row in rejected.first),
    )


def _basis(report: AuditReport) -> Basis:
    summary = report.summary
    pin, log = summary.pin, summary.log
    commands = []
    if pin.position:
        commands += ["inforce export --out events.jsonl", LEAF_COMMAND.format(pin.position)]
    names = [name for name, _ in log.sources]
    # Standard input cannot be read again, and a page cannot list a thousand files.
    if names and "-" not in names and len(names) <= DIGEST_FILES_MAX:
        commands.append(f"{shlex.join(['cat', '--', *names])} | sha256sum")
    return Basis(
        origin=pin.origin,
        position=pin.position,
        recorded_at=pin.recorded_at,
        leaf_hash=pin.leaf_hash,
        known=known_at_word(summary.known_at),
        digest=log.sha256,
        sources=tuple(log.sources[:SOURCES_SHOWN]),
        more_sources=max(len(log.sources) - SOURCES_SHOWN, 0),
        command=audit_command(report.invocation.arguments, known_at_option(summary.known_at)),
        check_commands=tuple(commands),
    )
