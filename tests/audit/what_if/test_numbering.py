"""Positions with proposals between them: moved, and moved back."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from projections.audit.what_if.numbering import Numbering


@given(st.lists(st.integers(1, 12), max_size=6).map(sorted))
def test_positions_are_places_in_one_list_of_events_and_proposals(after: list[int]) -> None:
    together: list[int] = []
    for position in range(1, 13):
        together.append(position)
        together += [-100 - place for place, behind in enumerate(after) if behind == position]
    numbering = Numbering(after, [100 + place for place in range(len(after))])
    own = np.arange(1, 13)
    assert numbering.moved(own).tolist() == [together.index(position) + 1 for position in range(1, 13)]
    assert numbering.shown(np.arange(1, len(together) + 1)).tolist() == together
    assert numbering.moved(np.array([0, 13, 2**61])).tolist() == [0, 13 + len(after), 2**61 + len(after)]


@pytest.mark.parametrize("kind", [np.uint32, np.int64])
def test_the_type_stays_and_an_array_that_does_not_move_is_not_copied(kind: type) -> None:
    numbering = Numbering([5, 5], [1, 2])
    still: NDArray[Any] = np.array([[0, 5], [3, 4]], kind)
    moving: NDArray[Any] = np.array([[0, 6], [3, 4]], kind)
    assert numbering.moved(still) is still
    assert numbering.moved(moving).tolist() == [[0, 8], [3, 4]]
    assert numbering.moved(moving).dtype == kind
    assert moving.tolist() == [[0, 6], [3, 4]]
