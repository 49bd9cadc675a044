"""Audits the generated log, and compares what the audit finds with what was planted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from ledger.opening import open_ledger
from projections.audit.counting import codes_of
from projections.audit.reading.batches import LogBatch
from projections.audit.reading.fields import NO_MAPPING
from projections.audit.reading.files import log_files
from projections.audit.reading.logs import LogReader
from projections.audit.reading.strict import LogRow
from projections.audit.reference import records
from projections.audit.run import index_decider, run
from projections.audit.schemas import VERDICT_NAMES
from projections.audit.summary import LogDigest, Summary
from projections.decisions.model import Decision, Outcome, Reason, RequestRecord
from projections.query.query import IN_FORCE, PinnedQuery, Query
from projections.temporal.changes import Change, Retraction
from projections.temporal.effective_state import SettingState
from scripts.demo.generator import LEDGER, LOG, DemoData
from scripts.demo.story import CORRECTED_ORG, PASSTHROUGH_OFF_ORG
from scripts.demo.traffic import Judgement

NOTHING_WRONG: Final = frozenset({"compliant", "allowed"})


class Example(NamedTuple):
    """A decision to show, with its request record. The one with the greatest `rank` is shown."""

    record: RequestRecord
    decision: Decision
    rank: tuple[bool, ...]


class Mismatch(NamedTuple):
    """`expected`: what was planted, None for nothing; `actual`: what the audit found, None for nothing."""

    what: str
    expected: Any
    actual: Any


def audit_and_compare(data: DemoData, progress: Callable[[int], None] | None = None) -> AuditResult:
    """Reads the log back from its file, and decides on every line. Calls `progress` with the bytes read."""
    with open_ledger(f"sqlite:///{(data.folder / LEDGER).absolute()}") as ledger:
        query = PinnedQuery(Query(ledger))
        result = AuditResult(query)
        summary = result.summary
        logs = LogReader(log_files([str(data.folder / LOG)], NO_MAPPING))
        report = None if progress is None else lambda _rows: progress(logs.bytes_read)
        run(logs, index_decider(ledger, query.pinned, IN_FORCE), summary, sinks=[result], progress=report)
        summary.log = LogDigest(logs.digest, [(source.name, source.bytes) for source in logs.sources])
        hindsight = result.hindsight.decision.hindsight if result.hindsight else None
        later_events = [event_of(state) for state in hindsight.changed_by] if hindsight else []
        result.reasons_given = ledger.reasons([event.position for event in later_events if event is not None])
        result.mismatches = list(_mismatches(data, result))
        return result


def event_of(changed_by: SettingState | Retraction) -> Change | Retraction | None:
    return changed_by if isinstance(changed_by, Retraction) else changed_by.newest


class AuditResult:
    """The findings of the audit, collected while it runs. Without `mismatches` they are exactly what was planted.

    judgements: by request_id, of every request that is neither compliant nor allowed. violation, hindsight: examples to
    show. reasons_given: position → the recorded reason, for the events that changed the example of `hindsight`.
    """

    def __init__(self, query: PinnedQuery) -> None:
        self.summary = Summary(query.pinned, IN_FORCE)
        self.judgements: dict[str, Judgement] = {}
        self.differ_in_hindsight: set[str] = set()
        self.unreadable: set[int] = set()
        self.without_id = 0
        self.mismatches: list[Mismatch] = []
        self.violation: Example | None = None
        self.hindsight: Example | None = None
        self.reasons_given: dict[int, str] = {}
        self._query = query

    def reject(self, row: LogRow) -> None:
        self.unreadable.add(row.line)

    def take(self, batch: LogBatch, verdicts: pa.RecordBatch) -> None:
        ids = verdicts.column("request_id")
        self.without_id += ids.null_count
        codes = codes_of(verdicts.column("verdict"), VERDICT_NAMES)
        wrong = np.flatnonzero(~np.isin(codes, [VERDICT_NAMES.index(name) for name in NOTHING_WRONG]))
        differ = np.flatnonzero(verdicts.column("hindsight").is_valid().to_numpy(zero_copy_only=False))
        rows = verdicts.select(["request_id", "verdict", "reasons"]).take(pa.array(wrong)).to_pylist()
        for row in rows:
            if row["request_id"] is not None:
                self.judgements[row["request_id"]] = Judgement(row["verdict"], tuple(sorted(row["reasons"])))
        self.differ_in_hindsight.update(name for name in ids.take(pa.array(differ)).to_pylist() if name is not None)
        violations = [index for index, row in zip(wrong.tolist(), rows, strict=True) if row["verdict"] == "violation"]
        for record, decision in self._decide(batch.requests, [] if _is_best(self.violation) else violations):
            rank = _rank(decision.outcome, PASSTHROUGH_OFF_ORG, "passthrough_not_allowed")
            self.violation = _better(self.violation, Example(record, decision, rank))
        for record, decision in self._decide(batch.requests, [] if _is_best(self.hindsight) else differ.tolist()):
            later = None if decision.hindsight is None else decision.hindsight.outcome
            if later is not None and (decision.outcome.verdict, later.verdict) == ("compliant", "violation"):
                rank = _rank(later, CORRECTED_ORG, "trained_without_opt_in")
                self.hindsight = _better(self.hindsight, Example(record, decision, rank))

    def _decide(self, requests: pa.RecordBatch, rows: list[int]) -> Iterator[tuple[RequestRecord, Decision]]:
        """Decides on these rows again, for the evidence. Leaves out those without an id."""
        with_id = [record for record in records(requests.take(pa.array(rows, pa.int64()))) if record.request_id]
        return zip(with_id, self._query.check_all(with_id), strict=True)


def _mismatches(data: DemoData, result: AuditResult) -> Iterator[Mismatch]:
    expected, actual = data.planted, result.judgements
    for request_id in sorted(expected.keys() | actual.keys()):
        if expected.get(request_id) != actual.get(request_id):
            yield Mismatch(request_id, expected.get(request_id), actual.get(request_id))
    sets: tuple[tuple[str, Set[Any], Set[Any]], ...] = (
        ("{}, different in hindsight", data.differ_in_hindsight, result.differ_in_hindsight),
        ("line {}, unreadable", data.unreadable, result.unreadable),
    )
    for what, planted, audited in sets:
        for item in sorted(planted ^ audited):
            yield Mismatch(what.format(item), item in planted, item in audited)
    readable = result.summary.rows - result.summary.rejects
    if readable != data.requests:
        yield Mismatch("requests", data.requests, readable)
    if result.without_id:
        yield Mismatch("requests without an id", 0, result.without_id)


def _rank(outcome: Outcome, subject: str, reason: Reason) -> tuple[bool, ...]:
    """Prefers a request of the story's subject, with this reason alone, that names the subject by a key or project."""
    by = outcome.governed_by
    return by.subject == subject, outcome.reasons == (reason,), len(by.via) > 1


def _is_best(best: Example | None) -> bool:
    """Whether no later request can take its place, so that none need be decided on again for its evidence."""
    return best is not None and all(best.rank)


def _better(best: Example | None, candidate: Example) -> Example:
    """The first of the best."""
    return candidate if best is None or candidate.rank > best.rank else best
