"""The report: what an audit counted, the rows that it shows with their evidence, and what its verdicts rest on."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from projections.audit.counting import AGAINST_CODES
from projections.audit.explain import Explanation, explain
from projections.audit.reading.strict import LogRow
from projections.audit.report.collector import EVERY_MAX, SHOWN_MAX, ReportCollector
from projections.audit.report.counters import heaviest
from projections.audit.report.missing_facts import UndecidedRows, missing_facts
from projections.audit.report.row_sampler import RowSample
from projections.audit.schemas import REASON_NAMES, VERDICT_NAMES
from projections.audit.summary import SubjectCount, Summary
from projections.decisions.model import Reason, Verdict
from projections.query.query import PinnedQuery

SUBJECTS_SHOWN: Final = 25
MODELS_SHOWN: Final = 25
FAULTS_SHOWN: Final = 20


class Invocation(NamedTuple):
    """How a user ran the audit. arguments: the logs and the options that say how to read them, as on a command line;
    rejects: the file with all rejected lines, if there is one; version: the version of inforce."""

    arguments: tuple[str, ...]
    rejects: str | None
    version: str


class ReasonCount(NamedTuple):
    """Rows with the reason: violations, denied questions, both together, and rows of any verdict."""

    reason: Reason
    violation: int
    denied: int
    against: int
    rows: int


class ModelCount(NamedTuple):
    """Rows of a model by verdict. `model` None: the rows that name no model."""

    model: str | None
    verdicts: dict[Verdict, int]


class ShownRow(NamedTuple):
    """A sample row that was decided a second time, by itself, and explained."""

    sample: RowSample
    explanation: Explanation


class ReasonFindings(NamedTuple):
    """rows: how many rows have the reason and a verdict against them; shown: indices in `AuditReport.findings`."""

    reason: Reason
    rows: int
    shown: tuple[int, ...]


class HindsightRows(NamedTuple):
    """Rows that hindsight decides differently. rows: (verdict, verdict in hindsight, rows); the two verdicts are the
    same if only the handling differs. shown: some of these rows."""

    rows: tuple[tuple[Verdict, Verdict, int], ...]
    shown: tuple[ShownRow, ...]


class RejectedLines(NamedTuple):
    """faults: (fault, lines), most lines first; faults_count: how many different faults there are; first: the first
    rejected lines."""

    faults: tuple[tuple[str, int], ...]
    faults_count: int
    first: tuple[LogRow, ...]


class AuditReport(NamedTuple):
    """days: (day since 1970-01-01 UTC, counts by VERDICT_NAMES). days_reasons: the same by REASON_NAMES, of the rows
    with a verdict against them. Both in the order of days, without days that have no such rows. models_count: how many
    models the log names."""

    summary: Summary
    invocation: Invocation
    reasons: tuple[ReasonCount, ...]
    days: tuple[tuple[int, list[int]], ...]
    days_reasons: tuple[tuple[int, list[int]], ...]
    subjects: tuple[SubjectCount, ...]
    models: tuple[ModelCount, ...]
    models_count: int
    findings: tuple[ShownRow, ...]
    findings_of: tuple[ReasonFindings, ...]
    hindsight: HindsightRows
    undecided: tuple[UndecidedRows, ...]
    rejected: RejectedLines


def build_report(
    collector: ReportCollector, summary: Summary, query: PinnedQuery, invocation: Invocation
) -> AuditReport:
    """`query` must be pinned to the position that the verdicts rest on."""
    findings, findings_of = _findings(collector, summary, query)
    models, models_count = _models(collector)
    reasons = [_reason_count(code, collector.reasons[:, code].tolist()) for code in range(len(REASON_NAMES))]
    return AuditReport(
        summary=summary,
        invocation=invocation,
        reasons=tuple(sorted((one for one in reasons if one.rows), key=lambda one: (-one.against, -one.rows))),
        days=tuple(collector.days.counts()),
        days_reasons=tuple(collector.days_reasons.counts()),
        subjects=tuple(summary.subjects[:SUBJECTS_SHOWN]),
        models=models,
        models_count=models_count,
        findings=findings,
        findings_of=findings_of,
        hindsight=_hindsight(collector, summary, query),
        undecided=missing_facts(collector, query, summary.known_at),
        rejected=RejectedLines(
            tuple(sorted(collector.faults.items(), key=lambda one: (-one[1], one[0]))[:FAULTS_SHOWN]),
            len(collector.faults),
            tuple(collector.rejects),
        ),
    )


def _reason_count(code: int, counts: list[int]) -> ReasonCount:
    """`counts`: rows with the reason, by VERDICT_NAMES."""
    by_verdict = dict(zip(VERDICT_NAMES, counts, strict=True))
    violation, denied = by_verdict["violation"], by_verdict["denied"]
    return ReasonCount(REASON_NAMES[code], violation, denied, violation + denied, sum(counts))


def _findings(
    collector: ReportCollector, summary: Summary, query: PinnedQuery
) -> tuple[tuple[ShownRow, ...], tuple[ReasonFindings, ...]]:
    counts = collector.reasons[AGAINST_CODES].sum(0)
    every = summary.against <= EVERY_MAX
    index_of: dict[tuple[str, int], int] = {}
    findings: list[ShownRow] = []
    findings_of: list[ReasonFindings] = []
    for code in sorted(np.flatnonzero(counts).tolist(), key=lambda code: (-counts[code], code)):
        reason = REASON_NAMES[code]
        shown = []
        for sample in (one for verdict in SHOWN_MAX for one in _samples(collector, verdict, reason, every=every)):
            where = (sample.source, sample.line)
            if where not in index_of:
                index_of[where] = len(findings)
                findings.append(_shown(sample, summary, query))
            shown.append(index_of[where])
        findings_of.append(ReasonFindings(reason, int(counts[code]), tuple(shown)))
    return tuple(findings), tuple(findings_of)


def _samples(collector: ReportCollector, verdict: Verdict, reason: Reason, *, every: bool) -> list[RowSample]:
    if not every:
        return collector.findings[verdict, reason].rows
    return [one for one in collector.every.rows if one.verdict == verdict and reason in one.reasons]


def _shown(sample: RowSample, summary: Summary, query: PinnedQuery) -> ShownRow:
    explanation = explain(query, sample.record, summary.known_at)
    outcome = explanation.decision.outcome
    assert (outcome.verdict, outcome.reasons) == (sample.verdict, sample.reasons), (
        f"{sample.source} line {sample.line}: decided {sample.verdict} in bulk and {outcome.verdict} by itself"
    )
    return ShownRow(sample, explanation)


def _models(collector: ReportCollector) -> tuple[tuple[ModelCount, ...], int]:
    counts = collector.models.counts()
    against = counts.counts[:, AGAINST_CODES].sum(1)
    rows = heaviest(counts.names, [against, counts.counts.sum(1)], MODELS_SHOWN)
    models = tuple(
        ModelCount(
            counts.names[row].as_py(),
            {verdict: int(n) for verdict, n in zip(VERDICT_NAMES, counts.counts[row], strict=True) if n},
        )
        for row in rows
    )
    return models, len(counts.names) - counts.names.null_count


def _hindsight(collector: ReportCollector, summary: Summary, query: PinnedQuery) -> HindsightRows:
    pairs = [
        (VERDICT_NAMES[verdict], VERDICT_NAMES[later], int(collector.hindsight[verdict, later]))
        for verdict, later in np.argwhere(collector.hindsight).tolist()
    ]
    # A different verdict comes before a verdict that differs only in its handling; then most rows first.
    pairs.sort(key=lambda pair: (pair[0] == pair[1], -pair[2], pair))
    samples = [sample for verdict, later, _ in pairs for sample in collector.hindsight_rows[verdict, later].rows]
    return HindsightRows(tuple(pairs), tuple(_shown(sample, summary, query) for sample in samples))
