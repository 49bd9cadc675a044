"""Writes damaged rows of stored timelines anew, from the events, which say everything that they say.

A question never waits for that, and is answered from the events meanwhile (see `query.snapshots`).
Proved by tests/contracts/test_damaged_timelines.py.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Final

from ledger.errors import LedgerUnavailable
from ledger.store import Ledger
from projections.temporal.changes import read_timeline_entries
from projections.temporal.in_force import fold_both
from projections.timelines.checksums import block_sum
from projections.timelines.contract import LIVE, BlockRow, StoredRow
from projections.timelines.encoding import StoredSetting, TimelineSuffix, encode_setting, encode_settings
from projections.timelines.store import TimelineStore

_ATTEMPTS: Final = 3
"""A projector may write between the reading of a subject's events and the writing of its rows."""

_log = logging.getLogger("inforce.projections")


def heal(ledger: Ledger, store: TimelineStore, subjects: Collection[str], *, patience_s: float | None = None) -> bool:
    """Writes all live rows of these subjects anew. False: the timelines cannot be written now.

    Raises `LedgerCorrupt` if the subjects' events cannot be read.
    """
    store.damaged_rows += len(subjects)
    _log.error("the stored timelines of %d subjects are damaged, and are made anew from the events", len(subjects))
    try:
        return all(_healed(ledger, store, subject, patience_s) for subject in sorted(subjects))
    except LedgerUnavailable as error:
        _log.error("they cannot be written, so these subjects are read from the events: %s", error.detail)
        return False


def _healed(ledger: Ledger, store: TimelineStore, subject: str, patience_s: float | None) -> bool:
    for _attempt in range(_ATTEMPTS):
        tracked = store.tracked()
        row, blocks = folded_rows(ledger, subject, tracked)
        with store.writing(LIVE, patience_s=patience_s) as tables:
            if tables.tracked() == tracked:
                tables.replace(LIVE, subject, row, blocks)
                return True
    return False


def folded_rows(ledger: Ledger, subject: str, position: int) -> tuple[StoredRow | None, list[BlockRow]]:
    """The rows of the subject as of a position; None if it has no events up to there. Raises `LedgerCorrupt`."""
    version = ledger.version_at(subject, position)
    if not version:
        return None, []
    by_setting = fold_both(read_timeline_entries(ledger.stream_entries(subject, until=version)))
    (last,) = ledger.stream(subject, after=version - 1, until=version)
    settings: dict[str, StoredSetting] = {}
    blocks: list[BlockRow] = []
    for setting, both in by_setting.items():
        stored, new_blocks = encode_setting(subject, setting, TimelineSuffix(0, both, ()))
        if stored is not None:
            settings[setting] = stored
        blocks += new_blocks
    row = StoredRow(subject, version, last.position, encode_settings(settings), block_sum(blocks))
    return row, sorted(blocks)
