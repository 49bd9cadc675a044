"""A report: what an audit counted, the rows that it shows with their evidence, and what all of it rests on."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from projections.audit.explaining import Explanation, explain
from projections.audit.reading.strict import LogRow
from projections.audit.report.collector import EVERY_MAX, SHOWN_MAX, Tally
from projections.audit.report.counters import worst
from projections.audit.report.missing_facts import Unsettled, unsettled
from projections.audit.report.row_sampler import Sample
from projections.audit.schemas import REASON_NAMES, VERDICT_NAMES
from projections.audit.summary import AGAINST, SubjectCount, Summary
from projections.decisions.model import Reason, Verdict
from projections.query.pinned import PinnedQuery

SUBJECTS_SHOWN: Final = 25
MODELS_SHOWN: Final = 25
FAULTS_SHOWN: Final = 20


class Reading(NamedTuple):
    """How the audit was asked for. arguments: the logs, and the options that say how they are read, as on a command
    line; rejects: the file with all rejected lines, if there is one; version: of inforce."""

    arguments: tuple[str, ...]
    rejects: str | None
    version: str


class ReasonCount(NamedTuple):
    """Rows that have the reason: with a verdict against them, and all."""

    reason: Reason
    against: int
    rows: int


class ModelCount(NamedTuple):
    """`model` None: the rows that name none."""

    model: str | None
    verdicts: dict[Verdict, int]


class Finding(NamedTuple):
    """A row that is shown: decided a second time, by itself, and explained."""

    sample: Sample
    explanation: Explanation


class FindingsOf(NamedTuple):
    """rows: all that have the reason, and a verdict against them; shown: places in `Report.findings`."""

    reason: Reason
    rows: int
    shown: tuple[int, ...]


class Rewritten(NamedTuple):
    """Rows by verdict and verdict in hindsight (the same: the handling is another), and some of them."""

    rows: tuple[tuple[Verdict, Verdict, int], ...]
    shown: tuple[Finding, ...]


class Rejected(NamedTuple):
    """faults: (reason, lines), most first; faults_count: how many reasons there are; first: the first lines."""

    faults: tuple[tuple[str, int], ...]
    faults_count: int
    first: tuple[LogRow, ...]


class Report(NamedTuple):
    """days, days_reasons: (day since 1970-01-01 UTC, counts by VERDICT_NAMES; by REASON_NAMES of the rows against), in
    order, only days of which there is something. models_count: how many models were named."""

    summary: Summary
    reading: Reading
    reasons: tuple[ReasonCount, ...]
    days: tuple[tuple[int, list[int]], ...]
    days_reasons: tuple[tuple[int, list[int]], ...]
    subjects: tuple[SubjectCount, ...]
    models: tuple[ModelCount, ...]
    models_count: int
    findings: tuple[Finding, ...]
    findings_of: tuple[FindingsOf, ...]
    rewritten: Rewritten
    unsettled: tuple[Unsettled, ...]
    rejected: Rejected


def report(tally: Tally, summary: Summary, query: PinnedQuery, reading: Reading) -> Report:
    """What was counted, put together. `query` is pinned where the verdicts are."""
    findings, findings_of = _findings(tally, summary, query)
    models, models_count = _models(tally)
    against = tally.reasons[[VERDICT_NAMES.index(verdict) for verdict in VERDICT_NAMES if verdict in AGAINST]].sum(0)
    reasons = [
        ReasonCount(reason, int(against[place]), int(tally.reasons[:, place].sum()))
        for place, reason in enumerate(REASON_NAMES)
    ]
    return Report(
        summary=summary,
        reading=reading,
        reasons=tuple(sorted((one for one in reasons if one.rows), key=lambda one: (-one.against, -one.rows))),
        days=tuple(tally.days.counted()),
        days_reasons=tuple(tally.days_reasons.counted()),
        subjects=tuple(summary.subjects[:SUBJECTS_SHOWN]),
        models=models,
        models_count=models_count,
        findings=findings,
        findings_of=findings_of,
        rewritten=_rewritten(tally, summary, query),
        unsettled=unsettled(tally, query, summary.known_at),
        rejected=Rejected(
            tuple(sorted(tally.faults.items(), key=lambda one: (-one[1], one[0]))[:FAULTS_SHOWN]),
            len(tally.faults),
            tuple(tally.rejects),
        ),
    )


def _findings(tally: Tally, summary: Summary, query: PinnedQuery) -> tuple[tuple[Finding, ...], tuple[FindingsOf, ...]]:
    against = [VERDICT_NAMES.index(verdict) for verdict in VERDICT_NAMES if verdict in AGAINST]
    counts = tally.reasons[against].sum(0)
    every = sum(summary.verdicts.get(verdict, 0) for verdict in AGAINST) <= EVERY_MAX
    found: dict[tuple[str, int], int] = {}
    findings: list[Finding] = []
    of: list[FindingsOf] = []
    for place in sorted(np.flatnonzero(counts).tolist(), key=lambda place: (-counts[place], place)):
        reason = REASON_NAMES[place]
        shown = []
        for sample in (one for verdict in SHOWN_MAX for one in _shown(tally, verdict, reason, every=every)):
            where = (sample.source, sample.line)
            if where not in found:
                found[where] = len(findings)
                findings.append(_finding(sample, summary, query))
            shown.append(found[where])
        of.append(FindingsOf(reason, int(counts[place]), tuple(shown)))
    return tuple(findings), tuple(of)


def _shown(tally: Tally, verdict: Verdict, reason: Reason, *, every: bool) -> list[Sample]:
    if not every:
        return tally.findings[verdict, reason].rows
    return [one for one in tally.every.rows if one.verdict == verdict and reason in one.reasons]


def _finding(sample: Sample, summary: Summary, query: PinnedQuery) -> Finding:
    explanation = explain(query, sample.record, summary.known_at)
    outcome = explanation.decision.outcome
    assert (outcome.verdict, outcome.reasons) == (sample.verdict, sample.reasons), (
        f"{sample.source} line {sample.line}: decided {sample.verdict} in bulk and {outcome.verdict} by itself"
    )
    return Finding(sample, explanation)


def _models(tally: Tally) -> tuple[tuple[ModelCount, ...], int]:
    counted = tally.models.counted()
    against = counted.counts[:, [VERDICT_NAMES.index(verdict) for verdict in VERDICT_NAMES if verdict in AGAINST]]
    rows = worst(counted.names, [against.sum(1), counted.counts.sum(1)], MODELS_SHOWN)
    models = tuple(
        ModelCount(
            counted.names[row].as_py(),
            {verdict: int(n) for verdict, n in zip(VERDICT_NAMES, counted.counts[row], strict=True) if n},
        )
        for row in rows
    )
    return models, len(counted.names) - counted.names.null_count


def _rewritten(tally: Tally, summary: Summary, query: PinnedQuery) -> Rewritten:
    pairs = [
        (VERDICT_NAMES[verdict], VERDICT_NAMES[later], int(tally.hindsight[verdict, later]))
        for verdict, later in np.argwhere(tally.hindsight).tolist()
    ]
    # Most rows first; where the verdict is another before where only the handling is.
    pairs.sort(key=lambda pair: (pair[0] == pair[1], -pair[2], pair))
    rows = [sample for verdict, later, _ in pairs for sample in tally.rewritten[verdict, later].rows]
    return Rewritten(tuple(pairs), tuple(_finding(sample, summary, query) for sample in rows))
