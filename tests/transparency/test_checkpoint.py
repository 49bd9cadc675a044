"""Checkpoints are those of c2sp.org/tlog-checkpoint; a real log of Tessera is read and verified."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from ledger.transparency.checkpoint import Checkpoint, SignedCheckpoint
from ledger.transparency.merkle import EMPTY_TREE, TreeHead, verify_consistency
from ledger.transparency.note import BadNote, SigningKey, VerifierKey, sign_note
from ledger.transparency.tile_tree import ProvedTiles
from ledger.transparency.tiles import EntryBundle, Tile, decode_bundle

ORIGIN = "log.example/eu"
KEY = SigningKey(ORIGIN, bytes(32))
ROOT = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="


def test_a_checkpoint_is_read_as_it_was_written() -> None:
    text = f"{ORIGIN}\n20852163\n{ROOT}\ninforce-map {ROOT}\n"
    checkpoint = Checkpoint.parse(text)
    assert (checkpoint.origin, checkpoint.head.size, checkpoint.extensions) == (
        ORIGIN,
        20852163,
        (f"inforce-map {ROOT}",),
    )
    assert checkpoint.text == text
    assert Checkpoint.parse(Checkpoint(ORIGIN, EMPTY_TREE).text).head == EMPTY_TREE


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"{ORIGIN}\n1\n", "three lines or more"),
        (f"{ORIGIN}\n1\n{ROOT}", "three lines or more"),
        (f"\n1\n{ROOT}\n", "none is empty"),
        (f"{ORIGIN}\n1\n{ROOT}\n\nx\n", "none is empty"),
        (f"{ORIGIN}\n01\n{ROOT}\n", "the size is no decimal number"),
        (f"{ORIGIN}\n-1\n{ROOT}\n", "the size is no decimal number"),
        (f"{ORIGIN}\n\N{ARABIC-INDIC DIGIT ONE}\n{ROOT}\n", "the size is no decimal number"),
        (f"{ORIGIN}\n{2**63}\n{ROOT}\n", "the size is no decimal number"),
        (f"{ORIGIN}\n1\n{ROOT[:-1]}\n", "a hash"),
        (f"{ORIGIN}\n1\nAAAA\n", "does not have 32 bytes"),
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str, fault: str) -> None:
    with pytest.raises(BadNote, match=fault):
        Checkpoint.parse(text)


def test_a_checkpoint_of_another_log_or_key_is_refused() -> None:
    content = bytes(sign_note(Checkpoint(ORIGIN, EMPTY_TREE).text, [KEY]))
    assert SignedCheckpoint.verified(content, ORIGIN, [KEY.verifier]).head == EMPTY_TREE
    with pytest.raises(BadNote, match=r"is of the log log\.example/eu, not of log\.example/us"):
        SignedCheckpoint.verified(content, "log.example/us", [KEY.verifier])
    with pytest.raises(BadNote, match="no signature of a known key"):
        SignedCheckpoint.verified(content, ORIGIN, [SigningKey(ORIGIN, bytes([1]) * 32).verifier])


TESSERA_ORIGIN = "example.com/log/testdata"
TESSERA_KEY = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"


def test_the_log_of_tessera_is_verified_and_its_checkpoints_are_consistent(
    real_data: Callable[[str], Path], record_property: Callable[[str, object], None]
) -> None:
    folder = real_data("tlog/tessera-log/checkpoint").parent
    keys = [VerifierKey.parse(TESSERA_KEY)]
    heads: list[TreeHead] = []
    for number in range(16):
        content = (folder / f"checkpoint.{number}").read_bytes()
        signed = SignedCheckpoint.verified(content, TESSERA_ORIGIN, keys)
        assert bytes(signed.note) == content
        heads.append(signed.head)
    newest = SignedCheckpoint.verified((folder / "checkpoint").read_bytes(), TESSERA_ORIGIN, keys).head
    assert [head.size for head in heads] == list(range(16))
    assert heads[-1] == newest

    def read(tiles: Sequence[Tile]) -> Mapping[Tile, bytes]:
        return {tile: (folder / tile.path).read_bytes() for tile in tiles if (folder / tile.path).exists()}

    proofs = 0
    for newer in heads:
        proved = ProvedTiles(read, newer)
        proved.check_root()
        for older in heads:
            if 0 < older.size <= newer.size:
                verify_consistency(older, newer, proved.consistency_proof(older.size))
                proofs += 1
        if newer.size:
            bundle = EntryBundle(0, newer.size)
            leaves = decode_bundle((folder / bundle.path).read_bytes())
            assert len(leaves) == newer.size
            proved.require_leaves(0, leaves)
    record_property("figure", f"Tessera's log: {len(heads)} checkpoints, {proofs} consistency proofs")
