"""The positions of events and proposals in the ledger that holds both. Pure.

A proposal stands after the last event that was recorded by its moment, so all later events move up by one. Enforcement
lag compares positions: so the index with the proposals counts them as events, and the position that a gateway enforced
moves up, too. That gateway had enforced the proposals before its event, and none after it. Results show the ledger's
own positions. Proved by tests/audit/what_if/test_numbering.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]


class Numbering:
    """after: of each proposal, the position of the event before it; ascending. lines: the lines of the proposals.
    places: the positions of the proposals."""

    def __init__(self, after: Sequence[int], lines: Sequence[int]) -> None:
        self.after: Positions = np.array(after, np.int64)
        self.lines: Positions = np.array(lines, np.int64)
        self.places: Positions = self.after + np.arange(1, len(after) + 1)

    def moved(self, positions: NDArray[Any]) -> NDArray[Any]:
        """The ledger's own positions, of any integer type, with the proposals counted. 0 stays 0."""
        if not len(positions) or not len(self.after) or positions.max() <= self.after[0]:
            return positions
        moved: NDArray[Any] = positions + np.searchsorted(self.after, positions).astype(positions.dtype)
        return moved

    def shown(self, positions: Positions) -> Positions:
        """The inverse: the ledger's own positions. A proposal becomes its line's number, negative."""
        if not len(self.places):
            return positions
        before = np.searchsorted(self.places, positions)
        at = np.minimum(before, len(self.places) - 1)
        return np.where(self.places[at] == positions, -self.lines[at], positions - before)
