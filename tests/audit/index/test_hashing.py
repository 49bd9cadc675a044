"""The Python and the compiled hash are the same function, wherever the id's bytes stand."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from projections.audit.index import hashing
from projections.audit.index.hashing import KIND_SEEDS, hash_id, hash_ids
from projections.audit.numba_support import AVAILABLE

Ids = list[tuple[int, bytes]]
KINDS = st.integers(0, len(KIND_SEEDS) - 1)
EVERY_LENGTH: Ids = [(length % 6, b"abcdefgh\xff\x00\x01 xyz"[:length]) for length in range(18)]


def concatenate(ids: Ids, gap: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(kinds, buffer, starts, lengths): the ids with `gap` before each, and nothing after the last one."""
    buffer, starts = b"", []
    for _, id_ in ids:
        buffer += gap
        starts.append(len(buffer))
        buffer += id_
    kinds = np.array([kind for kind, _ in ids], np.uint8)
    lengths = np.array([len(id_) for _, id_ in ids], np.int64)
    return kinds, np.frombuffer(buffer, np.uint8), np.array(starts, np.int64), lengths


@given(st.lists(st.tuples(KINDS, st.binary(max_size=40))), st.binary(max_size=9))
@example(EVERY_LENGTH, b"")
@example(EVERY_LENGTH, b"\xff" * 9)
def test_hashing_many_equals_hashing_each(ids: Ids, gap: bytes) -> None:
    arrays = concatenate(ids, gap)
    expected = [hash_id(kind, id_) for kind, id_ in ids]
    assert hash_ids(*arrays).tolist() == expected
    assert hash_ids(*arrays, compiled=False).tolist() == expected


@pytest.mark.skipif(not AVAILABLE, reason="Numba is not installed, so nothing is compiled")
def test_the_compiled_hash_is_the_same() -> None:
    kinds, buffer, starts, lengths = concatenate(EVERY_LENGTH, b"\xfe")
    hashes = [
        int(hashing._hash_at(int(kind), buffer, int(start), int(length)))
        for kind, start, length in zip(kinds, starts, lengths, strict=True)
    ]
    assert hashes == [hash_id(kind, id_) for kind, id_ in EVERY_LENGTH]


def test_the_kind_the_length_and_every_byte_change_the_hash() -> None:
    ids = [(kind, id_) for kind in range(6) for id_ in (b"", b"\x00", b"\x00\x00", b"a", b"a\x00", b"aaaaaaaa", b"b")]
    ids += [(0, b"x" * 8 + bytes([byte])) for byte in range(256)]
    hashes = {hash_id(kind, id_) for kind, id_ in ids}
    assert len(hashes) == len(ids)
    assert all(0 <= one < 2**64 for one in hashes)


def test_it_is_the_hash_of_stored_indexes() -> None:
    """A different hash would need a new format of the index."""
    assert [hash_id(1, b"acme"), hash_id(0, b""), hash_id(5, "zürich/modell-7".encode())] == STORED


STORED = [0x1EBD047E4C42E60C, 0x36DA2EE1952CD922, 0x32D78C6911AC9B27]
