"""The ledger's mark, read once for all who ask for it together.

Whoever asks must be told of everything that was committed before. So a reading serves them only if it began after
they came: those who come while one is under way wait for its end, and one more then serves them all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ledger.recorders.contract import ChangeToken


class SharedChangeToken:
    """Safe to use from many threads. Raises what `read` raises, to whoever it was read for first."""

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
