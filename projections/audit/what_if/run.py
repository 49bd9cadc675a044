"""Every request decided twice: by the ledger as it is, and as it would be with the proposals.

Proved by tests/audit/what_if/test_against_a_changed_copy.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ledger.store import Ledger
from projections.audit.index.schema import PolicyIndex
from projections.audit.kernel.batch_decider import BatchDecider
from projections.audit.reading.batches import LogBatch
from projections.audit.reading.strict import LogRow
from projections.audit.schemas import REQUESTS
from projections.audit.what_if.comparison import RowNumbers, changes, differing_rows
from projections.audit.what_if.overlay import overlay
from projections.audit.what_if.placement import PlacedProposals, place_proposals
from projections.audit.what_if.proposals import ProposedChange
from projections.audit.what_if.radius import Radius

_ENFORCED: Final = REQUESTS.get_field_index("enforced_position")
_LAST: Final = 2**62
"""A position beyond every ledger's, which can still be moved."""


class Taker(Protocol):
    """What becomes of the rows."""

    def take(self, source: str, lines: RowNumbers, changes: pa.RecordBatch) -> None:
        """Called in order with CHANGES, and the line of each in the log `source`."""

    def reject(self, row: LogRow) -> None:
        """Called with every line that is no request, in order, before what is taken of its part."""


class WhatIf:
    """For one thread at a time."""

    def __init__(self, index: PolicyIndex, made: PlacedProposals) -> None:
        self.numbering = made.numbering
        self._before = BatchDecider(index)
        self._after = BatchDecider(overlay(index, made))

    def decide(self, requests: pa.RecordBatch) -> tuple[RowNumbers, pa.RecordBatch]:
        """Of a REQUESTS batch the rows that are decided otherwise, rising, and their CHANGES."""
        before = self._before.decide(requests)
        after = self._after.decide(self._enforced(requests))
        rows = differing_rows(before, after)
        return rows, changes(requests, before, after, rows, self.numbering)

    def _enforced(self, requests: pa.RecordBatch) -> pa.RecordBatch:
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
    parts: Iterable[LogBatch],
    *,
    first_request: int | None = None,
    takers: Iterable[Taker] = (),
    progress: Callable[[int], None] | None = None,
) -> Radius:
    """What the proposals would have changed of the requests in `parts`. `index` is of `ledger`, at a pin and on an axis
    that the answer has, too. `first_request`: see `proposals`, µs; `first_request_of` tells it.

    `progress` is told the lines done so far, after each part. Raises `BadInput` for a proposal that the ledger would
    not have taken, and whatever reading raises.
    """
    made = place_proposals(ledger, index.pin, proposals, first_request, index.known_at)
    deciding = WhatIf(index, made)
    radius = Radius(index.pin, index.known_at, len(proposals))
    told = tuple(takers)
    for part in parts:
        for fault in part.faults:
            radius.rejects += 1
            for taker in told:
                taker.reject(fault)
        rows, changed = deciding.decide(part.requests)
        radius.take(part.requests.num_rows, changed)
        if len(rows):
            for taker in told:
                taker.take(part.source, part.lines[rows], changed)
        if progress is not None:
            progress(radius.requests + radius.rejects)
    return radius


def first_request_of(parts: Iterable[LogBatch]) -> int | None:
    """The earliest `at` (µs), in whatever order they stand; None: there is no request."""
    found = (pc.min(part.requests.column("at").cast(pa.int64())).as_py() for part in parts)
    return min((at for at in found if at is not None), default=None)
