"""Seeing a SQLite ledger grow: a file tells nobody, so it is looked at, cheaply and often."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Final

from ledger.recorders.contract import Head
from ledger.recorders.waking import pause

LOOK_S: Final = 0.01
LOOK_QUIET_S: Final = 0.05
QUIET_S: Final = 1.0
"""Between two looks at the mark; and between two of them once nothing was committed for so long."""


class SQLiteWatch:
    """See `Watch`. `change_token` and `head` are the recorder's."""

    def __init__(self, change_token: Callable[[], object], head: Callable[[], Head]) -> None:
        self._change_token = change_token
        self._head = head
        self._seen: object = None
        self._changed_s = time.monotonic()

    def head(self) -> Head:
        # The mark first: what is committed between the two is then news, not missed.
        change_token = self._change_token()
        if change_token != self._seen:
            self._seen, self._changed_s = change_token, time.monotonic()
        return self._head()

    def wait(self, timeout_s: float, woken: socket.socket) -> None:
        until = time.monotonic() + timeout_s
        while (left := until - time.monotonic()) > 0:
            quiet = time.monotonic() - self._changed_s > QUIET_S
            if pause(min(LOOK_QUIET_S if quiet else LOOK_S, left), woken) or self._change_token() != self._seen:
                return

    def close(self) -> None:
        """Nothing is held."""
