"""The last checkpoint that was signed here, in a file outside the ledger.

A database that was restored to an older state looks whole in itself, and would sign another tree of a size that was
signed before. The file has the signed note itself. It is written and flushed before the checkpoint is published, so
nobody has seen a newer one. It never goes back, and a file that cannot be read stops the signing.
Proved by tests/transparency/test_checkpoint_memory.py.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from ledger.errors import LedgerUnavailable
from ledger.opening import NOTE_SUFFIX
from ledger.private_files import make_private_folder, open_private
from ledger.reader import LedgerReader
from ledger.transparency.checkpoint import SignedCheckpoint
from ledger.transparency.note import BadNote

SUFFIX: Final = "-checkpoint"
"""Of the file, which lies where the last acknowledged head is noted."""


def memory_of(ledger: LedgerReader) -> CheckpointMemory:
    """Beside a SQLite ledger; in the user's state folder for one on a server, so on each machine by itself."""
    note = ledger.recorder.append_guard.memory.path
    return CheckpointMemory(None if note is None else note.with_name(note.name.removesuffix(NOTE_SUFFIX) + SUFFIX))


class CheckpointMemory:
    """`path` None: the memory ends with the process."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._newest: SignedCheckpoint | None = None

    def newest(self) -> SignedCheckpoint | None:
        """Of this process and of all others that share the file. Raises `BadNote` if the file holds no checkpoint, and
        `LedgerUnavailable` if it cannot be read."""
        if self.path is not None:
            try:
                content = self.path.read_bytes()
            except FileNotFoundError:
                return self._newest
            except OSError as error:
                raise LedgerUnavailable(f"{self.path} cannot be read: {error.strerror}") from error
            try:
                stored = SignedCheckpoint.parse(content)
            except BadNote as error:
                raise BadNote(
                    f"{self.path} should hold the last checkpoint that was signed here, and cannot be read: {error}. "
                    "Restore it, or put there the newest checkpoint that anybody has; without it a fork could be signed"
                ) from None
            if self._newest is None or stored.head.size >= self._newest.head.size:
                self._newest = stored
        return self._newest

    def remember(self, signed: SignedCheckpoint) -> None:
        """Returns once the checkpoint is on the disk. Raises `LedgerUnavailable`."""
        if self.path is not None:
            try:
                _write(self.path, bytes(signed.note))
            except OSError as error:
                raise LedgerUnavailable(
                    f"the checkpoint cannot be kept in {self.path} ({error.strerror}), so none is published"
                ) from error
        self._newest = signed


def _write(path: Path, content: bytes) -> None:
    if not path.parent.exists():
        make_private_folder(path.parent)
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}")
    try:
        with open_private(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
