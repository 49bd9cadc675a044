"""Whether the ledger may grow: the clock must not be far behind the head, and the head must not have gone back.

A recorder asks its guard at each append, under the append lock: three cheap comparisons. Only where one fails does
`writability.resolve` read more of the ledger.
Proved by tests/contracts/test_clock_behind.py and tests/contracts/test_went_back.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from ledger.acknowledgements import AcknowledgedClock
from ledger.errors import NotWritable
from ledger.head_memory import HeadMemory, RememberedHead
from ledger.times import SECOND

CLOCK_BEHIND_MAX_S: Final = 60.0
"""A clock that was set back by more than this is refused. Below it, recorded_at is set above the last one's."""
CLOCK_BEHIND_S_MIN: Final = 1.0
"""The smallest bound: machines that share a ledger differ by milliseconds."""
CLOCK_BEHIND_S_MAX: Final = 1e9
"""The largest bound, some 30 years: a number that every database can add to an instant."""
_HIGHEST: Final = 2**62

OnChange = Callable[[NotWritable | None], None]


class LedgerIdentity(NamedTuple):
    """The part of a `RememberedHead` that rarely changes."""

    origin: str
    incarnation: str | None
    generation: int


class AppendGuard:
    """Safe to use from many threads."""

    def __init__(self) -> None:
        self.behind_max_us = round(CLOCK_BEHIND_MAX_S * SECOND)
        self.memory = HeadMemory()
        self.identity: LedgerIdentity | None = None
        """None: nothing was appended yet."""
        self.acknowledged_clock: AcknowledgedClock | None = None
        self.acknowledging = False
        """Set by an operator's acknowledgement, in a process of its own: then everything is let pass."""
        self.on_change: OnChange = lambda _problem: None
        """Gets each new reason for which nothing is recorded, and None once recording goes on. Must not raise."""
        self._problem: NotWritable | None = None
        self._lock = threading.Lock()

    def clock_allows(self, position: int, recorded_at: int | None, now: int) -> bool:
        """Whether a clock that shows `now` may record after the head at `position`, recorded at `recorded_at` (µs)."""
        if recorded_at is None or recorded_at - now <= self.behind_max_us or self.acknowledging:
            return True
        return self.acknowledged_clock is not None and self.acknowledged_clock.covers(position, recorded_at)

    def head_max(self, now: int) -> tuple[int, int]:
        """`clock_allows` for SQL: it holds if the head's recorded_at is at most the first number, or if that less the
        head's position is at most the second."""
        if self.acknowledging:
            return _HIGHEST, _HIGHEST
        acknowledged = self.acknowledged_clock
        covered = -_HIGHEST if acknowledged is None else acknowledged.recorded_at - acknowledged.position
        return now + self.behind_max_us, covered

    def remembered(self) -> RememberedHead | None:
        """The head that the ledger must still hold; None: any is right."""
        return None if self.acknowledging else self.memory.newest()

    def remember(self, position: int, recorded_at: int, event_id: str) -> None:
        """The ledger holds this event, its newest so far, durably."""
        if not self.acknowledging and self.identity is not None:
            self.memory.remember(RememberedHead(*self.identity, position, recorded_at, event_id))

    def note(self, problem: NotWritable | None) -> None:
        """Reports a change: the reason for which nothing is recorded, or None."""
        if problem is None and self._problem is None:
            return
        with self._lock:
            before, self._problem = self._problem, problem
        if type(before) is not type(problem):
            self.on_change(problem)


def is_in_leaf(head: RememberedHead, leaf: object) -> bool:
    """Whether this is the leaf of the event that was the head. SQLite stores a value of any type in any column."""
    return isinstance(leaf, bytes) and id_member(head.event_id) in leaf


def id_member(event_id: str) -> bytes:
    """The part of a leaf that holds its event id."""
    return b'"id":"%b"' % event_id.encode()
