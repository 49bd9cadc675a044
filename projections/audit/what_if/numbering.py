"""Where proposals stand among the events, and how both are numbered then.

A proposal stands behind the last event that was recorded by its moment, so all events after it move up by one.
Positions are compared, to tell enforcement lag: so the second index is numbered as a ledger would be in which the
proposals stand, and so is the position that a gateway enforced. It had enforced what is recorded before its event
there, proposals too, and none of those behind. What is shown has the ledger's own positions. Pure.
Proved by tests/audit/what_if/test_numbering.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]


class Numbering:
    """`after`: of each proposal the position behind which it stands, never falling. `lines`: which line it is."""

    def __init__(self, after: Sequence[int], lines: Sequence[int]) -> None:
        self.after: Positions = np.array(after, np.int64)
        self.lines: Positions = np.array(lines, np.int64)
        self.places: Positions = self.after + np.arange(1, len(after) + 1)
        """The positions of the proposals."""

    def moved(self, positions: NDArray[Any]) -> NDArray[Any]:
        """The ledger's own positions, of any integer type, as numbered with the proposals. 0 stays 0."""
        if not len(positions) or not len(self.after) or positions.max() <= self.after[0]:
            return positions
        moved: NDArray[Any] = positions + np.searchsorted(self.after, positions).astype(positions.dtype)
        return moved

    def shown(self, positions: Positions) -> Positions:
        """The other way round; a proposal is its line's number, negative."""
        if not len(self.places):
            return positions
        before = np.searchsorted(self.places, positions)
        at = np.minimum(before, len(self.places) - 1)
        return np.where(self.places[at] == positions, -self.lines[at], positions - before)
