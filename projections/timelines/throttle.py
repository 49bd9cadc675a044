"""Throttles a bulk writer so that other processes get the SQLite lock.

SQLite has one writer at a time, and its lock goes to whichever process happens to ask at the right moment. Others ask
at least every tenth of a second, and give up after five seconds. Proved by tests/timelines/test_throttle.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

PAUSE_S_MAX: Final = 0.5
ACTIVE_S: Final = 1.0
"""After other writers recorded events, they are expected to write again for so long."""
IDLE_SHARE: Final = 0.25
"""Of the last turn: enough for a new writer to find the lock free after a few attempts."""


class Throttle:
    """A context manager for each write. It pauses between two as long as the last one took (a quarter of that while no
    other process writes).

    `probe`: its value changes after other writers recorded events. None: nothing has to wait for this writer, so there
    are no pauses.
    """

    def __init__(
        self,
        probe: Callable[[], object] | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._probe = probe
        self._clock = clock
        self._sleep = sleep
        self._last_value = probe() if probe is not None else None
        self._active_until = self._began = self._free_until = 0.0

    def __enter__(self) -> None:
        now = self._clock()
        if now < self._free_until:
            self._sleep(self._free_until - now)
        self._began = self._clock()

    def __exit__(self, *_: object) -> None:
        if self._probe is None:
            return
        now = self._clock()
        value = self._probe()
        if value != self._last_value:
            self._last_value = value
            self._active_until = now + ACTIVE_S
        pause = min(now - self._began, PAUSE_S_MAX)
        self._free_until = now + (pause if now < self._active_until else IDLE_SHARE * pause)
