"""Single proofs are those of c2sp.org/tlog-proof@v1."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.transparency.checkpoint import Checkpoint
from ledger.transparency.merkle import ProofError, TreeHead
from ledger.transparency.note import BadNote, SigningKey, sign_note
from ledger.transparency.tlog_proof import TlogProof
from tests.support import reference_tree

ORIGIN = "log.example/eu"
KEY = SigningKey(ORIGIN, bytes(32))
DATA = [b"event %d" % number for number in range(13)]
LEAVES = [reference_tree.leaf(one) for one in DATA]
NOTE = bytes(sign_note(Checkpoint(ORIGIN, TreeHead(13, reference_tree.root(LEAVES))).text, [KEY]))


def proof_of(index: int, extra: bytes | None = None) -> TlogProof:
    return TlogProof(index, tuple(reference_tree.path(index, LEAVES)), NOTE, extra)


def test_a_proof_is_a_text_that_stands_alone() -> None:
    content = bytes(proof_of(9))
    assert content.startswith(b"c2sp.org/tlog-proof@v1\nindex 9\n")
    assert content.endswith(b"=\n\n" + NOTE)
    read = TlogProof.parse(content)
    assert read == proof_of(9)
    assert read.verify(DATA[9], ORIGIN, [KEY.verifier]).head.size == 13
    with pytest.raises(ProofError):
        read.verify(DATA[8], ORIGIN, [KEY.verifier])
    extra = TlogProof.parse(bytes(proof_of(0, b"\0more")))
    assert (extra.extra, extra.leaf_index) == (b"\0more", 0)
    extra.verify(DATA[0], ORIGIN, [KEY.verifier])


def test_a_proof_of_the_only_event_has_no_hashes() -> None:
    note = bytes(sign_note(Checkpoint(ORIGIN, TreeHead(1, LEAVES[0])).text, [KEY]))
    content = bytes(TlogProof(0, (), note))
    assert content == b"c2sp.org/tlog-proof@v1\nindex 0\n\n" + note
    TlogProof.parse(content).verify(DATA[0], ORIGIN, [KEY.verifier])


@given(st.data())
@settings(max_examples=80)
def test_a_flipped_bit_anywhere_is_refused(data: st.DataObject) -> None:
    content = bytearray(bytes(proof_of(data.draw(st.integers(0, 12)))))
    index = TlogProof.parse(bytes(content)).leaf_index
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ProofError):
        TlogProof.parse(bytes(content)).verify(DATA[index], ORIGIN, [KEY.verifier])


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "begins with the line"),
        (b"c2sp.org/tlog-proof@v2\nindex 0\n\nx", "begins with the line"),
        (b"c2sp.org/tlog-proof@v1\n\nx", "no line with an index"),
        (b"c2sp.org/tlog-proof@v1\nindex 01\n\nx", "the index is no decimal number"),
        (b"c2sp.org/tlog-proof@v1\nextra !\nindex 0\n\nx", "extra data of the proof is not base64"),
        (b"c2sp.org/tlog-proof@v1\nindex 0\nAAAA\n\nx", "does not have 32 bytes"),
        (b"c2sp.org/tlog-proof@v1\nindex \xff\n\nx", "not UTF-8"),
        (b"c2sp.org/tlog-proof@v1\nindex 0\n" + b"A" * 43 + b"=\n" * 65 + b"\nx", "more than 64 hashes|a hash"),
    ],
)
def test_what_is_no_proof_is_refused(content: bytes, fault: str) -> None:
    with pytest.raises(BadNote, match=fault):
        TlogProof.parse(content)
