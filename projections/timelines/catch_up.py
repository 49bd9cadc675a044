"""The projector as questions use it: called if there are new events, and never waited for while others block it.

A question can do without the projector, because what the stored timelines lack is in the events. So if they cannot be
written (another process holds the lock, the disk is full, the file is read-only), they stay behind for now, the
question sees the ledger's head all the same, and a later question tries the projector again.
Proved by tests/faults/test_behind.py.
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
"""For each lock. Others' commits take milliseconds: waiting for one is cheaper than reading events instead."""
RETRY_S: Final = 1.0
RETRY_S_MAX: Final = 15.0
"""Between failing attempts: doubles from the first to the maximum. Each reads a page of events before it fails."""

_log = logging.getLogger("inforce.projections")


class CatchUp:
    """For one thread at a time, except for `retry_due`."""

    def __init__(self, projector: Projector) -> None:
        self._projector = projector
        self._failures = 0
        self._retry_at: float | None = None
        """By `time.monotonic`; None: the stored timelines are not behind."""

    def retry_due(self) -> bool:
        """Whether the stored timelines are behind and it is time to try again."""
        return self._retry_at is not None and time.monotonic() >= self._retry_at

    def retry_soon(self) -> None:
        """For a caller that found a newer head than was projected last: makes `retry_due` true."""
        if self._retry_at is None:
            self._retry_at = 0.0

    def up_to(self, head: Head) -> Head:
        """Projects up to `head` and what has come since, or puts it off. Returns the head that the question sees.

        Raises `LedgerCorrupt`, naming the position, at an unreadable event; `NotStored` if there are no timelines of
        this format; `LedgerUnavailable` if the ledger cannot be read either.
        """
        if self._retry_at is not None and not self.retry_due():
            return head
        try:
            position = self._projector.catch_up(patience_s=PATIENCE_S)
        except NotStored:
            raise
        except LedgerCorrupt:
            # Every question shall get this error, also one after another that did not wait for the projector.
            self._retry_at = 0.0
            raise
        except LedgerUnavailable as error:
            # Raises now if the ledger cannot be read either, instead of after more waiting for connections.
            self._projector.ledger.head()
            self._retry_later(error)
            return head
        if self._failures > 1:
            _log.warning("the stored timelines are up to the ledger again, at position %s", position)
        self._failures, self._retry_at = 0, None
        _log.debug("the stored timelines are up to position %s", position)
        if position <= head.position:
            return head
        entry = self._projector.ledger.recorder.entry(position)
        return head if entry is None else Head(position, entry.recorded_at)

    def _retry_later(self, error: LedgerUnavailable) -> None:
        self._retry_at = time.monotonic() + min(RETRY_S * 2 ** min(self._failures, 10), RETRY_S_MAX)
        self._failures += 1
        if self._failures == 2:
            # The first failure may be an ordinary commit that took long.
            _log.warning(
                "the stored timelines stay behind the ledger, and what is new is read from its events: %s", error.detail
            )
