"""The header of a WAL's index: whether anything was committed to a SQLite file, for the price of one `pread`.

Every connection of every process keeps its place in the WAL by this header, and a commit is visible to others exactly
when it is written there (https://www.sqlite.org/walformat.html, section 2). SQLite itself compares it at the start of
each read transaction; so does this, without the locks that a transaction takes.

It is read through the descriptor that SQLite already has. A descriptor of our own would be a danger to the ledger:
POSIX takes every lock of a process on a file away when the process closes any descriptor of it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_COPY_BYTES: Final = 48
"""The header is there twice. Copies that differ are being written."""
_OWN: Final = Path("/proc/self/fd")


class WalIndex:
    """For as long as a connection that has read the file stays open: with the last one SQLite closes its descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def of(cls, path: Path) -> WalIndex | None:
        """The index of the file at `path`, or None where the system does not tell which descriptor is SQLite's."""
        index = os.path.realpath(path) + "-shm"
        try:
            numbers = os.listdir(_OWN)
        except OSError:
            return None
        found: list[int] = []
        for number in numbers:
            try:
                if os.readlink(_OWN / number) == index:
                    found.append(int(number))
            except OSError:
                continue
        # A second one would be somebody else's, and theirs to close.
        return cls(found[0]) if len(found) == 1 else None

    def header(self) -> bytes | None:
        """Another one after every commit. None: one is being made at this moment."""
        both = os.pread(self._descriptor, 2 * _COPY_BYTES, 0)
        header = both[:_COPY_BYTES]
        return header if header == both[_COPY_BYTES:] and any(header) else None
