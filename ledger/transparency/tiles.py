"""Tiles: the files of which a transparency log consists (c2sp.org/tlog-tiles). Pure.

A tile holds 256 hashes of one level, or fewer at the right edge of the tree. Level 0 has the hashes of the leaves; each
hash of level n + 1 is the root of a full tile of level n. A full tile never changes, and a partial one is the beginning
of the wider one that takes its place. Bundles hold the leaves themselves, each behind its length in 16 bits.

A leaf of more than 65,535 bytes fits in no bundle. The ledger records none; earlier versions did, and such a leaf is
in the tree like any other, but its bundle is served in another form at another path (`large-entries`, with lengths of
32 bits), as the specification asks of entries in other formats.
Proved by tests/transparency/test_tiles.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple

from ledger.transparency.merkle import HASH_BYTES, ProofError

TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 1 << TILE_HEIGHT
TILE_BYTES: Final = TILE_WIDTH * HASH_BYTES
LEVEL_MAX: Final = 63
LEAF_BYTES_MAX: Final = 0xFFFF
"""The largest leaf that fits in a bundle."""

BundleKind = Literal["entries", "large-entries"]
_LENGTH_BYTES: Final[dict[BundleKind, int]] = {"entries": 2, "large-entries": 4}
_PATH: Final = re.compile(
    r"tile/(?P<level>0|[1-9][0-9]?|entries|large-entries)"
    r"/(?P<number>(x[0-9]{3}/){0,6}[0-9]{3})(\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


class BadBundle(ProofError):
    """These bytes are no bundle of leaves."""


class Tile(NamedTuple):
    """The `width` hashes with which the tile `number` of a level begins."""

    level: int
    number: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        return f"tile/{self.level}/{_number_path(self.number, self.width)}"

    @property
    def parent(self) -> tuple[int, int, int]:
        """Level and number of the tile that holds the root of this one, and its index there."""
        number, index = divmod(self.number, TILE_WIDTH)
        return self.level + 1, number, index


class EntryBundle(NamedTuple):
    """The leaves of the tile `number` of level 0."""

    number: int
    width: int = TILE_WIDTH
    kind: BundleKind = "entries"

    @property
    def path(self) -> str:
        return f"tile/{self.kind}/{_number_path(self.number, self.width)}"

    @property
    def first(self) -> int:
        """The index of the first leaf."""
        return self.number * TILE_WIDTH


def _number_path(number: int, width: int) -> str:
    groups = [f"{number % 1000:03}"]
    while number := number // 1000:
        groups.insert(0, f"x{number % 1000:03}")
    return "/".join(groups) + ("" if width == TILE_WIDTH else f".p/{width}")


def parse_path(path: str) -> Tile | EntryBundle | None:
    """The tile or bundle that is served at `path`, which begins with `tile/`; None: there is never one."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    number = int(match["number"].replace("x", "").replace("/", ""))
    width = int(match["width"] or TILE_WIDTH)
    if not 1 <= width <= TILE_WIDTH or _number_path(number, width) != path.split("/", 2)[2]:
        # 256 hashes are a full tile, and each number has one spelling.
        return None
    match match["level"]:
        case "entries":
            return EntryBundle(number, width)
        case "large-entries":
            return EntryBundle(number, width, "large-entries")
        case level:
            return Tile(int(level), number, width) if int(level) <= LEVEL_MAX else None


def width_of(size: int, level: int, number: int) -> int:
    """The hashes that the tile has in a tree of `size` leaves; 0: there is no such tile."""
    return max(0, min(TILE_WIDTH, (size >> TILE_HEIGHT * level) - number * TILE_WIDTH))


def right_edge(size: int) -> list[Tile]:
    """The partial tiles of a tree of `size` leaves, one of each level that has one, from level 0 on. Together they hold
    all that the root is made of, and all that the tree needs to grow."""
    edge: list[Tile] = []
    level = 0
    while hashes := size >> TILE_HEIGHT * level:
        number, width = divmod(hashes, TILE_WIDTH)
        if width:
            edge.append(Tile(level, number, width))
        level += 1
    return edge


def tiles_of(size: int, before: int = 0) -> Iterator[Tile]:
    """The tiles of a tree of `size` leaves that a tree of `before` leaves does not have, from level 0 on."""
    level = 0
    while hashes := size >> TILE_HEIGHT * level:
        old = before >> TILE_HEIGHT * level
        if hashes > old:
            for number in range(old // TILE_WIDTH, (hashes + TILE_WIDTH - 1) // TILE_WIDTH):
                yield Tile(level, number, min(TILE_WIDTH, hashes - number * TILE_WIDTH))
        level += 1


def encode_bundle(leaves: Sequence[bytes], kind: BundleKind = "entries") -> bytes:
    """Each leaf behind its length. Raises `BadBundle` if one is too large for this kind of bundle."""
    length_bytes = _LENGTH_BYTES[kind]
    if any(len(leaf) >> 8 * length_bytes for leaf in leaves):
        raise BadBundle(f"a leaf has more than {(1 << 8 * length_bytes) - 1} bytes")
    return b"".join([part for leaf in leaves for part in (len(leaf).to_bytes(length_bytes, "big"), leaf)])


def decode_bundle(content: bytes, kind: BundleKind = "entries") -> list[bytes]:
    """The leaves of a bundle. Raises `BadBundle`."""
    length_bytes = _LENGTH_BYTES[kind]
    leaves: list[bytes] = []
    place, end = 0, len(content)
    while place < end:
        begin = place + length_bytes
        place = begin + int.from_bytes(content[place:begin], "big")
        if begin > end or place > end:
            raise BadBundle("the bundle ends within a leaf")
        leaves.append(content[begin:place])
    return leaves


def split_hashes(content: bytes) -> list[bytes]:
    return [content[place : place + HASH_BYTES] for place in range(0, len(content), HASH_BYTES)]
