"""The index of secrets finds what a dict finds, however many are merged."""

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.access import secret_index
from projections.access.secret_index import SecretIndex

PREFIXES = st.integers(0, 5) | st.sampled_from([2**64 - 1, 2**63])


@given(st.lists(PREFIXES, max_size=60), st.integers(1, 7))
def test_it_finds_the_positions_of_a_prefix_oldest_first(prefixes: list[int], merged_at: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secret_index, "MERGED_AT", merged_at)
        index = SecretIndex()
        oracle: dict[int, list[int]] = {}
        for position, prefix in enumerate(prefixes, 1):
            index.add(prefix.to_bytes(8, "big") + bytes(24), position)
            oracle.setdefault(prefix, []).append(position)
        assert len(index) == len(prefixes)
        for prefix in {*range(7), 2**64 - 1, 2**63, 2**64 - 2}:
            assert index.find(prefix.to_bytes(8, "big") + bytes(24)) == oracle.get(prefix, [])


def test_a_hundred_thousand_hashes_take_sixteen_bytes_each() -> None:
    index = SecretIndex()
    digests = [hashlib.sha256(random.Random(seed).randbytes(8)).digest() for seed in range(100_000)]
    for position, digest in enumerate(digests):
        index.add(digest, position)
    assert all(index.find(digest) == [position] for position, digest in enumerate(digests))
    prefixes, positions = index._sorted
    assert prefixes.itemsize + positions.itemsize == 16
    assert len(index) - len(prefixes) < max(secret_index.MERGED_AT, len(prefixes) // 16 + 1)
