"""Times without an offset, a column at a time, by the rules of `projections.audit.reading.fields` for one.

Proved by tests/audit/io/test_local_times.py.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final

import numpy as np

from ledger.errors import BadTime
from ledger.times import BEGINNING, END, parse_time
from projections.audit.reading.fields import UnreadableValue, time_text

STRETCH: Final = 15 * 60 * 1_000_000
"""Clocks are mostly changed on quarters of an hour; where they are not, the ends of the stretch differ."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def to_utc(local: Any, zone: tzinfo) -> tuple[Any, Any]:
    """(µs since 1970, whether it can be said this way) of clock times in µs as if they were UTC: int64 arrays.

    Where the two ends of a quarter of an hour have the same offset, everything between them has it. A time for which
    it cannot be said this way is for the strict reader, which takes or refuses it.
    """
    if zone is UTC:
        return local, (local >= BEGINNING) & (local < END)
    stretches, places = np.unique(local // STRETCH, return_inverse=True)
    found = [_offset(int(stretch) * STRETCH, zone) for stretch in stretches]
    offsets = np.array([0 if offset is None else offset for offset in found], np.int64)[places]
    instants = local - offsets
    said = np.array([offset is not None for offset in found], np.bool_)[places]
    return instants, said & (instants >= BEGINNING) & (instants < END)


def _offset(begin: int, zone: tzinfo) -> int | None:
    """The offset (µs) of a whole stretch, or None."""
    try:
        ends = {local - parse_time(time_text(local_text(local), zone)) for local in (begin, begin + STRETCH - 1)}
    except (UnreadableValue, BadTime, OverflowError):
        return None
    return ends.pop() if len(ends) == 1 else None


def local_text(local: int) -> str:
    """A clock time in µs, as RFC 3339 without an offset. Raises `OverflowError` outside the years 1 to 9999."""
    return (_EPOCH + timedelta(microseconds=local)).replace(tzinfo=None).isoformat()
