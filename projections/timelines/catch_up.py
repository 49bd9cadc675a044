"""The projector as questions use it: brought in where there is news, never waited for while others are in its way.

A question can do without: what the stored timelines do not say yet is in the events. So where they cannot be written
(somebody holds the lock, the disk is full, the file is read-only) they stay behind for now, the question stands on the
ledger's head all the same, and the projector is tried again after a while. Proved by tests/faults/test_behind.py.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from ledger.errors import LedgerCorrupt, LedgerUnavailable
from ledger.recorders.contract import Head
from projections.timelines.contract import NotStored
from projections.timelines.projector import Projector

PATIENCE_S: Final = 0.05
"""For each lock. Others' commits take milliseconds: to wait for one is cheaper than to do without the timelines."""
RETRY_S: Final = 1.0
RETRY_S_MAX: Final = 15.0
"""Between attempts that fail: doubled from the first to the second. Each reads a page of the news before it fails."""

_log = logging.getLogger("inforce.projections")


class CatchUp:
    """For one thread at a time, except for `due`."""

    def __init__(self, projector: Projector) -> None:
        self._projector = projector
        self._failed = 0
        self._retry_at: float | None = None
        """By `time.monotonic`; None: the stored timelines are not behind."""

    def due(self) -> bool:
        """Whether the stored timelines stayed behind and it is time to try again."""
        return self._retry_at is not None and time.monotonic() >= self._retry_at

    def up_to(self, head: Head) -> Head:
        """Projects up to `head` and to what has come since, or leaves it for later: answers where to stand.

        Raises `LedgerCorrupt`, naming the position, at an event that cannot be read; `NotStored` where there are no
        timelines of this form; `LedgerUnavailable` where the ledger cannot be read either.
        """
        if self._retry_at is not None and not self.due():
            return head
        try:
            position = self._projector.catch_up(patience_s=PATIENCE_S).position
        except NotStored:
            raise
        except LedgerCorrupt:
            # To be told to every question, whatever one that did not wait for this stands on by now.
            self._retry_at = 0.0
            raise
        except LedgerUnavailable as error:
            # Where it cannot be read either, let that be said now, and not after more waiting for connections.
            self._projector.ledger.head()
            self._stay_behind(error)
            return head
        if self._failed > 1:
            _log.warning("the stored timelines are up to the ledger again, at position %s", position)
        self._failed, self._retry_at = 0, None
        if position <= head.position:
            return head
        entry = self._projector.ledger.recorder.entry(position)
        return head if entry is None else Head(position, entry.recorded_at)

    def left_behind(self) -> None:
        """Somebody stands on more than was projected last, having waited for nobody: it is time to try again."""
        if self._retry_at is None:
            self._retry_at = 0.0

    def _stay_behind(self, error: LedgerUnavailable) -> None:
        self._retry_at = time.monotonic() + min(RETRY_S * 2 ** min(self._failed, 10), RETRY_S_MAX)
        self._failed += 1
        if self._failed == 2:
            # The first may be an ordinary commit that took long.
            _log.warning(
                "the stored timelines stay behind the ledger, and what is new is read from its events: %s", error.detail
            )
