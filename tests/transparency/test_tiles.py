"""Paths, widths and bundles are those of c2sp.org/tlog-tiles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.catalog import VALUE_BYTES_MAX
from ledger.codec import SOURCE_PREFIX, leaf_bytes
from ledger.drafts import Draft
from ledger.subjects import ACTOR_LENGTH_MAX, is_origin
from ledger.transparency.tiles import (
    LEAF_BYTES_MAX,
    BadBundle,
    EntryBundle,
    Tile,
    decode_bundle,
    encode_bundle,
    parse_path,
    right_edge,
    tiles_of,
    width_of,
)


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(1, 1_234_067), "tile/1/x001/x234/067"),
        (Tile(0, 999, 1), "tile/0/999.p/1"),
        (Tile(63, 1000, 255), "tile/63/x001/000.p/255"),
        (EntryBundle(1_000_000), "tile/entries/x001/x000/000"),
        (EntryBundle(12, 7), "tile/entries/012.p/7"),
        (EntryBundle(0, 256, "large-entries"), "tile/large-entries/000"),
    ],
)
def test_paths_have_one_spelling(resource: Tile | EntryBundle, path: str) -> None:
    assert resource.path == path
    assert parse_path(path) == resource


@pytest.mark.parametrize(
    "path",
    [
        *("tile/0/0", "tile/00/000", "tile/64/000", "tile/0/1000", "tile/0/x000/000", "tile/0/x001/1", "tile/-1/000"),
        *("tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/0/000.p/", "tile/0/000.p/1000", "tile/0/"),
        *(
            "tile/x/000",
            "tile/entries",
            "tile/0/000/",
            "tile/0/../000",
            "tile/0/001/000",
            "tile/0/\N{ARABIC-INDIC DIGIT ZERO}00",
            "checkpoint",
        ),
        *("tile/0/" + "x000/" * 2000 + "000", "tile/0/" + "x001/" * 7 + "000"),
        *("tile/0/000\n", "tile/0/x1/000", "tile/entries/000.p/1/2"),
    ],
)
def test_every_other_path_is_none(path: str) -> None:
    assert parse_path(path) is None


@given(st.integers(0, 62), st.integers(0, 10**15), st.integers(1, 256))
def test_a_path_leads_back(level: int, number: int, width: int) -> None:
    for resource in (Tile(level, number, width), EntryBundle(number, width)):
        assert parse_path(resource.path) == resource


def test_the_tiles_of_70000_leaves_are_those_of_the_specification() -> None:
    tiles = list(tiles_of(70_000))
    assert sum(tile.level == 0 and tile.width == 256 for tile in tiles) == 273
    assert [tile for tile in tiles if tile.level] == [Tile(1, 0), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert right_edge(70_000) == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert list(tiles_of(256)) == [Tile(0, 0), Tile(1, 0, 1)]
    assert right_edge(256) == [Tile(1, 0, 1)]


@given(st.integers(0, 300_000), st.integers(0, 300_000))
def test_the_new_tiles_of_a_tree_are_those_that_the_older_one_lacks(one: int, other: int) -> None:
    before, size = sorted((one, other))
    new = list(tiles_of(size, before))
    assert set(new) == set(tiles_of(size)) - set(tiles_of(before))
    assert all(width_of(size, tile.level, tile.number) == tile.width > 0 for tile in new)
    assert set(right_edge(size)) == {tile for tile in tiles_of(size) if tile.width < 256}


@given(st.lists(st.binary(max_size=300), max_size=30))
def test_a_bundle_is_read_as_it_was_written(leaves: list[bytes]) -> None:
    for kind in ("entries", "large-entries"):
        assert decode_bundle(encode_bundle(leaves, kind), kind) == leaves


def test_a_bundle_holds_lengths_of_16_bits_most_significant_byte_first() -> None:
    assert encode_bundle([b"ab", b"", b"x" * 258]) == b"\x00\x02ab" + b"\x00\x00" + b"\x01\x02" + b"x" * 258


def test_a_leaf_that_is_too_large_for_16_bits_needs_the_other_form() -> None:
    assert len(encode_bundle([b"x" * LEAF_BYTES_MAX])) == 2 + 65_535
    with pytest.raises(BadBundle, match="more than 65535 bytes"):
        encode_bundle([b"", b"x" * (LEAF_BYTES_MAX + 1)])
    large = [b"x" * (LEAF_BYTES_MAX + 1), b"y"]
    assert decode_bundle(encode_bundle(large, "large-entries"), "large-entries") == large


@pytest.mark.parametrize("content", [b"\x00", b"\x00\x01", b"\x00\x03ab", b"\x00\x01a\x00"])
def test_a_bundle_that_ends_within_a_leaf_is_refused(content: bytes) -> None:
    with pytest.raises(BadBundle, match="ends within a leaf"):
        decode_bundle(content)


def test_the_largest_event_that_can_be_recorded_fits_in_a_bundle() -> None:
    """The longest names around the largest value, in the widest escapes of JSON."""
    draft = Draft(
        topic="setting.changed",
        subject=f"provider:{'x' * 256}",
        version=10**15,
        body={
            "setting": "s" * 128,
            "value": ["x" * (VALUE_BYTES_MAX - 4)],
            "effective_from": 0,
            "effective_until": 0,
        },
        actor="\x01" * ACTOR_LENGTH_MAX,
        id_tail="-8000-8000-000000000000",
        commitment="0" * 64,
        imported=True,
    )
    longest = "/".join(["o" * 63] * 4)
    assert is_origin(longest)
    assert not is_origin(longest + "o")
    leaf = leaf_bytes(draft, SOURCE_PREFIX + longest, 2**48 - 1, 0)
    assert len(leaf) > VALUE_BYTES_MAX + 2500
    assert len(encode_bundle([leaf])) == len(leaf) + 2
