"""Audits the log that was made, and compares what is found with what was planted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from typing import Any, Final, NamedTuple

from ledger.opening import open_ledger
from projections.audit.records import LogRow, read_log
from projections.audit.run import Summary, run
from projections.changes import Change, Retraction
from projections.decision import Decision, Outcome, Reason, RequestRecord
from projections.query import Query
from projections.state import SettingState
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
    audit = _Audit(made)
    with open_ledger(f"sqlite:///{(made.folder / places.LEDGER).absolute()}") as ledger:
        with (made.folder / places.LOG).open("rb") as file:
            log = read_log(file, places.LOG)
            told = None if progress is None else lambda _rows: progress(log.bytes_read)
            summary = run(Query(ledger), log, on_row=audit.take, progress=told)
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
    def __init__(self, made: Made) -> None:
        self.made = made
        self.truths: dict[str, Truth] = {}
        self.rewritten: set[str] = set()
        self.unreadable: set[int] = set()
        self.nameless = 0
        self.violation: Shown | None = None
        self.hindsight: Shown | None = None

    def take(self, row: LogRow, decision: Decision | None) -> None:
        if decision is None or row.record is None:
            self.unreadable.add(row.line)
            return
        outcome, request_id = decision.outcome, decision.request_id
        if request_id is None:
            self.nameless += 1
            return
        if outcome.verdict not in NOTHING_WRONG:
            self.truths[request_id] = Truth(outcome.verdict, tuple(sorted(outcome.reasons)))
            if outcome.verdict == "violation":
                told = _telling(outcome, CLOSED, "passthrough_not_allowed")
                if self.violation is None or told > self.violation.telling:
                    self.violation = Shown(row.record, decision, told)
        if decision.hindsight is not None:
            self.rewritten.add(request_id)
            later = decision.hindsight.outcome
            if (outcome.verdict, later.verdict) == ("compliant", "violation"):
                told = _telling(later, REWRITTEN, "trained_without_opt_in")
                if self.hindsight is None or told > self.hindsight.telling:
                    self.hindsight = Shown(row.record, decision, told)

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
