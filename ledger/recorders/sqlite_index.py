"""The header of a WAL's index: tells with one `pread` whether anything was committed to a SQLite file.

Every connection of every process keeps its place in the WAL by this header, and a commit becomes visible to others
exactly when it is written there (https://www.sqlite.org/walformat.html, section 2). SQLite itself compares the header
at the start of each read transaction; this module does the same without the locks of a transaction.

It reads through the file descriptor that SQLite has open. A descriptor of our own would endanger the ledger: when a
process closes any descriptor of a file, POSIX drops all locks that the process holds on that file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_COPY_BYTES: Final = 48
"""The header is stored twice. If the copies differ, it is being written."""
_OWN_DESCRIPTORS: Final = Path("/proc/self/fd")


class WalIndex:
    """Valid while a connection that has read the file stays open: SQLite closes its descriptor with the last one."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def of(cls, path: Path) -> WalIndex | None:
        """The index of the file at `path`, or None if the system does not tell which descriptor is SQLite's."""
        index = os.path.realpath(path) + "-shm"
        try:
            numbers = os.listdir(_OWN_DESCRIPTORS)
        except OSError:
            return None
        descriptors: list[int] = []
        for number in numbers:
            try:
                if os.readlink(_OWN_DESCRIPTORS / number) == index:
                    descriptors.append(int(number))
            except OSError:
                continue
        # With two descriptors, one belongs to other code, which may close it.
        return cls(descriptors[0]) if len(descriptors) == 1 else None

    def header(self) -> bytes | None:
        """A value that changes with every commit. None: the header is being written at this moment."""
        both = os.pread(self._descriptor, 2 * _COPY_BYTES, 0)
        header = both[:_COPY_BYTES]
        return header if header == both[_COPY_BYTES:] and any(header) else None
