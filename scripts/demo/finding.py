"""Audits the log that was made, and compares what is found with what was planted."""

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
from projections.audit.run import by_kernel, run
from projections.audit.schemas import VERDICT_NAMES
from projections.audit.summary import LogDigest, Summary
from projections.decisions.model import Decision, Outcome, Reason, RequestRecord
from projections.query.pinned import PinnedQuery
from projections.query.query import IN_FORCE, Query
from projections.temporal.changes import Change, Retraction
from projections.temporal.effective_state import SettingState
from scripts.demo import folder as places
from scripts.demo.making import Made
from scripts.demo.story import CLOSED, REWRITTEN
from scripts.demo.traffic import Truth

NOTHING_WRONG: Final = frozenset({"compliant", "allowed"})


class Shown(NamedTuple):
    """A decision worth telling, and the record that it is about."""

    record: RequestRecord
    decision: Decision
    telling: tuple[bool, ...]
    """How much of the story it tells: the more the better, the first among equals."""


class Difference(NamedTuple):
    """Something planted and not found (`found` None), found and not planted, or found otherwise."""

    what: str
    planted: Any
    found: Any


class Found(NamedTuple):
    """What the audit came to; exactly what was planted where there are no `differences`.

    `truths`: by request_id, of what is neither compliant nor allowed.
    """

    summary: Summary
    truths: dict[str, Truth]
    rewritten: frozenset[str]
    differences: list[Difference]
    violation: Shown | None
    hindsight: Shown | None
    reasons_given: dict[int, str]
    """Position → the reason that was given, for the events that hindsight brought up."""


def find(made: Made, progress: Callable[[int], None] | None = None) -> Found:
    """Reads the log back from its file, and decides on every line. `progress` is told the bytes that are read."""
    with open_ledger(f"sqlite:///{(made.folder / places.LEDGER).absolute()}") as ledger:
        query = PinnedQuery(Query(ledger))
        audit = _Audit(made, query)
        summary = Summary(query.pinned, IN_FORCE)
        logs = LogReader(log_files([str(made.folder / places.LOG)], NO_MAPPING))
        told = None if progress is None else lambda _rows: progress(logs.bytes_read)
        run(logs, by_kernel(ledger, query.pinned, IN_FORCE), summary, takers=[audit], progress=told)
        summary.log = LogDigest(logs.digest, [(source.name, source.bytes) for source in logs.sources])
        hindsight = audit.hindsight.decision.hindsight if audit.hindsight else None
        told_later = [event_of(by) for by in hindsight.changed_by] if hindsight else []
        return Found(
            summary=summary,
            truths=audit.truths,
            rewritten=frozenset(audit.rewritten),
            differences=list(audit.differences(summary)),
            violation=audit.violation,
            hindsight=audit.hindsight,
            reasons_given=ledger.reasons([event.position for event in told_later if event is not None]),
        )


def event_of(changed_by: SettingState | Retraction) -> Change | Retraction | None:
    return changed_by if isinstance(changed_by, Retraction) else changed_by.newest


class _Audit:
    def __init__(self, made: Made, query: PinnedQuery) -> None:
        self.made = made
        self.query = query
        self.truths: dict[str, Truth] = {}
        self.rewritten: set[str] = set()
        self.unreadable: set[int] = set()
        self.nameless = 0
        self.violation: Shown | None = None
        self.hindsight: Shown | None = None

    def reject(self, row: LogRow) -> None:
        self.unreadable.add(row.line)

    def take(self, part: LogBatch, verdicts: pa.RecordBatch) -> None:
        requests = part.requests
        names = verdicts.column("request_id")
        self.nameless += names.null_count
        codes = codes_of(verdicts.column("verdict"), VERDICT_NAMES)
        wrong = np.flatnonzero(~np.isin(codes, [VERDICT_NAMES.index(name) for name in NOTHING_WRONG]))
        rewritten = np.flatnonzero(verdicts.column("hindsight").is_valid().to_numpy(zero_copy_only=False))
        told = verdicts.select(["request_id", "verdict", "reasons"]).take(pa.array(wrong)).to_pylist()
        for row in told:
            if row["request_id"] is not None:
                self.truths[row["request_id"]] = Truth(row["verdict"], tuple(sorted(row["reasons"])))
        self.rewritten.update(name for name in names.take(pa.array(rewritten)).to_pylist() if name is not None)
        violations = [at for at, row in zip(wrong.tolist(), told, strict=True) if row["verdict"] == "violation"]
        for record, decision in self._again(requests, violations):
            shown = Shown(record, decision, _telling(decision.outcome, CLOSED, "passthrough_not_allowed"))
            if self.violation is None or shown.telling > self.violation.telling:
                self.violation = shown
        for record, decision in self._again(requests, rewritten.tolist()):
            later = None if decision.hindsight is None else decision.hindsight.outcome
            if later is not None and (decision.outcome.verdict, later.verdict) == ("compliant", "violation"):
                shown = Shown(record, decision, _telling(later, REWRITTEN, "trained_without_opt_in"))
                if self.hindsight is None or shown.telling > self.hindsight.telling:
                    self.hindsight = shown

    def _again(self, requests: pa.RecordBatch, rows: list[int]) -> Iterator[tuple[RequestRecord, Decision]]:
        """With all their evidence; those without a name are not told of."""
        asked = [record for record in records(requests.take(pa.array(rows, pa.int64()))) if record.request_id]
        return zip(asked, self.query.check_all(asked), strict=True)

    def differences(self, summary: Summary) -> Iterator[Difference]:
        planted, found = self.made.planted, self.truths
        for request_id in sorted(planted.keys() | found.keys()):
            if planted.get(request_id) != found.get(request_id):
                yield Difference(request_id, planted.get(request_id), found.get(request_id))
        yield from _one_sided("{}, in hindsight otherwise", self.made.rewritten, self.rewritten)
        yield from _one_sided("line {}, unreadable", self.made.unreadable, self.unreadable)
        read = summary.rows - summary.rejects
        if read != self.made.requests:
            yield Difference("requests", self.made.requests, read)
        if self.nameless:
            yield Difference("requests without an id", 0, self.nameless)


def _one_sided(what: str, planted: Set[Any], found: Set[Any]) -> Iterator[Difference]:
    for item in sorted(planted ^ found):
        yield Difference(what.format(item), item in planted, item in found)


def _telling(outcome: Outcome, subject: str, reason: Reason) -> tuple[bool, ...]:
    by = outcome.governed_by
    return by.subject == subject, outcome.reasons == (reason,), len(by.via) > 1
