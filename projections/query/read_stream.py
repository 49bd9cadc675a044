"""A subject's changes and retractions, a page of its stream at a time: a long history takes no more memory than a page.

Proved by tests/query/test_outlooks.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ledger.store import Ledger
from projections.temporal.changes import Assertion, read_entries

EVENTS_MAX: Final = 1_000
BYTES_MAX: Final = 2 * 1024 * 1024
"""Of a page."""


def read_stream(ledger: Ledger, subject: str, until: int) -> Iterator[Assertion]:
    """Those with version <= `until`, oldest first. Raises `LedgerUnavailable` and `LedgerCorrupt`."""
    after = 0
    while after < until:
        length = EVENTS_MAX
        if until - after > _FEW:
            length = ledger.recorder.stream_length(subject, after, until, EVENTS_MAX, BYTES_MAX)
        entries = ledger.recorder.stream(subject, after=after, until=until, limit=length)
        yield from read_entries(entries)
        after += len(entries)


_FEW: Final = 32
"""Events, each of at most some 100 kB, that need no look at their size."""
