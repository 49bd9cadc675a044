"""Watching a SQLite ledger grow: a file sends no notifications, so the change token is polled, often and cheaply."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Final

from ledger.recorders.contract import Head
from ledger.recorders.wakeup import sleep_until_wakeup

POLL_S: Final = 0.01
POLL_QUIET_S: Final = 0.05
QUIET_S: Final = 1.0
"""Between two reads of the change token: `POLL_S`, or `POLL_QUIET_S` after `QUIET_S` without a commit."""


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
