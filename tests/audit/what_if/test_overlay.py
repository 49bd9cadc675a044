"""The overlaid index equals the index of a ledger that really holds the changes."""

import io
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st

from ledger.errors import BadInput
from projections.audit.index.reference import compile_by_fold
from projections.audit.index.schema import PolicyIndex
from projections.audit.what_if.overlay import overlay
from projections.audit.what_if.placement import place_proposals
from projections.audit.what_if.proposals import read_proposals
from projections.temporal.coordinates import KnownAt
from tests.audit.index.canonical import assert_sound, canonical
from tests.audit.what_if.copying import changed_copy
from tests.audit.what_if.worlds import World
from tests.support.ledgers import NOW, open_with_clock


def contents(index: PolicyIndex) -> dict[str, Any]:
    """The index without its leaf hash, which only the copy has."""
    return canonical(index) | {"pin": index.pin._replace(leaf_hash=None)}


@settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(st.randoms(use_true_random=False), st.integers(0, 25), st.integers(1, 6), st.sampled_from(["at", None, 0]))
def test_the_overlaid_index_is_the_index_of_the_changed_ledger(
    random: Random, submissions: int, count: int, axis: KnownAt
) -> None:
    with tempfile.TemporaryDirectory() as place:
        ledger, clock = open_with_clock(f"sqlite:///{Path(place, 'ledger.db')}")
        with ledger:
            world = World(random, ledger, clock, submissions)
            first_request = NOW + random.randrange(-5, 30)
            lines, changes = world.proposals(count, first_request)
            copy = changed_copy(ledger, f"sqlite:///{Path(place, 'copy.db')}", changes)
            with copy.ledger:
                known_at = max(one.moment for one in changes) + random.randrange(3) if axis == 0 else axis
                index = compile_by_fold(ledger, known_at)
                before = canonical(index)
                try:
                    placed = place_proposals(
                        ledger, index.pin, read_proposals(io.BytesIO(lines)), first_request, known_at
                    )
                except BadInput:
                    event("refused")
                    assert not copy.imported, "the ledger would have accepted it"
                    return
                event(f"imported: {copy.imported}")
                changed = overlay(index, placed)
                assert_sound(changed)
                assert contents(changed) == contents(compile_by_fold(copy.ledger, known_at))
                assert canonical(index) == before, "the index itself does not change"
                shown = placed.numbering.shown(placed.numbering.moved(index.since * 0 + range(len(index.since))))
                assert shown.tolist() == list(range(len(index.since)))
