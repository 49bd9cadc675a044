"""Who changed what: every event about a subject, newest first, retracted ones marked."""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from ledger.codec import parse_leaf
from ledger.errors import NotFound
from ledger.events import ChangeRetracted
from ledger.recorders.contract import Entry
from ledger.store import Ledger


class HistoryRow(NamedTuple):
    """`retracted_by`: the event id of the retraction that took the change back, or None."""

    entry: Entry
    setting: str
    reason: str | None
    retracted_by: str | None


class HistoryAnswer(NamedTuple):
    """`next_after`: the version to ask `after` for the rows behind these; None at the end. `position`: of the ledger,
    to which the answer is pinned."""

    subject: str
    rows: tuple[HistoryRow, ...]
    next_after: int | None
    position: int


def history(
    ledger: Ledger, subject: str, *, setting: str | None = None, after: int | None = None, limit: int = 100
) -> HistoryAnswer:
    """The subject's events with version < `after` (None: from the newest), up to `limit`. Raises `NotFound`.

    A change and its retraction stand in the same stream, so the marks are complete whatever the page.
    """
    position = ledger.head().position
    entries = [entry for entry in ledger.stream(subject) if entry.position <= position]
    if not entries:
        raise NotFound("the subject has no history in this ledger")
    retractions = [parse_leaf(entry.leaf) for entry in entries if entry.topic == ChangeRetracted.TOPIC]
    retracted = {str(leaf.data.retracts): leaf.id for leaf in retractions}
    older = ((entry, parse_leaf(entry.leaf)) for entry in reversed(entries) if after is None or entry.version < after)
    # One more than wanted tells whether there are any behind.
    wanted = list(islice((pair for pair in older if setting in (None, pair[1].data.setting)), limit + 1))
    page = wanted[:limit]
    reasons = ledger.reasons(entry.position for entry, _ in page)
    rows = tuple(
        HistoryRow(entry, leaf.data.setting, reasons.get(entry.position), retracted.get(leaf.id))
        for entry, leaf in page
    )
    return HistoryAnswer(subject, rows, page[-1][0].version if len(wanted) > limit else None, position)
