"""The only source of the present time.

A recorder reads it once more for the append, and raises the reading above the last submission's recorded_at, so a clock
that steps back cannot reorder the record. (PostgreSQL adds the time that the append waited for its lock.) No other
module reads the time of day; durations are measured with `time.monotonic`.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Answers the present in microseconds since 1970, UTC."""

    def now(self) -> int: ...


class SystemClock:
    """The machine's clock, read as an integer with `time_ns`, so that freezing time in tests freezes it exactly."""

    def now(self) -> int:
        return time.time_ns() // 1000


class ManualClock:
    """A clock that its owner sets: for tests, simulations and the demo's invented past."""

    def __init__(self, now_us: int) -> None:
        self.now_us = now_us

    def now(self) -> int:
        return self.now_us
