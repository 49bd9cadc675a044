"""Writes the published log as static files, which any web server or CDN can serve (c2sp.org/tlog-tiles).

Each file appears whole or not at all, and the checkpoint last, so a reader who follows a checkpoint finds every file.
Files under the checkpoint that is there already were flushed before it: a later export writes only what is new. After
an export that was cut off, the next one compares what is there and goes on. Nothing is written that was not proved.
Proved by tests/transparency/test_static_export.py.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from ledger.errors import BadInput, LedgerCorrupt, LedgerUnavailable
from ledger.private_files import make_private_folder, open_private
from ledger.transparency.checkpoint import SignedCheckpoint
from ledger.transparency.note import BadNote
from ledger.transparency.published_log import PublishedLog
from ledger.transparency.tiles import TILE_WIDTH, EntryBundle, Tile, tiles_of

CHECKPOINT: Final = "checkpoint"
VERIFIER_KEYS: Final = "vkeys"

Progress = Callable[[int], None]
"""Called with the number of events whose files are there."""


class StaticExport(NamedTuple):
    """`written`: the number of files that are new or changed."""

    origin: str
    size: int
    written: int


def export_log(log: PublishedLog, folder: Path, progress: Progress = lambda _events: None) -> StaticExport:
    """Raises `LedgerUnavailable` if no checkpoint was published yet, `BadInput` if the folder holds another log,
    `LedgerCorrupt`, and `OSError`."""
    signed = log.checkpoint()
    if signed is None:
        raise LedgerUnavailable(
            "this ledger's log has no checkpoint yet; make a key with inforce keygen, and name it with "
            "--signing-key-file"
        )
    origin, size = signed.checkpoint.origin, signed.head.size
    flushed = _size_there(folder, log, signed)
    files = _Files(folder)
    for tile in tiles_of(size):
        content = _require(log.tile(tile), tile.path)
        if tile.level == 0:
            end = tile.number * TILE_WIDTH + tile.width
            if end > flushed or not files.has(tile.path, content):
                _write_bundle(files, log, tile)
            progress(end)
        files.write(tile.path, content)
        if tile.width == TILE_WIDTH:
            files.remove_partial(tile.path)
    files.write(VERIFIER_KEYS, "".join(f"{key}\n" for key in log.verifier_keys()).encode())
    # Once for all files: one flush each would take longer than all the rest.
    os.sync()
    files.write(CHECKPOINT, bytes(signed.note))
    return StaticExport(origin, size, files.written)


def _write_bundle(files: _Files, log: PublishedLog, tile: Tile) -> None:
    """In the usual form, or in that for large leaves: there is only one of them."""
    bundles = [EntryBundle(tile.number, tile.width), EntryBundle(tile.number, tile.width, "large-entries")]
    contents = [(bundle, content) for bundle in bundles if (content := log.bundle(bundle)) is not None]
    if not contents:
        raise LedgerCorrupt(f"the log has no {bundles[0].path}")
    bundle, content = contents[0]
    files.write(bundle.path, content)
    if tile.width == TILE_WIDTH:
        for each in bundles:
            files.remove_partial(each.path)


def _require(content: bytes | None, path: str) -> bytes:
    if content is None:
        raise LedgerCorrupt(f"the log has no {path}, although its checkpoint needs it")
    return content


def _size_there(folder: Path, log: PublishedLog, signed: SignedCheckpoint) -> int:
    """The size of the folder's tree, 0 if there is none. Raises `BadInput` unless it is a beginning of this one."""
    try:
        content = (folder / CHECKPOINT).read_bytes()
    except FileNotFoundError:
        return 0
    try:
        there = SignedCheckpoint.parse(content)
    except BadNote:
        raise BadInput(f"{folder / CHECKPOINT} is no checkpoint; name a folder of its own for the log") from None
    if there.checkpoint.origin != signed.checkpoint.origin:
        raise BadInput(
            f"{folder} holds the log {there.checkpoint.origin}, and this one is {signed.checkpoint.origin}; name "
            "another folder"
        )
    size, published = there.head.size, signed.head.size
    if size > published:
        raise BadInput(
            f"{folder} holds a checkpoint of {size} events, and the ledger has published {published}: it went back, or "
            "it is an older copy"
        )
    if log.root_of(size) != there.head.root:
        raise BadInput(
            f"{folder} holds another tree of {size} events: one of the two logs is forked; keep both checkpoints, and "
            "find out which ledger is the right one"
        )
    return size


class _Files:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: set[Path] = set()
        self.written = 0

    def has(self, path: str, content: bytes) -> bool:
        try:
            return (self._folder / path).read_bytes() == content
        except (FileNotFoundError, NotADirectoryError):
            return False

    def write(self, path: str, content: bytes) -> None:
        """Puts the file there, flushed to the disk, unless it is there with this content."""
        if self.has(path, content):
            return
        target = self._folder / path
        if target.parent not in self._made:
            make_private_folder(target.parent)
            self._made.add(target.parent)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            with open_private(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        self.written += 1

    def remove_partial(self, path: str) -> None:
        """Removes the narrower forms of a full tile: readers take the full one instead."""
        shutil.rmtree(self._folder / f"{path}.p", ignore_errors=True)
