"""Local times to UTC, a column at a time, by the rule for one time in `projections.audit.reading.log_times`.

Proved by tests/audit/io/test_local_times.py.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final

import numpy as np

from ledger.errors import BadTime
from ledger.times import BEGINNING, END, parse_time
from projections.audit.reading.log_times import UnreadableValue, time_text

QUARTER_HOUR: Final = 15 * 60 * 1_000_000
"""Clocks mostly change on quarters of an hour; if they change within one, the offsets of its ends differ."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def to_utc(local: Any, zone: tzinfo) -> tuple[Any, Any]:
    """(µs since 1970, whether that is certain) for local times in µs: int64 and bool arrays.

    If both ends of a quarter of an hour have the same offset, all times between them have it. Other times are for the
    strict reader, which reads or rejects them.
    """
    if zone is UTC:
        return local, (local >= BEGINNING) & (local < END)
    quarters, places = np.unique(local // QUARTER_HOUR, return_inverse=True)
    by_quarter = [_offset(int(quarter) * QUARTER_HOUR, zone) for quarter in quarters]
    offsets = np.array([0 if offset is None else offset for offset in by_quarter], np.int64)[places]
    instants = local - offsets
    certain = np.array([offset is not None for offset in by_quarter], np.bool_)[places]
    return instants, certain & (instants >= BEGINNING) & (instants < END)


def _offset(begin: int, zone: tzinfo) -> int | None:
    """The offset (µs) of the whole quarter, or None if it has more than one or none."""
    try:
        ends = {local - parse_time(time_text(local_text(local), zone)) for local in (begin, begin + QUARTER_HOUR - 1)}
    except (UnreadableValue, BadTime, OverflowError):
        return None
    return ends.pop() if len(ends) == 1 else None


def local_text(local: int) -> str:
    """A local time in µs, as RFC 3339 without an offset. Raises `OverflowError` outside the years 1 to 9999."""
    return (_EPOCH + timedelta(microseconds=local)).replace(tzinfo=None).isoformat()
