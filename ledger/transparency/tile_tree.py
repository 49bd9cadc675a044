"""A Merkle tree that is stored as tiles: growing it, proving each tile, and making proofs from the tiles. Pure.

A tile is believed only once it is proved: those of the right edge together, because they give the root of the tree; a
full one because its root stands in the tile above. So no proof is made from a tile that was altered where it is stored,
and the tile that was is named.
Proved by tests/transparency/test_tile_tree.py.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from ledger.transparency.merkle import (
    EMPTY_TREE,
    HASH_BYTES,
    ProofError,
    TreeHead,
    fold_left,
    leaf_hash,
    node_hash,
)
from ledger.transparency.tiles import (
    TILE_HEIGHT,
    TILE_WIDTH,
    BadBundle,
    EntryBundle,
    Tile,
    decode_bundle,
    right_edge,
    split_hashes,
    width_of,
)

CACHED_TILES: Final = 512
"""Some 30 kB each, with the nodes inside."""

Range = tuple[int, int]
"""The leaves with start <= index < end."""
ReadTiles = Callable[[Sequence[Tile]], Mapping[Tile, bytes]]
"""The stored bytes of tiles: at least their width. A tile that is not stored is left out."""


class BadTile(ProofError):
    """A tile is missing, or is not the one of this tree."""

    def __init__(self, tile: Tile, fault: str) -> None:
        super().__init__(f"{tile.path} {fault}")
        self.tile = tile


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """The ranges of leaves whose roots are the inclusion proof, in its order."""
    return _siblings(index, size - 1, 0, size)


def consistency_ranges(older: int, newer: int) -> list[Range]:
    """The ranges of leaves whose roots are the consistency proof of two sizes, in its order; 0 < older <= newer."""
    if older == newer:
        return []
    first, last, height = older - 1, newer - 1, 0
    while first & 1:
        first, last, height = first >> 1, last >> 1, height + 1
    known = [(first << height, (first + 1) << height)] if first else []
    return known + _siblings(first, last, height, newer)


def _siblings(first: int, last: int, height: int, size: int) -> list[Range]:
    ranges: list[Range] = []
    while last:
        if first & 1:
            ranges.append(((first - 1) << height, first << height))
        elif first < last:
            ranges.append(((first + 1) << height, min((first + 2) << height, size)))
        first, last, height = first >> 1, last >> 1, height + 1
    return ranges


def complete_subtrees(start: int, end: int) -> list[tuple[int, int]]:
    """(height, number) of the complete subtrees that the leaves of a range form, from left to right. `start` must be a
    multiple of the smallest power of two that is not below the length."""
    subtrees: list[tuple[int, int]] = []
    while start < end:
        height = (end - start).bit_length() - 1
        subtrees.append((height, start >> height))
        start += 1 << height
    return subtrees


class TileNodes(NamedTuple):
    """The complete nodes of a tile: `rows[height][number]`."""

    rows: list[list[bytes]]

    @classmethod
    def of(cls, hashes: list[bytes]) -> TileNodes:
        rows = [hashes]
        while len(hashes) > 1:
            pairs = zip(hashes[::2], hashes[1::2], strict=False)
            hashes = [node_hash(left, right) for left, right in pairs]
            rows.append(hashes)
        return cls(rows)

    @property
    def root(self) -> bytes:
        """Of a full tile."""
        return self.rows[TILE_HEIGHT][0]


class GrowingTree:
    """A tree that takes more leaves. It needs the right edge of the tree so far, and collects the tiles that change."""

    def __init__(self, size: int, edge: Mapping[Tile, bytes]) -> None:
        """Raises `BadTile` if a tile of the right edge is missing or short."""
        self.size = size
        self.changed: dict[Tile, bytes] = {}
        self._partial: list[list[bytes]] = []
        """The hashes of the partial tile of each level."""
        self._numbers: list[int] = []
        for tile in right_edge(size):
            self._reach(tile.level, size)
            self._partial[tile.level] = split_hashes(_require_width(tile, edge.get(tile)))
        self._reach(max(0, (size.bit_length() - 1) // TILE_HEIGHT), size)

    def _reach(self, level: int, size: int) -> None:
        while len(self._partial) <= level:
            self._numbers.append(size >> TILE_HEIGHT * (len(self._partial) + 1))
            self._partial.append([])

    def append(self, hashes: Sequence[bytes]) -> None:
        """Adds leaves, by their hashes."""
        grown: set[int] = set()
        place = 0
        while place < len(hashes):
            room = TILE_WIDTH - len(self._partial[0])
            self._partial[0] += hashes[place : place + room]
            place += room
            grown.add(0)
            self._carry(grown)
        self.size += len(hashes)
        for level in grown:
            partial = self._partial[level]
            if partial:
                self.changed[Tile(level, self._numbers[level], len(partial))] = b"".join(partial)

    def _carry(self, grown: set[int]) -> None:
        """Passes the root of each full tile to the level above."""
        level = 0
        while len(self._partial[level]) == TILE_WIDTH:
            full = self._partial[level]
            self.changed[Tile(level, self._numbers[level])] = b"".join(full)
            self._partial[level] = []
            self._numbers[level] += 1
            if len(self._partial) == level + 1:
                self._numbers.append(0)
                self._partial.append([])
            self._partial[level + 1].append(TileNodes.of(full).root)
            level += 1
            grown.add(level)

    def head(self) -> TreeHead:
        edge = {
            Tile(level, self._numbers[level], len(hashes)): hashes
            for level, hashes in enumerate(self._partial)
            if hashes
        }
        return TreeHead(self.size, _root(self.size, {tile: TileNodes.of(hashes) for tile, hashes in edge.items()}))


def edge_root(size: int, edge: Mapping[Tile, bytes]) -> bytes:
    """The root of a tree, from its right edge. Raises `BadTile` if one of the edge's tiles is missing or short."""
    nodes = {tile: TileNodes.of(split_hashes(_require_width(tile, edge.get(tile)))) for tile in right_edge(size)}
    return _root(size, nodes)


def _root(size: int, edge: Mapping[Tile, TileNodes]) -> bytes:
    by_place = {(tile.level, tile.number): nodes for tile, nodes in edge.items()}
    subtrees = complete_subtrees(0, size)
    return fold_left(_node(by_place, height, number) for height, number in reversed(subtrees))


def _place(height: int, number: int) -> tuple[int, int, int, int]:
    """Where the node stands: level and number of its tile, and its row and index there."""
    level, row = divmod(height, TILE_HEIGHT)
    tile, index = divmod(number << row, TILE_WIDTH)
    return level, tile, row, index >> row


def _node(nodes: Mapping[tuple[int, int], TileNodes], height: int, number: int) -> bytes:
    level, tile, row, index = _place(height, number)
    return nodes[level, tile].rows[row][index]


def _require_width(tile: Tile, content: bytes | None) -> bytes:
    if content is None:
        raise BadTile(tile, "is missing")
    if len(content) < tile.width * HASH_BYTES:
        raise BadTile(tile, f"has {len(content)} bytes, and {tile.width * HASH_BYTES} are needed")
    return content[: tile.width * HASH_BYTES]


class _Proved(NamedTuple):
    content: bytes
    nodes: TileNodes


class ProvedTiles:
    """The tiles of the tree with one head, each proved before it is used. For one thread at a time.

    A full tile that was proved is kept for later heads of the same log, and compared with the tile above it again.
    """

    def __init__(self, read: ReadTiles, head: TreeHead = EMPTY_TREE) -> None:
        self._read = read
        self._head = head
        self._edge: dict[tuple[int, int], _Proved] | None = None
        self._full: OrderedDict[tuple[int, int], _Proved] = OrderedDict()

    @property
    def head(self) -> TreeHead:
        return self._head

    def move_to(self, head: TreeHead) -> None:
        """Goes on with another head of the same log."""
        if head != self._head:
            self._head, self._edge = head, None

    def tile(self, level: int, number: int) -> bytes:
        """The hashes of a tile: as many as this tree has. Raises `BadTile`, and `LookupError` if it has no such
        tile."""
        return self._proved(level, number).content

    def check_root(self) -> None:
        """Raises `BadTile` unless the tiles at the right edge give the root."""
        if self._head.size:
            self._proved_edge()
        elif self._head != EMPTY_TREE:
            raise ProofError("a tree without leaves has another root")

    def leaf_hashes(self, number: int) -> list[bytes]:
        """The hashes of the leaves of a bundle. Raises as `tile`."""
        return self._proved(0, number).nodes.rows[0]

    def require_leaves(self, number: int, leaves: Sequence[bytes]) -> None:
        """Raises `WrongLeaf` unless these are the leaves with which the bundle `number` begins."""
        for index, (leaf, expected) in enumerate(zip(leaves, self.leaf_hashes(number), strict=False)):
            if leaf_hash(leaf) != expected:
                raise WrongLeaf(number * TILE_WIDTH + index)

    def require_bundle(self, bundle: EntryBundle, content: bytes) -> list[bytes]:
        """The leaves of a bundle, from its bytes. Raises `BadBundle`, and as `require_leaves`."""
        leaves = decode_bundle(content, bundle.kind)
        if len(leaves) != bundle.width:
            raise BadBundle(f"{bundle.path} holds {len(leaves)} leaves")
        self.require_leaves(bundle.number, leaves)
        return leaves

    def root_of(self, size: int) -> bytes:
        """The root that the tree had at an earlier size."""
        return self._range_root((0, size))

    def inclusion_proof(self, index: int) -> list[bytes]:
        """Raises `BadTile`, and `LookupError` if the tree has no such leaf."""
        if not 0 <= index < self._head.size:
            raise LookupError(index)
        return [self._range_root(one) for one in inclusion_ranges(index, self._head.size)]

    def consistency_proof(self, older: int) -> list[bytes]:
        """The proof that a tree of `older` leaves is the beginning of this one; 0 < older <= size. Raises `BadTile`."""
        if not 0 < older <= self._head.size:
            raise LookupError(older)
        return [self._range_root(one) for one in consistency_ranges(older, self._head.size)]

    def _range_root(self, leaves: Range) -> bytes:
        return fold_left(self._node(*one) for one in reversed(complete_subtrees(*leaves)))

    def _node(self, height: int, number: int) -> bytes:
        level, tile, row, index = _place(height, number)
        return self._proved(level, tile).nodes.rows[row][index]

    def _proved(self, level: int, number: int) -> _Proved:
        width = width_of(self._head.size, level, number)
        if width == 0:
            raise LookupError(f"tile {number} of level {level}")
        if width < TILE_WIDTH:
            return self._proved_edge()[level, number]
        key = (level, number)
        tile = Tile(level, number)
        proved = self._full.get(key)
        if proved is None:
            content = _require_width(tile, self._read([tile]).get(tile))
            proved = _Proved(content, TileNodes.of(split_hashes(content)))
        above, above_number, index = tile.parent
        if self._proved(above, above_number).nodes.rows[0][index] != proved.nodes.root:
            self._full.pop(key, None)
            raise BadTile(tile, f"is not the one whose root stands in the tile {above_number} of level {above}")
        self._full[key] = proved
        self._full.move_to_end(key)
        if len(self._full) > CACHED_TILES:
            self._full.popitem(last=False)
        return proved

    def _proved_edge(self) -> dict[tuple[int, int], _Proved]:
        if self._edge is None:
            size = self._head.size
            tiles = right_edge(size)
            stored = self._read(tiles)
            contents = {tile: _require_width(tile, stored.get(tile)) for tile in tiles}
            nodes = {tile: TileNodes.of(split_hashes(content)) for tile, content in contents.items()}
            if _root(size, nodes) != self._head.root:
                raise BadTile(tiles[0], f"and the others at the right edge do not give the root of {size} leaves")
            self._edge = {(tile.level, tile.number): _Proved(contents[tile], nodes[tile]) for tile in tiles}
        return self._edge


class WrongLeaf(ProofError):
    """A leaf is not the one that the tree has at its index."""

    def __init__(self, index: int) -> None:
        super().__init__(f"leaf {index} is not the one that the tree has there")
        self.index = index
