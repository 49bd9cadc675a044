"""The ledger's change token, read once for all threads that ask for it together.

A caller must learn of everything that was committed before it asked. So a reading serves only callers that came before
it began: those that come while one is under way wait for its end, and then one more reading serves all of them.
Proved by tests/query/test_head_token.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ledger.recorders.contract import ChangeToken


class SharedChangeToken:
    """Safe to use from many threads. An error of `read` reaches only the caller whose reading failed."""

    def __init__(self, read: Callable[[], ChangeToken]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._begun = 0
        self._last: tuple[int, ChangeToken] | None = None

    def read(self) -> ChangeToken:
        begun = self._begun
        with self._lock:
            last = self._last
            if last is not None and last[0] > begun:
                return last[1]
            self._begun += 1
            change_token = self._read()
            self._last = (self._begun, change_token)
            return change_token
