"""Questions that all rest on one position, however far the ledger moves on meanwhile: what an audit needs.

Stored timelines serve as long as they stand at that position. Once they have moved on, a subject's events up to the
position are folded instead, which is slower and gives the same answers. Proved by tests/test_pinned.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from projections.changes import read_assertions
from projections.in_force import Timelines, fold_both
from projections.query import Query


class Pin(NamedTuple):
    """The ledger at one position: its last event there, whose leaf hash commits to what it says. Empty: no event."""

    origin: str
    position: int
    recorded_at: int | None
    leaf_hash: str | None


class PinnedQuery(Query):
    """The questions of `query`, as of its ledger's position now."""

    def __init__(self, query: Query) -> None:
        position = query.pin()
        super().__init__(query.ledger)
        entry = self.ledger.recorder.entry(position)
        self._position = position
        self._head_recorded_at = entry.recorded_at if entry else None
        self.pinned = Pin(
            self.ledger.origin, position, self._head_recorded_at, entry.leaf_hash.hex() if entry else None
        )

    def pin(self) -> int:
        return self._position

    def timelines_of(self, subject: str, position: int) -> Mapping[str, Timelines]:
        assert position == self._position
        cached = self._cache.get(subject)
        if cached is None:
            tracked, cached = self.store.subject(subject)
            if tracked != position:
                entries = self.ledger.stream(subject)
                cached = fold_both(read_assertions(entry for entry in entries if entry.position <= position))
            self._cache[subject] = cached
            if len(self._cache) > self._cached_subjects_max:
                self._cache.popitem(last=False)
        return cached
