"""How who writes in turns with others leaves them theirs.

On SQLite one writer keeps out all others, and the lock is given to whoever happens to ask at the right moment: others
ask every tenth of a second at the least, and for five seconds in all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

PAUSE_S_MAX: Final = 0.5
COMPANY_S: Final = 1.0
"""So long after others wrote they are expected to write again."""
ALONE: Final = 0.25
"""Of the last turn: enough for whoever comes to find the lock free after a few attempts."""


class Pace:
    """`with` around each turn: between two there is as long a pause as the last one took, or a quarter of it while
    nobody else writes.

    `others`: answers another value after others wrote. None: who writes is in nobody's way, so there are no pauses.
    """

    def __init__(self, others: Callable[[], object] | None) -> None:
        self._others = others
        self._seen = others() if others is not None else None
        self._company_until = self._began = self._free_until = 0.0

    def __enter__(self) -> None:
        now = time.monotonic()
        if now < self._free_until:
            time.sleep(self._free_until - now)
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        if self._others is None:
            return
        now = time.monotonic()
        seen = self._others()
        if seen != self._seen:
            self._seen = seen
            self._company_until = now + COMPANY_S
        pause = min(now - self._began, PAUSE_S_MAX)
        self._free_until = now + (pause if now < self._company_until else ALONE * pause)
