"""The Merkle tree of RFC 6962, section 2.1: its hashes, and the verification of proofs. Pure and iterative.

A tree of `size` leaves is determined by the leaves alone. An inclusion proof shows that a leaf is in it, a consistency
proof that an older tree is its beginning. A subtree [start, end) is the part of a tree whose start is a multiple of the
smallest power of two that is not below its length (draft-ietf-plants-merkle-tree-certs): a whole tree is [0, size). So
one algorithm verifies proofs about trees and about subtrees.
Proved by tests/transparency/test_merkle.py, with the vectors of transparency-dev/merkle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

_sha256: Final = hashlib.sha256
HASH_BYTES: Final = 32
EMPTY_ROOT: Final = _sha256(b"").digest()
"""The root of a tree without leaves."""


class TreeHead(NamedTuple):
    """A tree: its number of leaves, and its root."""

    size: int
    root: bytes


EMPTY_TREE: Final = TreeHead(0, EMPTY_ROOT)


class ProofError(Exception):
    """A proof does not prove what it should. The message says why."""


def leaf_hash(leaf: bytes) -> bytes:
    return _sha256(b"\0" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return _sha256(b"\1" + left + right).digest()


def index_of(position: int) -> int:
    """The leaf index of the event at `position`: leaves count from 0, positions from 1."""
    return position - 1


def position_of(index: int) -> int:
    """The position of the event whose leaf has this index."""
    return index + 1


def fold_left(hashes: Iterable[bytes]) -> bytes:
    """The root over adjacent complete subtrees, the smallest of which come first: from the right edge to the left."""
    root = b""
    for subtree in hashes:
        root = node_hash(subtree, root) if root else subtree
    return root or EMPTY_ROOT


def verify_inclusion(leaf: bytes, index: int, proof: Sequence[bytes], head: TreeHead) -> None:
    """`leaf`: the leaf's hash. Raises `ProofError` unless it is the one at `index` in the tree of `head`."""
    verify_subtree_inclusion(leaf, index, proof, (0, head.size), head.root)


def verify_subtree_inclusion(
    leaf: bytes, index: int, proof: Sequence[bytes], subtree: tuple[int, int], root: bytes
) -> None:
    """As `verify_inclusion`, in the subtree [start, end) that has this root."""
    start, end = subtree
    if not _is_subtree(start, end) or not start <= index < end:
        raise ProofError(f"leaf {index} is not in a tree with the leaves from {start} to {end}")
    _require_hashes([leaf, *proof])
    first, last, computed = index - start, end - start - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ProofError("the inclusion proof is too long")
        if first & 1 or first == last:
            computed = node_hash(sibling, computed)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        first, last = first >> 1, last >> 1
    if last:
        raise ProofError("the inclusion proof is too short")
    _require_root("inclusion", computed, root)


def verify_consistency(older: TreeHead, newer: TreeHead, proof: Sequence[bytes]) -> None:
    """Raises `ProofError` unless the older tree is the beginning of the newer one. A proof about an empty tree would
    say nothing, so there is none."""
    if older.size == 0:
        raise ProofError("an empty tree is consistent with every tree, so there is no proof of it")
    verify_subtree_consistency((0, older.size), older.root, newer, proof)


def verify_subtree_consistency(
    subtree: tuple[int, int], subtree_root: bytes, tree: TreeHead, proof: Sequence[bytes]
) -> None:
    """Raises `ProofError` unless the subtree [start, end) with this root is a part of the tree."""
    start, end = subtree
    if not 0 <= start <= end <= tree.size or not (start == end or _is_subtree(start, end)):
        raise ProofError(f"the leaves from {start} to {end} are no part of a tree of {tree.size} leaves")
    _require_hashes(proof)
    if start == end:
        if proof:
            raise ProofError("the proof about a subtree without leaves is not empty")
        _require_root("subtree", subtree_root, EMPTY_ROOT)
        return
    first, last, edge = start, end - 1, tree.size - 1
    while first != last and (last == edge or last & 1):
        first, last, edge = first >> 1, last >> 1, edge >> 1
    if first != last and not proof:
        raise ProofError("the consistency proof is empty")
    # Where the subtree is complete, the proof need not begin with it.
    known, *rest = proof if first != last else (subtree_root, *proof)
    in_subtree, in_tree = _climb(known, rest, first, last, edge)
    _require_root("older tree", in_subtree, subtree_root)
    _require_root("newer tree", in_tree, tree.root)


def _climb(known: bytes, rest: Sequence[bytes], first: int, last: int, edge: int) -> tuple[bytes, bytes]:
    """The roots of the subtree and of the tree by the proof. `first`, `last`: the numbers of the subtree's outer nodes
    at the height of `known`, the node `last`; `edge`: that of the tree's last node."""
    in_subtree = in_tree = known
    for sibling in rest:
        if edge == 0:
            raise ProofError("the consistency proof is too long")
        if last & 1 or last == edge:
            if first < last:
                in_subtree = node_hash(sibling, in_subtree)
            in_tree = node_hash(sibling, in_tree)
            while not last & 1 and last:
                first, last, edge = first >> 1, last >> 1, edge >> 1
        else:
            in_tree = node_hash(in_tree, sibling)
        first, last, edge = first >> 1, last >> 1, edge >> 1
    if edge:
        raise ProofError("the consistency proof is too short")
    return in_subtree, in_tree


def _is_subtree(start: int, end: int) -> bool:
    return 0 <= start < end and start % (1 << (end - start - 1).bit_length()) == 0


def _require_hashes(hashes: Iterable[bytes]) -> None:
    if any(len(one) != HASH_BYTES for one in hashes):
        raise ProofError(f"a hash of the proof does not have {HASH_BYTES} bytes")


def _require_root(of: str, computed: bytes, root: bytes) -> None:
    if computed != root:
        raise ProofError(f"the root of the {of} is {computed.hex()} by the proof, and should be {root.hex()}")
