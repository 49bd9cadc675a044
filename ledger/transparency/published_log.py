"""The log as others see it: the last published checkpoint, and the tiles, bundles and proofs of exactly that tree.

It proves everything against the checkpoint's root before it hands it out: a tile or an event that was altered where it
is stored is refused with its place, and never served. So it needs no key, and any process may serve the log.
Proved by tests/contracts/test_log.py.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from ledger.errors import LedgerCorrupt
from ledger.recorders.contract import Entry, Recorder
from ledger.recorders.log_tables import LogTables, StoredHead
from ledger.transparency.checkpoint import SignedCheckpoint
from ledger.transparency.merkle import EMPTY_TREE, ProofError, TreeHead, index_of, position_of, verify_inclusion
from ledger.transparency.note import BadNote
from ledger.transparency.tile_tree import BadTile, ProvedTiles, ReadTiles, WrongLeaf
from ledger.transparency.tiles import (
    LEAF_BYTES_MAX,
    EntryBundle,
    Tile,
    encode_bundle,
    width_of,
)
from ledger.transparency.tlog_proof import TlogProof


class PublishedHead(NamedTuple):
    """`stored`: as it is in the database, for a comparison."""

    stored: StoredHead
    signed: SignedCheckpoint


def read_published(tables: LogTables) -> PublishedHead | None:
    """None: no checkpoint was published yet. Raises `LedgerCorrupt` unless the note is that of the stored head."""
    stored = tables.head("published")
    if stored is None:
        return None
    try:
        signed = SignedCheckpoint.parse(stored.note)
    except BadNote as error:
        raise LedgerCorrupt(f"the published checkpoint is not what was written: {error}") from error
    if signed.head != TreeHead(stored.size, stored.root):
        raise LedgerCorrupt("the published checkpoint is not what was written: its head is another one")
    return PublishedHead(stored, signed)


def tile_reader(tables: LogTables) -> ReadTiles:
    def read(tiles: Sequence[Tile]) -> Mapping[Tile, bytes]:
        stored = tables.tiles([(tile.level, tile.number) for tile in tiles])
        return {tile: stored[tile.level, tile.number] for tile in tiles if (tile.level, tile.number) in stored}

    return read


def leaves_between(recorder: Recorder, after: int, until: int) -> list[bytes]:
    """The leaves of the positions after < position <= until. Raises `LedgerCorrupt`."""
    return recorder.leaves(after, until).split(b"\n") if after < until else []


class PublishedLog:
    """Safe to use from many threads."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._tables = recorder.log_tables()
        self._tiles = ProvedTiles(tile_reader(self._tables))
        # One reader at a time: a proof takes well under a millisecond.
        self._lock = threading.Lock()

    def checkpoint(self) -> SignedCheckpoint | None:
        """The last published one. Raises `LedgerCorrupt`."""
        published = self._published()
        return None if published is None else published.signed

    def size(self) -> int:
        """The number of events under the last published checkpoint."""
        stored = self._tables.head("published")
        return 0 if stored is None else stored.size

    def verifier_keys(self) -> list[str]:
        """Of all keys that have signed a published checkpoint, in the order of its size."""
        return [key for key, _ in self._tables.verifier_keys()]

    def tile(self, tile: Tile) -> bytes | None:
        """None: the published tree has no such tile. Raises `LedgerCorrupt`."""
        with self._lock:
            if not self._has(tile.level, tile.number, tile.width):
                return None
            with _as_corrupt():
                return self._tiles.tile(tile.level, tile.number)[: tile.width * 32]

    def bundle(self, bundle: EntryBundle) -> bytes | None:
        """None: the published tree has no such bundle, or not in this form: bundles with a leaf that is too large for
        the usual form have the other one. Raises `LedgerCorrupt`."""
        with self._lock:
            if not self._has(0, bundle.number, bundle.width):
                return None
        leaves = leaves_between(self._recorder, bundle.first, bundle.first + bundle.width)
        with self._lock, _as_corrupt():
            self._tiles.require_leaves(bundle.number, leaves)
        too_large = any(len(leaf) > LEAF_BYTES_MAX for leaf in leaves)
        return None if too_large != (bundle.kind == "large-entries") else encode_bundle(leaves, bundle.kind)

    def root_of(self, size: int) -> bytes:
        """The root of the first `size` leaves, at most those of the published tree. Raises `LedgerCorrupt`."""
        with self._lock:
            published = self._published()
            self._tiles.move_to(EMPTY_TREE if published is None else published.signed.head)
            with _as_corrupt():
                return self._tiles.root_of(size)

    def proof(self, position: int) -> bytes | None:
        """The tlog-proof of the event at `position`; None: it is not under the published checkpoint. Raises
        `LedgerCorrupt`."""
        proofs = self.proofs([position])
        return None if proofs is None else proofs[0]

    def proofs(self, positions: Sequence[int]) -> list[bytes] | None:
        """The proofs of these events under one checkpoint; None: not all of them are under it."""
        with self._lock:
            published = self._published()
            if published is None or not positions or not 0 < min(positions) <= max(positions) <= published.stored.size:
                return None
            note = published.stored.note
            with _as_corrupt():
                self._tiles.move_to(published.signed.head)
                entries = self._entries(positions)
                return [self._proof(entries[position], note) for position in positions]

    def _entries(self, positions: Sequence[int]) -> dict[int, Entry]:
        first, last = min(positions), max(positions)
        if last - first < 2 * len(positions):
            # The events of one submission are neighbours: one read instead of a thousand.
            return {entry.position: entry for entry in self._recorder.page(first - 1, last - first + 1, last)}
        entries = [self._recorder.entry(position) for position in positions]
        return {entry.position: entry for entry in entries if entry is not None}

    def _proof(self, entry: Entry, note: bytes) -> bytes:
        # A tile holds the hash of a leaf; a proof is about the event that is there now.
        index = index_of(entry.position)
        hashes = self._tiles.inclusion_proof(index)
        try:
            verify_inclusion(entry.leaf_hash, index, hashes, self._tiles.head)
        except ProofError:
            raise WrongLeaf(index) from None
        return bytes(TlogProof(index, tuple(hashes), note))

    def _has(self, level: int, number: int, width: int) -> bool:
        published = self._published()
        if published is None:
            return False
        self._tiles.move_to(published.signed.head)
        return width <= width_of(published.stored.size, level, number)

    def _published(self) -> PublishedHead | None:
        return read_published(self._tables)


@contextmanager
def _as_corrupt() -> Iterator[None]:
    """Raises what a proof finds as `LedgerCorrupt`."""
    try:
        yield
    except WrongLeaf as error:
        raise LedgerCorrupt(
            f"the event at position {position_of(error.index)} is not the one under the published checkpoint; restore "
            "the ledger from a backup or an export"
        ) from error
    except BadTile as error:
        raise LedgerCorrupt(f"the log is damaged: {error}; see inforce doctor log") from error
