"""Integrates events into the tree, and signs and publishes its head. One process of a deployment does it at a time.

A round takes the new events into the tiles, a page in a transaction; then it proves the tree and signs it:

1. The stored tiles are read again. They must give the root of the integrated tree, the root of the last published
   checkpoint at its size, and the root of the checkpoint that is noted outside the ledger at its size. Each full tile
   that is new must stand in the tile above it, and the newest events must be the leaves of the last tile.
2. The checkpoint is signed, and noted outside the ledger, flushed to the disk.
3. It is published: the published head is replaced if it is still the one of step 1.

Between the rounds it compares one older bundle after the other with the tree (`patrol`).

So a crash between any two writes leaves a tree that the next round goes on with. A checkpoint that was noted and not
published is published as it is, and never signed anew. Where a comparison of step 1 fails, nothing is signed, `problem`
says why, and everything else goes on: recording, questions, and the log up to the last checkpoint.
Proved by tests/contracts/test_log.py and tests/contracts/test_log_crashes.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Literal, NamedTuple

from ledger.errors import BadInput, LedgerCorrupt
from ledger.reader import LedgerReader
from ledger.recorders.log_tables import StoredHead
from ledger.transparency.checkpoint import Checkpoint, SignedCheckpoint
from ledger.transparency.checkpoint_memory import CheckpointMemory
from ledger.transparency.merkle import ProofError, TreeHead, leaf_hash
from ledger.transparency.note import SignedNote, SigningKey, VerifierKey, sign_note
from ledger.transparency.published_log import PublishedHead, leaves_between, read_published, tile_reader
from ledger.transparency.tile_tree import BadTile, GrowingTree, ProvedTiles, WrongLeaf
from ledger.transparency.tiles import TILE_WIDTH, right_edge, tiles_of

PAGE_EVENTS: Final = 10_000
PAGE_BYTES: Final = 8 * 1024 * 1024
"""Leaves that one transaction integrates."""

ExtensionLines = Callable[[int], Sequence[str]]
"""The size of a tree → the extension lines of its checkpoint: roots of structures that are a function of the tree. It
is called once for a size, before that is signed, and answers the lines of exactly that size."""

ProblemCode = Literal["log_went_back", "log_forked", "log_damaged", "log_unavailable"]


class LogProblem(NamedTuple):
    """Why no checkpoint is signed."""

    code: ProblemCode
    detail: str


class _SigningRefused(Exception):
    def __init__(self, code: ProblemCode, detail: str) -> None:
        super().__init__(detail)
        self.problem = LogProblem(code, detail)


def require_keys_of(origin: str, keys: Sequence[SigningKey]) -> None:
    """Raises `BadInput` unless the keys are those of the log `origin`."""
    for key in keys:
        if key.verifier.name != origin:
            raise BadInput(
                f"the key is of the log {key.verifier.name}, and this ledger is {origin}; an origin never changes, so "
                f"make a key with inforce keygen --origin {origin}"
            )


class Integrator:
    """For one thread at a time, in the process that holds the integrator's lock. `keys`: those that sign."""

    def __init__(
        self,
        ledger: LedgerReader,
        keys: Sequence[SigningKey],
        memory: CheckpointMemory,
        *,
        extension_lines: ExtensionLines = lambda _size: (),
        page_events: int = PAGE_EVENTS,
    ) -> None:
        """Raises `BadInput` if the keys are of another log."""
        require_keys_of(ledger.origin, keys)
        self._recorder = ledger.recorder
        self._origin = ledger.origin
        self._tables = ledger.recorder.log_tables()
        self._keys = tuple(keys)
        self._memory = memory
        self._extension_lines = extension_lines
        self._page_events = page_events
        self.problem: LogProblem | None = None
        self._blocked = False
        self._next_bundle = 0
        self._suspect: int | None = None
        """The bundle that was not, or not yet, as it should be: nothing is signed before it is."""

    def catch_up(self) -> int:
        """Integrates and publishes everything that is there; answers the size of the published tree."""
        while self.integrate():
            pass
        return self.publish()

    def integrate(self) -> bool:
        """Takes one page of new events into the tree. Whether there may be more."""
        more, self._blocked = False, True
        with self._noting_problems():
            more = self._integrate()
            self._blocked = False
        return more

    def publish(self) -> int:
        """Publishes the integrated tree, unless that was done or the last page could not be integrated; answers the
        size of the published tree."""
        with self._noting_problems():
            if not self._blocked:
                self._publish()
                self.problem = None
        published = self._tables.head("published")
        return 0 if published is None else published.size

    def patrol(self) -> None:
        """Compares the events of one bundle, the next at each call, with the tree. So damage to what nobody reads is
        noticed in the course of hours, and stops the signing until it is mended."""
        with self._noting_problems():
            integrated = self._tables.head("integrated")
            if integrated is not None:
                self._suspect = self._next_bundle % ((integrated.size + TILE_WIDTH - 1) // TILE_WIDTH)
                self._clear_suspect(integrated)
                self._next_bundle += 1

    def _clear_suspect(self, integrated: StoredHead) -> None:
        if self._suspect is not None and self._suspect * TILE_WIDTH < integrated.size:
            tree = ProvedTiles(tile_reader(self._tables), TreeHead(integrated.size, integrated.root))
            first = self._suspect * TILE_WIDTH
            leaves = leaves_between(self._recorder, first, min(first + TILE_WIDTH, integrated.size))
            tree.require_leaves(self._suspect, leaves)
        self._suspect = None

    @contextmanager
    def _noting_problems(self) -> Iterator[None]:
        """Ends the block with the problem that was met in it. `LedgerUnavailable` of the database is the caller's."""
        try:
            yield
        except _SigningRefused as error:
            self.problem = error.problem
        except WrongLeaf as error:
            detail = f"the event at position {error.index + 1} is not the one that the tree has there"
            self.problem = LogProblem("log_damaged", detail)
        except BadTile as error:
            self.problem = LogProblem("log_damaged", f"the stored tree is not what was written: {error}")
        except ProofError as error:
            self.problem = LogProblem("log_damaged", str(error))
        except LedgerCorrupt as error:
            self.problem = LogProblem("log_damaged", error.detail)

    def _integrate(self) -> bool:
        before = self._tables.head("integrated")
        size = 0 if before is None else before.size
        head = self._recorder.head().position
        if head < size:
            raise _went_back(size, head, "integrated")
        if before is not None:
            self._clear_suspect(before)
        if head == size:
            return False
        length = self._recorder.page_length(size, self._page_events, head, PAGE_BYTES)
        until = min(head, size + length)
        tree = GrowingTree(size, tile_reader(self._tables)(right_edge(size)))
        if before is not None and tree.head().root != before.root:
            raise _SigningRefused("log_damaged", f"the tiles at the right edge do not give the root of {size} events")
        tree.append([leaf_hash(leaf) for leaf in leaves_between(self._recorder, size, until)])
        after = StoredHead(*tree.head())
        self._tables.grow(before, after, {tile[:2]: hashes for tile, hashes in tree.changed.items()})
        return until < head

    def _publish(self) -> None:
        integrated = self._tables.head("integrated")
        published = read_published(self._tables)
        noted = self._memory.newest()
        if published is not None:
            self._require_own(published.signed, "the published checkpoint")
        if noted is not None:
            self._require_own(noted, "the checkpoint that is noted outside the ledger")
        older = [signed for signed in (published and published.signed, noted) if signed is not None]
        if integrated is None:
            if older:
                raise self._behind(max(signed.head.size for signed in older), 0)
            return
        newest = max((signed.head.size for signed in older), default=0)
        if newest > integrated.size:
            raise self._behind(newest, integrated.size)
        tree = self._proved(integrated, published)
        for signed in older:
            if tree.root_of(signed.head.size) != signed.head.root:
                raise _SigningRefused(
                    "log_forked",
                    f"a checkpoint of {signed.head.size} events was signed, and the ledger now has others there: its "
                    "log would fork, so nothing is signed. Bring the ledger back whose events are under that "
                    "checkpoint; a ledger that goes on otherwise needs an origin and a key of its own",
                )
        self._sign(TreeHead(integrated.size, integrated.root), published, noted)

    def _require_own(self, signed: SignedCheckpoint, what: str) -> None:
        """Raises unless the checkpoint is of this log, by a key that signs now or has signed before."""
        if signed.checkpoint.origin != self._origin:
            detail = f"{what} is of the log {signed.checkpoint.origin}, not of {self._origin}"
            raise _SigningRefused("log_forked", detail)
        before = [VerifierKey.parse(text) for text, _ in self._tables.verifier_keys()]
        signed.note.verified_by([*(key.verifier for key in self._keys), *before])

    def _behind(self, signed_size: int, size: int) -> _SigningRefused:
        head = self._recorder.head().position
        if head >= signed_size:
            # The stored tree went back alone, or was made anew. The next rounds integrate what it lacks.
            return _SigningRefused(
                "log_unavailable", f"the tree has {size} events, and is integrated again up to {signed_size}"
            )
        return _went_back(signed_size, head, "under a signed checkpoint")

    def _proved(self, integrated: StoredHead, published: PublishedHead | None) -> ProvedTiles:
        """The integrated tree, read again and proved as far as it is new."""
        size = integrated.size
        before = 0 if published is None else published.stored.size
        tree = ProvedTiles(tile_reader(self._tables), TreeHead(size, integrated.root))
        tree.check_root()
        for tile in tiles_of(size, before):
            tree.tile(tile.level, tile.number)
        last = (size - 1) // TILE_WIDTH
        tree.require_leaves(last, leaves_between(self._recorder, last * TILE_WIDTH, size))
        return tree

    def _sign(self, head: TreeHead, published: PublishedHead | None, noted: SignedCheckpoint | None) -> None:
        """Signs and publishes the tree. A tree of a size that was signed before gets no other text, only the
        signatures of keys that are new."""
        # The published one first: others may have added their signatures to it since.
        same = [
            one for one in (published and published.signed, noted) if one is not None and one.head.size == head.size
        ]
        if same:
            note = same[0].note
            missing = [key for key in self._keys if not any(one.is_by(key.verifier) for one in note.signatures)]
            note = SignedNote(note.text, (*note.signatures, *sign_note(note.text, missing).signatures))
        else:
            lines = tuple(self._extension_lines(head.size))
            note = sign_note(Checkpoint(self._origin, head, lines).text, self._keys)
        content = bytes(note)
        if published is not None and published.stored.note == content:
            return
        self._memory.remember(SignedCheckpoint.parse(content))
        before = None if published is None else published.stored
        keys = [str(key.verifier) for key in self._keys]
        if not self._tables.publish(before, StoredHead(*head, content), keys):
            raise _SigningRefused("log_unavailable", "another process has published a checkpoint meanwhile")


def _went_back(size: int, head: int, what: str) -> _SigningRefused:
    return _SigningRefused(
        "log_went_back",
        f"{size} events are {what}, and the ledger ends at position {head}: it went back. Nothing is signed, so that "
        "the log does not fork; bring the newer ledger back",
    )
