"""Compares the stored timelines with the events, subject by subject. It reads only.

Proved by tests/life/test_check.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from ledger.errors import DamagedEvent, LedgerCorrupt
from ledger.store import Ledger
from projections.timelines.contract import LIVE, NotStored, StoredRow, TrackingDamaged
from projections.timelines.heal import folded_rows
from projections.timelines.sql import TimelineReader
from projections.timelines.store import TimelineStore


def timeline_faults(ledger: Ledger, store: TimelineStore) -> Iterator[str]:
    """Every fault, one sentence each. A ledger without timelines of today's format has none: they are made anew."""
    try:
        with store.reading() as tables:
            tracked = tables.tracked()
            if tracked > ledger.head().position:
                yield f"the stored timelines are at position {tracked}, and the ledger ends before"
                return
            for row in tables.rows():
                if not _is_right(ledger, tables, row, tracked):
                    yield (
                        f"the stored timelines of the subject of the event at position {row.position} are not what its "
                        "events say; they are made anew when they are next read, or by inforce rebuild"
                    )
            for subject in tables.missing(tracked):
                position = ledger.recorder.stream(subject, limit=1, newest_first=True)[0].position
                yield f"the stored timelines of the subject of the event at position {position} are missing or older"
    except TrackingDamaged as error:
        yield error.detail
    except NotStored:
        return
    except LedgerCorrupt as error:
        yield error.detail


def _is_right(ledger: Ledger, tables: TimelineReader, row: StoredRow, tracked: int) -> bool:
    try:
        # Compares the checksums, too.
        tables.timelines([row.subject])
        return folded_rows(ledger, row.subject, tracked) == tables.stored(LIVE, row.subject)
    except DamagedEvent:
        # Named already.
        return True
    except LedgerCorrupt:
        return False
