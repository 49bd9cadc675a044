"""The transparency log on both databases: what is signed is the tree of the events, and never a fork."""

from __future__ import annotations

import pytest

from ledger.errors import BadInput
from ledger.store import Ledger
from ledger.transparency.integrator import Integrator
from ledger.transparency.note import NoteSignature, SignedNote, SigningKey
from ledger.transparency.published_log import PublishedLog
from ledger.transparency.tiles import EntryBundle, Tile, decode_bundle, tiles_of
from tests.support.ledgers import GENESIS, change, submit
from tests.support.log_ledger import KEY, NEW_KEY, grow, integrator_of, reopened, require_published


@pytest.fixture
def integrator(ledger: Ledger) -> Integrator:
    return integrator_of(ledger)


def test_the_published_tree_is_that_of_the_events(ledger: Ledger, integrator: Integrator) -> None:
    log = PublishedLog(ledger.recorder)
    assert (log.checkpoint(), log.size(), log.proof(1), log.tile(Tile(0, 0, 1)), log.verifier_keys()) == (
        *(None, 0, None, None),
        [],
    )
    assert integrator.catch_up() == GENESIS
    for events in (1, 2, 255, 256, 700):
        grow(ledger, events)
        size = ledger.head().position
        assert integrator.catch_up() == size
        assert integrator.problem is None
        require_published(ledger, size)
    assert log.verifier_keys() == [str(KEY.verifier)]


def test_a_page_at_a_time_gives_the_same_tree(ledger: Ledger) -> None:
    grow(ledger, 600)
    integrator = integrator_of(ledger, page_events=7)
    assert integrator.catch_up() == GENESIS + 600
    require_published(ledger, GENESIS + 600)


def test_every_tile_and_bundle_of_the_published_tree_is_served_and_nothing_else(
    ledger: Ledger, integrator: Integrator
) -> None:
    grow(ledger, 600)
    size = integrator.catch_up()
    log = PublishedLog(ledger.recorder)
    for tile in tiles_of(size):
        content = log.tile(tile)
        assert content is not None
        assert len(content) == tile.width * 32
        if tile.width > 1:
            assert log.tile(tile._replace(width=tile.width - 1)) == content[:-32]
        if tile.width < 256:
            assert log.tile(tile._replace(width=tile.width + 1)) is None
        if tile.level == 0:
            bundle = log.bundle(EntryBundle(tile.number, tile.width))
            assert bundle is not None
            first = tile.number * 256
            leaves = [entry.leaf for entry in ledger.page(first, tile.width)]
            assert decode_bundle(bundle) == leaves
            assert log.bundle(EntryBundle(tile.number, tile.width, "large-entries")) is None
    for tile in (Tile(0, 3, 1), Tile(1, 1, 1), Tile(2, 0, 1), Tile(0, 2)):
        assert log.tile(tile) is None
    assert log.bundle(EntryBundle(2)) is None
    # Recorded, and not published yet.
    grow(ledger, 300)
    integrator.integrate()
    assert log.tile(Tile(0, 2)) is None
    assert log.bundle(EntryBundle(2)) is None
    assert log.proof(size + 1) is None


def test_a_leaf_that_fits_no_bundle_is_in_the_tree_and_served_in_the_other_form(
    ledger: Ledger, integrator: Integrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier versions recorded such events."""
    monkeypatch.setattr("ledger.catalog.VALUE_BYTES_MAX", 10**6)
    regions = [f"{number:04}{'x' * 4000}" for number in range(20)]
    submit(ledger, {**change("org:acme", regions), "setting": "residency.regions"})
    size = integrator.catch_up()
    assert len(ledger.page(size - 1)[0].leaf) > 65_535
    require_published(ledger, size)
    log = PublishedLog(ledger.recorder)
    assert log.bundle(EntryBundle(0, size)) is None
    large = log.bundle(EntryBundle(0, size, "large-entries"))
    assert large is not None
    assert decode_bundle(large, "large-entries") == [entry.leaf for entry in ledger.page(0)]
    assert log.bundle(EntryBundle(0, size - 1)) is not None


def test_a_head_is_signed_once(ledger: Ledger, integrator: Integrator) -> None:
    integrator.catch_up()
    first = require_published(ledger, GENESIS)
    for again in (integrator, integrator_of(ledger)):
        again.catch_up()
        assert require_published(ledger, GENESIS) == first


def test_the_extension_lines_are_signed_with_the_tree(ledger: Ledger) -> None:
    sizes = []

    def lines(size: int) -> list[str]:
        sizes.append(size)
        return [f"inforce-map of-{size}"]

    integrator = integrator_of(ledger, extension_lines=lines)
    integrator.catch_up()
    grow(ledger, 3)
    integrator.catch_up()
    assert require_published(ledger, GENESIS + 3).checkpoint.extensions == (f"inforce-map of-{GENESIS + 3}",)
    assert sizes == [GENESIS, GENESIS + 3]
    # Another line at a size that was signed would be another checkpoint of one tree.
    integrator_of(ledger, extension_lines=lambda _size: ["other"]).catch_up()
    assert require_published(ledger, GENESIS + 3).checkpoint.extensions == (f"inforce-map of-{GENESIS + 3}",)


def test_keys_change_with_both_signatures_in_between(ledger: Ledger) -> None:
    integrator_of(ledger, KEY).catch_up()
    integrator_of(ledger, KEY, NEW_KEY).catch_up()
    both = require_published(ledger, GENESIS)
    assert set(both.note.verified_by([KEY.verifier, NEW_KEY.verifier])) == {KEY.verifier, NEW_KEY.verifier}
    grow(ledger, 1)
    integrator_of(ledger, NEW_KEY).catch_up()
    after = require_published(ledger, GENESIS + 1)
    assert after.note.verified_by([KEY.verifier, NEW_KEY.verifier]) == [NEW_KEY.verifier]
    assert set(PublishedLog(ledger.recorder).verifier_keys()) == {str(KEY.verifier), str(NEW_KEY.verifier)}


def test_signatures_that_others_add_to_the_published_note_stay(ledger: Ledger) -> None:
    """As those of witnesses, which see a checkpoint once it is published."""
    integrator_of(ledger).catch_up()
    tables = ledger.recorder.log_tables()
    before = tables.head("published")
    assert before is not None
    note = SignedNote.parse(before.note)
    cosigned = note._replace(signatures=(*note.signatures, NoteSignature("witness.example/w1", b"wwww" + bytes(72))))
    assert tables.publish(before, before._replace(note=bytes(cosigned)), [])
    assert not tables.publish(before, before, []), "another writer was first"
    for keys, count in (((KEY,), 2), ((KEY, NEW_KEY), 3)):
        integrator = integrator_of(ledger, *keys)
        integrator.catch_up()
        assert integrator.problem is None
        stored = tables.head("published")
        assert stored is not None
        signatures = SignedNote.parse(stored.note).signatures
        assert set(cosigned.signatures) <= set(signatures)
        assert len(signatures) == count


def test_a_key_of_another_log_is_refused(ledger: Ledger) -> None:
    with pytest.raises(BadInput, match=r"of the log other\.example/x, and this ledger is test\.example/ledger"):
        integrator_of(ledger, SigningKey("other.example/x", bytes(32)))


def test_only_one_process_integrates(ledger: Ledger, database_url: str) -> None:
    first = ledger.recorder.integrator_lock()
    with reopened(database_url) as other:
        second = other.recorder.integrator_lock()
        assert first.acquire()
        assert first.acquire()
        assert not second.acquire()
        first.release()
        assert second.acquire()
        assert not first.acquire()
        second.release()


def test_two_integrators_at_once_never_publish_two_trees_of_one_size(ledger: Ledger, database_url: str) -> None:
    """The lock keeps them apart; if a server loses it unnoticed, the comparison at the swap does."""
    with reopened(database_url) as other:
        one, two = integrator_of(ledger), integrator_of(other)
        grow(ledger, 300)
        while one.integrate() or two.integrate():
            pass
        assert one.publish() == two.publish() == GENESIS + 300
        first = require_published(ledger, GENESIS + 300)
        grow(ledger, 5)
        two.catch_up()
        assert one.catch_up() == GENESIS + 305
        assert (one.problem, two.problem) == (None, None)
        assert require_published(other, GENESIS + 305).head != first.head
