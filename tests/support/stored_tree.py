"""A tree in tiles that are kept in a dict, for tests."""

from collections.abc import Mapping, Sequence

from ledger.transparency.tile_tree import GrowingTree, ProvedTiles
from ledger.transparency.tiles import Tile, right_edge


class StoredTree:
    """`tiles`: (level, number) → the widest form so far, as the ledger's tables keep it."""

    def __init__(self) -> None:
        self.tiles: dict[tuple[int, int], bytes] = {}
        self.size = 0

    def read(self, tiles: Sequence[Tile]) -> Mapping[Tile, bytes]:
        return {tile: self.tiles[tile[:2]] for tile in tiles if tile[:2] in self.tiles}

    def append(self, hashes: Sequence[bytes]) -> GrowingTree:
        tree = GrowingTree(self.size, self.read(right_edge(self.size)))
        tree.append(hashes)
        self.tiles.update({tile[:2]: content for tile, content in tree.changed.items()})
        self.size = tree.size
        return tree

    def proved(self, tree: GrowingTree) -> ProvedTiles:
        return ProvedTiles(self.read, tree.head())
