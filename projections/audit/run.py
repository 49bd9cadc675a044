"""An audit: every row of a log through `check`, all at one position of the ledger, counted.

The summary says what the audit rests on (its pin), so that anyone with the same log and the same ledger comes to the
same counts. Proved by tests/test_audit_run.py and tests/test_real_logs.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from ledger.times import format_time
from projections.audit.records import LogRow
from projections.decision import REASONS, Decision
from projections.pinned import Pin, PinnedQuery
from projections.query import IN_FORCE, KnownAt, Query

BATCH_ROWS: Final = 1000
VERDICTS: Final = ("violation", "denied", "indeterminate", "compliant", "allowed")
AGAINST: Final = frozenset(("violation", "denied"))
"""The verdicts that speak against a request."""

OnRow = Callable[[LogRow, Decision | None], None]
"""Is told of every row, in order, with its decision, or None where the row has a fault instead of a record."""


@dataclass
class Summary:
    """What an audit found. `rows` = the sum of `verdicts` + `rejects`; instants in µs.

    reasons: rows that have the reason; subjects: governing subject (None: nobody can be said to govern) → verdicts;
    hindsight: rows whose verdict or handling is another with what was recorded later; first_at, last_at: of requests.
    """

    pin: Pin
    known_at: KnownAt
    rows: int = 0
    rejects: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    subjects: dict[str | None, Counter[str]] = field(default_factory=dict)
    hindsight: int = 0
    first_at: int | None = None
    last_at: int | None = None

    @property
    def against(self) -> int:
        """Rows with a verdict that speaks against the request."""
        return sum(self.verdicts[verdict] for verdict in AGAINST)

    def take(self, decision: Decision) -> None:
        outcome, at = decision.outcome, decision.as_of.at
        self.verdicts[outcome.verdict] += 1
        for reason in outcome.reasons:
            self.reasons[reason] += 1
        governing = outcome.governed_by.subject
        counted = self.subjects.get(governing)
        if counted is None:
            counted = self.subjects[governing] = Counter()
        counted[outcome.verdict] += 1
        if decision.hindsight is not None:
            self.hindsight += 1
        if self.first_at is None or at < self.first_at:
            self.first_at = at
        if self.last_at is None or at > self.last_at:
            self.last_at = at


def run(
    query: Query,
    rows: Iterable[LogRow],
    *,
    known_at: KnownAt = IN_FORCE,
    on_row: OnRow | None = None,
    progress: Callable[[int], None] | None = None,
) -> Summary:
    """Checks every row. `progress` is told the rows done so far, now and then. Raises what reading the rows raises."""
    pinned = PinnedQuery(query)
    summary = Summary(pinned.pinned, known_at)
    for batch in _batches(rows):
        decisions = iter(pinned.check_all((row.record for row in batch if row.record is not None), known_at))
        for row in batch:
            decision = None if row.record is None else next(decisions)
            if decision is None:
                summary.rejects += 1
            else:
                summary.take(decision)
            if on_row is not None:
                on_row(row, decision)
        summary.rows += len(batch)
        if progress is not None:
            progress(summary.rows)
    return summary


def _batches(rows: Iterable[LogRow]) -> Iterator[list[LogRow]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, BATCH_ROWS)):
        yield batch


def summary_json(summary: Summary) -> dict[str, Any]:
    """The summary for programs; members that count nothing are left out of `verdicts` and `reasons`."""
    pin, known_at = summary.pin, summary.known_at
    return {
        "rows": summary.rows,
        "rejects": summary.rejects,
        "verdicts": {verdict: summary.verdicts[verdict] for verdict in VERDICTS if summary.verdicts[verdict]},
        "reasons": {reason: summary.reasons[reason] for reason in REASONS if summary.reasons[reason]},
        "subjects": [
            {"subject": subject, "verdicts": dict(summary.subjects[subject])} for subject in by_weight(summary)
        ],
        "hindsight": summary.hindsight,
        "first_at": _time(summary.first_at),
        "last_at": _time(summary.last_at),
        "known_at": _time(known_at) if isinstance(known_at, int) else known_at or "now",
        "pin": pin._asdict() | {"recorded_at": _time(pin.recorded_at)},
    }


def by_weight(summary: Summary) -> list[str | None]:
    """The governing subjects: most verdicts against them first, then most rows, then by name."""

    def weight(subject: str | None) -> tuple[int, int, str]:
        counted = summary.subjects[subject]
        return -sum(counted[verdict] for verdict in AGAINST), -counted.total(), subject or ""

    return sorted(summary.subjects, key=weight)


def _time(instant: int | None) -> str | None:
    return None if instant is None else format_time(instant)
