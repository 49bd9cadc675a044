"""Questions pinned to one position, however far the ledger moves on meanwhile: what an audit needs.

Proved by tests/query/test_pinned.py.
"""

from __future__ import annotations

from projections.query.query import Query
from projections.query.snapshots import ReadContext
from projections.temporal.coordinates import Pin

__all__ = ["Pin", "PinnedQuery"]


class PinnedQuery(Query):
    """The questions of `query`, all as of the ledger's position now. For one thread."""

    def __init__(self, query: Query) -> None:
        self.ledger = query.ledger
        self.store = query.store
        self.timeline_cache = query.timeline_cache
        self._context = query.context()
        entry = self.ledger.recorder.entry(self._context.position)
        leaf_hash = entry.leaf_hash.hex() if entry is not None else None
        self.pinned = Pin(self.ledger.origin, self._context.position, self._context.snapshot.recorded_at, leaf_hash)

    def context(self) -> ReadContext:
        return self._context

    def context_nowait(self) -> ReadContext:
        return self._context
