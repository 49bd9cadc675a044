"""Decides on request records at one read context.

`decide` is the one way to decisions. `_from_memory` is its short cut, under one condition: the decision is in force,
its basis is in the decision cache, hindsight has the same basis, and the record names no enforced position. The short
cut reads and waits for nothing, so the server's event loop may answer by it alone (`decide_from_memory`).

Proved by tests/query/test_decision_cache.py and tests/query/test_against_reference.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from projections.decisions.check import check, decision_basis, evaluate, suffices
from projections.decisions.model import AsOf, Decision, RequestRecord
from projections.query import causes
from projections.query.as_of_view import AsOfView
from projections.query.decision_cache import ValiditySpan, evidence_bytes
from projections.query.snapshots import IN_FORCE, KnownAt, ReadContext

_new: Final = tuple.__new__


def decide(records: Iterable[RequestRecord], known_at: KnownAt, context: ReadContext) -> Iterator[Decision]:
    """The decisions on `records`, in order. May read the database."""
    from_memory = _from_memory(context)
    for record in records:
        if known_at == IN_FORCE or known_at == record.at:  # noqa: PLR1714 - no tuple for each record
            yield from_memory(record) or _decide_in_force(record, context)
        else:
            yield _decide_as_known(record, known_at, context)


def decide_from_memory(records: Iterable[RequestRecord], context: ReadContext) -> list[Decision] | None:
    """The decisions in force, if memory suffices for all of them; None: call `decide`, which may wait."""
    from_memory = _from_memory(context)
    decisions = []
    for record in records:
        decision = from_memory(record)
        if decision is None:
            return None
        decisions.append(decision)
    return decisions


def _from_memory(context: ReadContext) -> Callable[[RequestRecord], Decision | None]:
    """A function of a record; a closure, because a body has thousands of records at one context."""
    now, position, find = context.now, context.position, context.snapshot.decision_cache.find
    # None in every ledger whose clock was never ahead.
    notice = context.clock_notice if context.clock_notices else None

    def from_memory(record: RequestRecord) -> Decision | None:
        at = record.at
        span = find(record[1:6], at, position)
        if span is None or span.hindsight is not None or record.enforced_position is not None:
            return None
        basis, observed = span.basis, record.handling
        outcome = basis.question if observed is None else basis.outcomes.get(observed)
        if outcome is None:
            if not suffices(basis, observed):
                return None
            outcome = evaluate(record, basis, None)
        # The same as AsOf(…) and Decision(…), in half the time.
        known_at = at if at < now else now
        as_of = _new(AsOf, (at, known_at, position, None if notice is None else notice(at, known_at)))
        return _new(Decision, (record.request_id, outcome, as_of, None))

    return from_memory


def _decide_in_force(record: RequestRecord, context: ReadContext) -> Decision:
    at = record.at
    span = context.snapshot.find(record[1:6], at)
    if span is None or not _suffices(span, record):
        span = _new_span(record, context)
    # Only an enforced position makes `evaluate` read states.
    reads_states = record.enforced_position is not None
    outcome = evaluate(record, span.basis, AsOfView(context, at, IN_FORCE) if reads_states else None)
    as_of = context.as_of(at, IN_FORCE)
    hindsight = None
    if span.hindsight is not None:
        later = evaluate(record, span.hindsight, AsOfView(context, at, None) if reads_states else None)
        hindsight = causes.hindsight(context, outcome, later, as_of)
    return Decision(record.request_id, outcome, as_of, hindsight)


def _suffices(span: ValiditySpan, record: RequestRecord) -> bool:
    bases = (span.basis,) if span.hindsight is None else (span.basis, span.hindsight)
    return all(suffices(basis, record.handling) for basis in bases)


def _new_span(record: RequestRecord, context: ReadContext) -> ValiditySpan:
    """Makes the basis of the decision in force on `record`, and puts it into the cache."""
    view = AsOfView(context, record.at, IN_FORCE)
    basis, hindsight_basis = decision_basis(record, view), None
    if not view.agrees_with_hindsight():
        hindsight = view.in_hindsight()
        hindsight_basis = decision_basis(record, hindsight)
        view.include(hindsight)
    size, large = evidence_bytes(basis)
    span = ValiditySpan(view.start, view.until, context.position, basis, hindsight_basis, view.subjects, size, large)
    context.snapshot.put(record[1:6], span)
    return span


def _decide_as_known(record: RequestRecord, known_at: KnownAt, context: ReadContext) -> Decision:
    view = AsOfView(context, record.at, known_at)
    outcome = check(record, view)
    as_of = context.as_of(record.at, known_at)
    hindsight = None
    if view.known_at is not None and not view.agrees_with_hindsight():
        later = check(record, AsOfView(context, record.at, None))
        hindsight = causes.hindsight(context, outcome, later, as_of)
    return Decision(record.request_id, outcome, as_of, hindsight)
