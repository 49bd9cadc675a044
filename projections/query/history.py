"""Who changed what: every event about a subject, newest first, retracted ones marked."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from ledger.codec import Leaf, parse_leaf
from ledger.errors import NotFound
from ledger.events import ChangeRetracted
from ledger.recorders.contract import Entry
from ledger.store import Ledger
from ledger.verbatim import valid_entries


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

    Reads what the page takes, and the retractions that are newer than its oldest event: a change and its retraction
    stand in the same stream, the retraction later, so the marks are complete whatever the page.
    """
    position = ledger.head().position
    newest = ledger.recorder.version_at(subject, position)
    if not newest:
        raise NotFound("the subject has no history in this ledger")
    older = _newest_first(ledger, subject, newest if after is None else min(newest, after - 1), limit + 1)
    # One more than wanted tells whether there are any behind.
    wanted = list(islice((pair for pair in older if setting in (None, pair[1].data.setting)), limit + 1))
    page = wanted[:limit]
    retracted = _retracted(ledger, subject, page[-1][0].version, newest) if page else {}
    reasons = ledger.reasons(entry.position for entry, _ in page)
    rows = tuple(
        HistoryRow(entry, leaf.data.setting, reasons.get(entry.position), retracted.get(leaf.id))
        for entry, leaf in page
    )
    return HistoryAnswer(subject, rows, page[-1][0].version if len(wanted) > limit else None, position)


def _newest_first(ledger: Ledger, subject: str, until: int, page: int) -> Iterator[tuple[Entry, Leaf]]:
    """The subject's events with version <= `until`, read `page` at a time."""
    while until > 0:
        entries = ledger.recorder.stream(subject, until=until, limit=page, newest_first=True)
        for entry in valid_entries(entries):
            yield entry, parse_leaf(entry.leaf)
        until = entries[-1].version - 1


def _retracted(ledger: Ledger, subject: str, after: int, until: int) -> dict[str, str]:
    """Event id → the id of its retraction, of what was taken back by an event with after < version <= until."""
    entries = ledger.recorder.stream(subject, after=after, until=until, topic=ChangeRetracted.TOPIC)
    leaves = [parse_leaf(entry.leaf) for entry in entries]
    return {str(leaf.data.retracts): leaf.id for leaf in leaves}
