"""Noticing that something was committed to a SQLite file: a file sends no notifications, so it is polled cheaply.

Every connection of every process keeps its place in the WAL by the header of the WAL's index, and a commit becomes
visible to others exactly when it is written there (https://www.sqlite.org/walformat.html, section 2). SQLite itself
compares the header at the start of each read transaction; `WalIndex` does the same with one `pread`, without locks.

It reads through the file descriptor that SQLite has open. A descriptor of our own would endanger the ledger: when a
process closes any descriptor of a file, POSIX drops all locks that the process holds on that file.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ledger.recorders.common import sleep_until_wakeup
from ledger.recorders.contract import Head

POLL_S: Final = 0.01
POLL_QUIET_S: Final = 0.05
QUIET_S: Final = 1.0
"""Between two reads of the change token: `POLL_S`, or `POLL_QUIET_S` after `QUIET_S` without a commit."""

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

    def frames(self) -> int | None:
        """The number of frames of the log that readers see. None: it is being written at this moment."""
        header = self.header()
        return None if header is None else int.from_bytes(header[16:20], sys.byteorder)

    def header(self) -> bytes | None:
        """A value that changes with every commit. None: the header is being written at this moment."""
        both = os.pread(self._descriptor, 2 * _COPY_BYTES, 0)
        header = both[:_COPY_BYTES]
        return header if header == both[_COPY_BYTES:] and any(header) else None


class SQLiteWatch:
    """See `Watch`. `change_token` and `head` are the recorder's methods."""

    def __init__(self, change_token: Callable[[], object], head: Callable[[], Head]) -> None:
        self._change_token = change_token
        self._head = head
        self._last_token: object = None
        self._changed_s = time.monotonic()

    def head(self) -> Head:
        # The token first: then `wait` reports a commit that happens between the two reads.
        change_token = self._change_token()
        if change_token != self._last_token:
            self._last_token, self._changed_s = change_token, time.monotonic()
        return self._head()

    def wait(self, timeout_s: float, wakeup: socket.socket) -> None:
        until = time.monotonic() + timeout_s
        while (left := until - time.monotonic()) > 0:
            quiet = time.monotonic() - self._changed_s > QUIET_S
            poll_s = min(POLL_QUIET_S if quiet else POLL_S, left)
            if sleep_until_wakeup(poll_s, wakeup) or self._change_token() != self._last_token:
                return

    def close(self) -> None:
        """Does nothing: the watch holds no resource of its own."""
