"""Compares everything that is stored of the log with the events: tiles, heads, and checkpoints at their sizes.

It makes the whole tree anew from the leaves, in constant memory, and trusts nothing that is stored.
Proved by tests/contracts/test_log_check.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ledger.errors import LedgerCorrupt
from ledger.recorders.contract import Recorder
from ledger.recorders.log_tables import LogTables, StoredHead
from ledger.transparency.checkpoint import SignedCheckpoint
from ledger.transparency.merkle import ProofError, TreeHead, leaf_hash
from ledger.transparency.note import BadKey, BadNote, VerifierKey
from ledger.transparency.published_log import leaves_between, read_published, tile_reader
from ledger.transparency.tile_tree import GrowingTree, ProvedTiles
from ledger.transparency.tiles import width_of

PAGE_EVENTS: Final = 10_000
PAGE_BYTES: Final = 8 * 1024 * 1024
_PLACES: Final = 5_000

Progress = Callable[[int], None]
"""Called with the position that was reached."""


def log_faults(
    recorder: Recorder, origin: str, noted: SignedCheckpoint | None = None, progress: Progress = lambda _position: None
) -> Iterator[str]:
    """Every fault, one sentence each. `noted`: a checkpoint that is kept outside the ledger."""
    tables = recorder.log_tables()
    if not tables.exist():
        return
    heads: list[tuple[str, TreeHead]] = []
    try:
        integrated = tables.head("integrated")
        published = read_published(tables)
        keys = [VerifierKey.parse(key) for key, _ in tables.verifier_keys()]
    except LedgerCorrupt as error:
        yield error.detail
        return
    except BadKey:
        yield "a verifier key of the log is not what was written"
        return
    if published is not None:
        heads.append(("the published checkpoint", published.signed.head))
        yield from _signature_faults("the published checkpoint", published.signed, origin, keys)
    if noted is not None:
        heads.append(("the checkpoint that is noted outside the ledger", noted.head))
        yield from _signature_faults("the checkpoint that is noted outside the ledger", noted, origin, keys)
    if integrated is not None:
        heads.append(("the integrated tree", TreeHead(integrated.size, integrated.root)))
    try:
        yield from _tree_faults(recorder, tables, integrated, heads, progress)
    except LedgerCorrupt as error:
        yield f"the log cannot be compared with the events: {error.detail}"


def _signature_faults(what: str, signed: SignedCheckpoint, origin: str, keys: Sequence[VerifierKey]) -> Iterator[str]:
    if signed.checkpoint.origin != origin:
        yield f"{what} is of the log {signed.checkpoint.origin}"
    try:
        signed.note.verified_by(keys)
    except BadNote as error:
        yield f"{what} cannot be believed: {error}"


def _tree_faults(
    recorder: Recorder,
    tables: LogTables,
    integrated: StoredHead | None,
    heads: Sequence[tuple[str, TreeHead]],
    progress: Progress,
) -> Iterator[str]:
    size = 0 if integrated is None else integrated.size
    end = recorder.head().position
    tree = GrowingTree(0, {})
    sizes = sorted({head.size for _, head in heads if head.size <= end})
    while tree.size < max(sizes, default=0):
        length = recorder.page_length(tree.size, PAGE_EVENTS, None, PAGE_BYTES)
        until = min(tree.size + length, next(one for one in sizes if one > tree.size))
        tree.append([leaf_hash(leaf) for leaf in leaves_between(recorder, tree.size, until)])
        yield from _tile_faults(tables, tree, size)
        tree.changed.clear()
        for what, head in heads:
            if head.size == tree.size and head.root != tree.head().root:
                yield f"{what} has another root than the {head.size} events"
        progress(tree.size)
    for what, head in heads:
        if head.size > end:
            yield f"{what} is of {head.size} events, and the ledger ends at position {end}"
    yield from _further_tiles(tables, size)


def _tile_faults(tables: LogTables, tree: GrowingTree, size: int) -> Iterator[str]:
    """Of the tiles that are complete by now, as wide as they are stored for a tree of `size` leaves."""
    due = {
        tile: hashes for tile, hashes in tree.changed.items() if tile.width == width_of(size, tile.level, tile.number)
    }
    stored = tables.tiles([(tile.level, tile.number) for tile in due])
    for tile, hashes in sorted(due.items()):
        if stored.get((tile.level, tile.number)) != hashes:
            yield f"the log's {tile.path} is not that of the events"


def _further_tiles(tables: LogTables, size: int) -> Iterator[str]:
    after = None
    while places := tables.places(after, _PLACES):
        for level, number in places:
            if not (0 <= level < 63 and number >= 0 and width_of(size, level, number)):
                yield f"the log has a tile at level {level} and number {number}, where its tree has none"
        after = places[-1]


def head_fault(recorder: Recorder, noted: SignedCheckpoint | None) -> str | None:
    """The fault of the published or noted checkpoint that a few reads show; None: there is none. Raises
    `LedgerCorrupt`."""
    tables = recorder.log_tables()
    published, integrated = read_published(tables), tables.head("integrated")
    position = recorder.head().position
    tree = ProvedTiles(tile_reader(tables))
    if integrated is not None:
        tree.move_to(TreeHead(integrated.size, integrated.root))
    for what, head in (
        ("the published checkpoint", published and published.signed.head),
        ("the checkpoint that is noted outside the ledger", noted and noted.head),
    ):
        if head is None:
            continue
        if head.size > position:
            return f"{what} is of {head.size} events, and the ledger ends at position {position}"
        try:
            if head.size <= tree.head.size and tree.root_of(head.size) != head.root:
                return f"{what} has another root than the stored tree at {head.size} events"
        except ProofError as error:
            return f"the stored tree is not what was written: {error}"
    return None


def noted_checkpoint(read: Callable[[], SignedCheckpoint | None]) -> tuple[SignedCheckpoint | None, str | None]:
    """The checkpoint that `read` answers, or the fault of its file."""
    try:
        return read(), None
    except ProofError as error:
        return None, str(error)
