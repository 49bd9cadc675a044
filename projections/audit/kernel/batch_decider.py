"""Decides batches over a policy index: row by row while there are few rows, then with compiled code.

Numba compiles the kernel for some ten seconds where it was never used before. Meanwhile rows are decided row by row, as
all of them are where Numba is not installed. Both ways give the same bytes.
Proved by tests/audit/kernel/test_batch_decider.py, tests/audit/kernel/test_against_reference.py and
tests/audit/test_without_numba.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from projections.audit.index.schema import PolicyIndex
from projections.audit.kernel.answers import NOBODY, references_of
from projections.audit.kernel.happened import as_done
from projections.audit.kernel.index_states import IndexStates
from projections.audit.kernel.request_columns import check_requests
from projections.audit.numba_support import worth_compiling
from projections.audit.reference import records, verdicts
from projections.audit.schemas import DecidedBatch, is_happened
from projections.decisions.check import check
from projections.decisions.model import AsOf, Decision, Hindsight, RequestRecord
from projections.temporal.coordinates import IN_FORCE

if TYPE_CHECKING:
    from projections.audit.kernel.kernel import Kernel

_ROW_COST: Final = 8
"""A row takes as long without compiled code as this many of the events or names that `worth_compiling` counts."""


class BatchDecider:
    """For one thread at a time."""

    def __init__(self, index: PolicyIndex) -> None:
        self._index = index
        self._rows = 0
        self._row_by_row: RowByRow | None = None
        self._kernel: Kernel | None = None

    def decide(self, batch: pa.RecordBatch) -> DecidedBatch:
        """`Kernel.decide`."""
        self._rows += batch.num_rows
        if self._kernel is None and worth_compiling(_ROW_COST * self._rows):
            # Imported here because the compiled functions take 0.1 s to import, which a short log does without.
            from projections.audit.kernel.kernel import COMPILED, Kernel

            if worth_compiling(_ROW_COST * self._rows, *COMPILED):
                self._kernel = Kernel(self._index)
                if not is_happened(batch):
                    self._row_by_row = None
        if self._kernel is None:
            return self._one_by_one().decide(batch)
        decided = self._kernel.decide(batch)
        return as_done(batch, decided, self._one_by_one().decision) if is_happened(batch) else decided

    def _one_by_one(self) -> RowByRow:
        if self._row_by_row is None:
            self._row_by_row = RowByRow(self._index)
        return self._row_by_row


class RowByRow:
    """Decides records one by one with `check`, over the states of the index; the same answers as `Kernel`. For one
    thread at a time."""

    def __init__(self, index: PolicyIndex) -> None:
        self._index = index
        self._states = IndexStates(index)
        self._later = IndexStates(index, later=True)
        self._references = references_of(index.subjects)

    def decide(self, batch: pa.RecordBatch) -> DecidedBatch:
        """`Kernel.decide`."""
        decisions = [self.decision(record) for record in records(check_requests(batch))]
        governing = np.array([self._code(decision) for decision in decisions], np.int32)
        return DecidedBatch(verdicts(decisions), governing, self._references)

    def decision(self, record: RequestRecord) -> Decision:
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
