"""A tree in tiles equals the tree of the definitions, however it grew; and no altered tile goes unnoticed."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.transparency.merkle import TreeHead, verify_consistency, verify_inclusion
from ledger.transparency.tile_tree import BadTile, GrowingTree, ProvedTiles, WrongLeaf, edge_root
from ledger.transparency.tiles import BadBundle, EntryBundle, encode_bundle, right_edge, tiles_of
from tests.support import reference_tree
from tests.support.stored_tree import StoredTree

LEAVES = [reference_tree.leaf(b"%d" % number) for number in range(1000)]


def test_every_size_up_to_300_equals_the_definitions() -> None:
    stored = StoredTree()
    for size in range(1, 301):
        tree = stored.append([LEAVES[size - 1]])
        head = TreeHead(size, reference_tree.root(LEAVES, 0, size))
        assert tree.head() == head
        assert edge_root(size, stored.read(right_edge(size))) == head.root
        proved = stored.proved(tree)
        for index in {0, size // 3, size // 2, size - 1}:
            proof = proved.inclusion_proof(index)
            assert proof == reference_tree.path(index, LEAVES[:size])
            verify_inclusion(LEAVES[index], index, proof, head)
        for older in {1, size // 2 or 1, size - 1 or 1, size}:
            proof = proved.consistency_proof(older)
            assert proof == reference_tree.proof(older, LEAVES[:size])
            root = reference_tree.root(LEAVES, 0, older)
            assert proved.root_of(older) == root
            verify_consistency(TreeHead(older, root), head, proof)


@pytest.mark.parametrize("seed", range(4))
def test_trees_of_up_to_a_million_leaves_equal_the_definitions(seed: int) -> None:
    draw = random.Random(seed)
    size = draw.choice([65_536, 65_537, 1_000_000]) if seed == 0 else draw.randrange(100_000, 400_000)
    leaves = [draw.randbytes(32) for _ in range(size)]
    stored, tree = StoredTree(), GrowingTree(0, {})
    while stored.size < size:
        tree = stored.append(leaves[stored.size : stored.size + draw.choice([1, 255, 256, 257, 10_000, 65_536])])
    root = reference_tree.root(leaves)
    assert tree.head() == TreeHead(size, root)
    assert {(tile.level, tile.number): tile.width * 32 for tile in tiles_of(size)} == {
        place: len(content) for place, content in stored.tiles.items()
    }
    proved = stored.proved(tree)
    for index in (0, size - 1, draw.randrange(size)):
        assert proved.inclusion_proof(index) == reference_tree.path(index, leaves)
    older = draw.randrange(1, size)
    assert proved.consistency_proof(older) == reference_tree.proof(older, leaves)
    assert proved.leaf_hashes(3) == leaves[768:1024]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=8))
@settings(max_examples=30)
def test_it_does_not_matter_in_which_steps_a_tree_grew(steps: list[int]) -> None:
    size = min(sum(steps), 1000)
    stored = StoredTree()
    for step in steps:
        stored.append(LEAVES[stored.size : min(stored.size + step, size)])
    at_once = StoredTree()
    at_once.append(LEAVES[:size])
    assert stored.tiles == at_once.tiles


def tree_of(size: int) -> tuple[StoredTree, ProvedTiles]:
    stored = StoredTree()
    tree = stored.append([reference_tree.leaf(b"%d" % number) for number in range(size)])
    return stored, stored.proved(tree)


@given(st.data())
@settings(max_examples=60)
def test_a_flipped_bit_of_any_tile_is_found_and_located(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([1, 5, 255, 256, 257, 700, 66_000]))
    stored, _ = tree_of(size)
    head = TreeHead(size, edge_root(size, stored.read(right_edge(size))))
    place = data.draw(st.sampled_from(sorted(stored.tiles)))
    content = bytearray(stored.tiles[place])
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    stored.tiles[place] = bytes(content)
    proved = ProvedTiles(stored.read, head)
    with pytest.raises(BadTile) as error:
        proved.tile(*place)
    edge = {tile[:2] for tile in right_edge(size)}
    assert error.value.tile[:2] == place or (place in edge and error.value.tile[:2] in edge)
    if place in edge:
        with pytest.raises(BadTile):
            proved.check_root()


def test_a_missing_or_short_tile_is_named() -> None:
    stored, proved = tree_of(700)
    whole = stored.tiles.pop((0, 1))
    with pytest.raises(BadTile, match="tile/0/001 is missing"):
        proved.inclusion_proof(300)
    stored.tiles[0, 1] = whole[:-1]
    with pytest.raises(BadTile, match="tile/0/001 has 8191 bytes, and 8192 are needed"):
        proved.inclusion_proof(300)
    del stored.tiles[0, 2]
    with pytest.raises(BadTile, match=r"tile/0/002\.p/188 is missing"):
        GrowingTree(700, stored.read(right_edge(700)))


def test_another_leaf_is_located() -> None:
    _, proved = tree_of(300)
    leaves = [b"%d" % number for number in range(256, 300)]
    proved.require_leaves(1, leaves)
    leaves[7] = b"another"
    with pytest.raises(WrongLeaf, match="leaf 263 is not the one"):
        proved.require_leaves(1, leaves)


@given(st.data())
@settings(max_examples=80)
def test_a_flipped_bit_of_a_bundle_is_found(data: st.DataObject) -> None:
    _, proved = tree_of(300)
    bundle = data.draw(st.sampled_from([EntryBundle(0), EntryBundle(1, 44), EntryBundle(1, 7)]))
    leaves = [b"%d" % number for number in range(bundle.first, bundle.first + bundle.width)]
    content = bytearray(encode_bundle(leaves))
    assert proved.require_bundle(bundle, bytes(content)) == leaves
    with pytest.raises(BadBundle, match="leaves"):
        proved.require_bundle(bundle, encode_bundle(leaves[:-1]))
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((BadBundle, WrongLeaf)):
        proved.require_bundle(bundle, bytes(content))


def test_there_is_nothing_beyond_the_tree() -> None:
    _, proved = tree_of(300)
    for ask in (lambda: proved.tile(0, 2), lambda: proved.tile(2, 0), lambda: proved.inclusion_proof(300)):
        with pytest.raises(LookupError):
            ask()
    for older in (0, 301):
        with pytest.raises(LookupError):
            proved.consistency_proof(older)


def test_full_tiles_are_read_once_and_compared_with_each_new_head() -> None:
    stored, proved = tree_of(700)
    proved.inclusion_proof(10)
    grown = stored.append([reference_tree.leaf(b"more")])
    before = stored.tiles.pop((0, 0))
    proved.move_to(grown.head())
    assert len(proved.inclusion_proof(10)) == 10
    stored.tiles[0, 0] = before
    forked = StoredTree()
    proved.move_to(forked.append([reference_tree.leaf(b"x")] * 800).head())
    with pytest.raises(BadTile):
        proved.inclusion_proof(10)
