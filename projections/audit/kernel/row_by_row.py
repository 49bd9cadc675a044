"""Decides request records one by one with `check`, over the states of a policy index.

The slow path: it runs where Numba is not installed, and for logs that are too short to compile for.
Proved by tests/audit/kernel/test_against_reference.py and tests/audit/test_without_numba.py.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from projections.audit.index.schema import PolicyIndex
from projections.audit.kernel.answers import NOBODY, references_of
from projections.audit.kernel.index_states import IndexStates
from projections.audit.kernel.request_columns import check_requests
from projections.audit.reference import records, verdicts
from projections.audit.schemas import DecidedBatch
from projections.decisions.check import check
from projections.decisions.model import AsOf, Decision, Hindsight, RequestRecord
from projections.temporal.coordinates import IN_FORCE


class RowByRow:
    """Decides the same batches as `Kernel` with the same answers. For one thread at a time."""

    def __init__(self, index: PolicyIndex) -> None:
        self._index = index
        self._states = IndexStates(index)
        self._later = IndexStates(index, later=True)
        self._references = references_of(index.subjects)

    def decide(self, batch: pa.RecordBatch) -> DecidedBatch:
        """`Kernel.decide`."""
        decisions = [self._decision(record) for record in records(check_requests(batch))]
        governing = np.array([self._code(decision) for decision in decisions], np.int32)
        return DecidedBatch(verdicts(decisions), governing, self._references)

    def _decision(self, record: RequestRecord) -> Decision:
        states = self._states.at(record.at)
        outcome = check(record, states)
        hindsight = None
        if states.may_differ_in_hindsight:
            later = check(record, self._later.at(record.at))
            if (later.verdict, later.handling) != (outcome.verdict, outcome.handling):
                hindsight = Hindsight(later, ())
        pin, known_at = self._index.pin, self._index.known_at
        if known_at == IN_FORCE:
            known_at = record.at
        as_of = AsOf(record.at, known_at or pin.recorded_at or record.at, pin.position)
        return Decision(record.request_id, outcome, as_of, hindsight)

    def _code(self, decision: Decision) -> int:
        subject = decision.outcome.governed_by.subject
        code = None if subject is None else self._states.code(subject)
        return NOBODY if code is None else code
