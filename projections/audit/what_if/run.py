"""Decides every request twice: by the ledger as it is, and by the ledger with the proposals.

Proved by tests/audit/what_if/test_against_a_changed_copy.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ledger.store import Ledger
from projections.audit.counting import count_stretches
from projections.audit.index.schema import PolicyIndex
from projections.audit.kernel.batch_decider import BatchDecider
from projections.audit.reading.batches import LogBatch
from projections.audit.run import RowSink
from projections.audit.schemas import REQUESTS
from projections.audit.what_if.comparison import RowNumbers, difference_batch, differing_rows
from projections.audit.what_if.overlay import overlay
from projections.audit.what_if.placement import PlacedProposals, place_proposals
from projections.audit.what_if.proposals import ProposedChange
from projections.audit.what_if.radius import Radius
from projections.query.clock_notices import notices_of_ledger

_ENFORCED: Final = REQUESTS.get_field_index("enforced_position")
_LAST: Final = 2**62
"""A position beyond those of every ledger, which can still move up."""


class WhatIf:
    """For one thread at a time."""

    def __init__(self, index: PolicyIndex, placed: PlacedProposals) -> None:
        self.numbering = placed.numbering
        self._before = BatchDecider(index)
        self._after = BatchDecider(overlay(index, placed))

    def decide(self, requests: pa.RecordBatch) -> tuple[RowNumbers, pa.RecordBatch]:
        """The rows of a REQUESTS batch that are decided differently, ascending, and their DIFFERENCES."""
        before = self._before.decide(requests).verdicts
        after = self._after.decide(self._with_moved_positions(requests)).verdicts
        rows = differing_rows(before, after)
        return rows, difference_batch(requests, before, after, rows, self.numbering)

    def _with_moved_positions(self, requests: pa.RecordBatch) -> pa.RecordBatch:
        column = requests.column(_ENFORCED)
        if column.null_count == len(column):
            return requests
        positions = np.minimum(pc.fill_null(column, 0).to_numpy(), _LAST)
        moved = pa.array(self.numbering.moved(positions), mask=column.is_null().to_numpy(zero_copy_only=False))
        return requests.set_column(_ENFORCED, REQUESTS.field(_ENFORCED), moved)


def blast_radius(
    ledger: Ledger,
    index: PolicyIndex,
    proposals: Sequence[ProposedChange],
    batches: Iterable[LogBatch],
    *,
    first_request: int | None = None,
    sinks: Sequence[RowSink] = (),
    progress: Callable[[int], None] | None = None,
) -> Radius:
    """The effect that the proposals would have had on the requests in `batches`.

    A sink gets the requests that differ, with their DIFFERENCES. `index`: of `ledger`; the answer has its pin and
    `known_at`. `first_request`: see `proposals`, in µs, from `first_request_of`. `progress` gets the lines done so far,
    after each batch. Raises `BadInput` for a proposal that the ledger would not have accepted, and whatever reading
    raises.
    """
    placed = place_proposals(ledger, index.pin, proposals, first_request, index.known_at)
    what_if = WhatIf(index, placed)
    notices = notices_of_ledger(ledger, index.pin)
    radius = Radius(index.pin, index.known_at, len(proposals), clock_notices=notices)
    for batch in batches:
        for fault in batch.faults:
            radius.rejects += 1
            for sink in sinks:
                sink.reject(fault)
        rows, differences = what_if.decide(batch.requests)
        radius.take(batch.requests.num_rows, differences)
        count_stretches(batch.requests.column("at").view(pa.int64()), notices, radius.clock_rows)
        if len(rows):
            differing = batch._replace(lines=batch.lines[rows], requests=batch.requests.take(pa.array(rows)))
            for sink in sinks:
                sink.take(differing, differences)
        if progress is not None:
            progress(radius.requests + radius.rejects)
    return radius


def first_request_of(batches: Iterable[LogBatch]) -> int | None:
    """The earliest `at` (µs), in whatever order the requests are; None if there is no request."""
    earliest = (pc.min(batch.requests.column("at").cast(pa.int64())).as_py() for batch in batches)
    return min((at for at in earliest if at is not None), default=None)
