"""Proofs are verified as the vectors of transparency-dev/merkle say, and as the definitions of RFC 6962."""

import base64
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.transparency.merkle import (
    EMPTY_ROOT,
    EMPTY_TREE,
    ProofError,
    TreeHead,
    index_of,
    leaf_hash,
    node_hash,
    position_of,
    verify_consistency,
    verify_inclusion,
    verify_subtree_consistency,
    verify_subtree_inclusion,
)
from tests.support import reference_tree


def verify(vector: dict[str, Any]) -> None:
    def decoded(name: str) -> bytes:
        return base64.b64decode(vector[name])

    proof = [base64.b64decode(one) for one in vector["proof"] or ()]
    match vector["kind"]:
        case "inclusion":
            head = TreeHead(vector["treeSize"], decoded("root"))
            verify_inclusion(decoded("leafHash"), vector["leafIdx"], proof, head)
        case "consistency":
            older, newer = TreeHead(vector["size1"], decoded("root1")), TreeHead(vector["size2"], decoded("root2"))
            verify_consistency(older, newer, proof)
        case "subtreeinclusion":
            subtree = (vector["start"], vector["end"])
            verify_subtree_inclusion(decoded("leafHash"), vector["leafIdx"], proof, subtree, decoded("root"))
        case "subtreeconsistency":
            tree = TreeHead(vector["size"], decoded("root2"))
            verify_subtree_consistency((vector["start"], vector["end"]), decoded("root1"), tree, proof)
        case kind:
            raise AssertionError(kind)


def test_the_vectors_are_refused_exactly_where_they_should_be(
    real_data: Callable[[str], Path], record_property: Callable[[str, object], None]
) -> None:
    vectors = [json.loads(line) for line in real_data("tlog/merkle-vectors.jsonl").read_text().splitlines()]
    assert len(vectors) == 518
    wrong = []
    for vector in vectors:
        try:
            verify(vector)
            refused = False
        except ProofError:
            refused = True
        if refused != vector["wantErr"]:
            wrong.append(vector["file"])
    assert wrong == []
    kinds = Counter((vector["kind"], vector["wantErr"]) for vector in vectors)
    record_property(
        "figure", f"Merkle vectors: {len(vectors)}, {sum(n for (_, bad), n in kinds.items() if bad)} refused"
    )


LEAVES = [reference_tree.leaf(b"leaf %d" % number) for number in range(300)]


def head(size: int) -> TreeHead:
    return TreeHead(size, reference_tree.root(LEAVES, 0, size))


def test_hashes_are_those_of_the_definitions() -> None:
    assert leaf_hash(b"leaf 0") == LEAVES[0]
    assert node_hash(LEAVES[0], LEAVES[1]) == reference_tree.root(LEAVES, 0, 2)
    assert TreeHead(0, reference_tree.root([])) == EMPTY_TREE
    assert (index_of(1), position_of(0)) == (0, 1)


@pytest.mark.parametrize("size", [*range(1, 40), 63, 64, 65, 255, 256, 257, 300])
def test_every_inclusion_proof_of_a_tree_is_verified(size: int) -> None:
    tree = head(size)
    for index in range(size) if size < 70 else (0, 1, 127, 128, size // 2, size - 2, size - 1):
        proof = reference_tree.path(index, LEAVES[:size])
        verify_inclusion(LEAVES[index], index, proof, tree)
        for other in {max(0, index - 1), index + 1} - {index}:
            with pytest.raises(ProofError):
                verify_inclusion(LEAVES[index], other, proof, tree)


@pytest.mark.parametrize("size", [*range(1, 40), 63, 64, 65, 255, 256, 257, 300])
def test_every_consistency_proof_of_a_tree_is_verified(size: int) -> None:
    tree = head(size)
    for older in range(1, size + 1) if size < 70 else (1, 2, 127, 128, 129, size - 1, size):
        proof = reference_tree.proof(older, LEAVES[:size])
        verify_consistency(head(older), tree, proof)
        for wrong in {older - 1, older + 1} - {0}:
            with pytest.raises(ProofError):
                verify_consistency(TreeHead(wrong, head(older).root), tree, proof)


@given(st.data())
def test_an_altered_proof_is_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 300))
    index = data.draw(st.integers(0, size - 1))
    proof = reference_tree.path(index, LEAVES[:size])
    harm = data.draw(st.sampled_from(["flip", "drop", "add", "swap"]))
    place = data.draw(st.integers(0, len(proof) - 1))
    if harm == "flip":
        bit = data.draw(st.integers(0, 255))
        proof[place] = (int.from_bytes(proof[place], "big") ^ 1 << bit).to_bytes(32, "big")
    elif harm == "drop":
        del proof[place]
    elif harm == "add":
        proof.insert(place, random.Random(place).randbytes(32))
    elif len(proof) > 1:
        proof[place], proof[place - 1] = proof[place - 1], proof[place]
    else:
        proof.append(proof[0])
    with pytest.raises(ProofError):
        verify_inclusion(LEAVES[index], index, proof, head(size))


def test_nothing_is_in_a_tree_without_leaves() -> None:
    with pytest.raises(ProofError, match="leaf 0 is not in a tree"):
        verify_inclusion(LEAVES[0], 0, [], EMPTY_TREE)
    with pytest.raises(ProofError, match="empty tree is consistent with every tree"):
        verify_consistency(EMPTY_TREE, head(3), [])
    verify_subtree_consistency((0, 0), EMPTY_ROOT, EMPTY_TREE, [])
