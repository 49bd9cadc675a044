"""A subject's history: every event about it with its actor, newest first, retracted changes marked."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

from ledger.codec import Leaf, parse_leaf
from ledger.errors import NotFound
from ledger.events import ChangeRetracted
from ledger.recorders.contract import Entry
from ledger.store import Ledger
from ledger.verbatim import valid_entries

_PAGE: Final = 1_000
"""Events read at a time."""


class HistoryRow(NamedTuple):
    """`retracted_by`: the event id of the retraction of this change, or None."""

    entry: Entry
    setting: str
    reason: str | None
    retracted_by: str | None


class HistoryAnswer(NamedTuple):
    """A page. `next_after`: the `after` of the next page; None on the last. `position`: the ledger's, to which the
    answer is pinned."""

    subject: str
    rows: tuple[HistoryRow, ...]
    next_after: int | None
    position: int


def history(
    ledger: Ledger, subject: str, *, setting: str | None = None, after: int | None = None, limit: int = 100
) -> HistoryAnswer:
    """The subject's events with version < `after` (None: from the newest), up to `limit`. Raises `NotFound`.

    Reads the events of the page, and the retractions newer than its oldest event. A retraction is in the same stream as
    its change and later, so `retracted_by` is complete on every page.
    """
    position = ledger.head().position
    newest = ledger.recorder.version_at(subject, position)
    if not newest:
        raise NotFound("the subject has no history in this ledger")
    older = _newest_first(ledger, subject, newest if after is None else min(newest, after - 1), limit + 1)
    # One more than the page holds shows whether there is a next page.
    matching = list(islice((pair for pair in older if setting in (None, pair[1].data.setting)), limit + 1))
    page = matching[:limit]
    retracted = _retracted(ledger, subject, page[-1][0].version, newest) if page else {}
    reasons = ledger.reasons(entry.position for entry, _ in page)
    rows = tuple(
        HistoryRow(entry, leaf.data.setting, reasons.get(entry.position), retracted.get(leaf.id))
        for entry, leaf in page
    )
    return HistoryAnswer(subject, rows, page[-1][0].version if len(matching) > limit else None, position)


def _newest_first(ledger: Ledger, subject: str, until: int, page: int) -> Iterator[tuple[Entry, Leaf]]:
    """The subject's events with version <= `until`, read `page` at a time."""
    while until > 0:
        entries = ledger.recorder.stream(subject, until=until, limit=page, newest_first=True)
        for entry in valid_entries(entries):
            yield entry, parse_leaf(entry.leaf)
        until = entries[-1].version - 1


def _retracted(ledger: Ledger, subject: str, after: int, until: int) -> dict[str, str]:
    """Event id → the id of its retraction, for the retractions with after < version <= until."""
    retracted: dict[str, str] = {}
    while after < until:
        # Not by a condition on the column `topic`: an event with an altered one would be left out.
        entries = ledger.recorder.stream(subject, after=after, until=until, limit=_PAGE)
        for entry in entries:
            if entry.topic == ChangeRetracted.TOPIC:
                leaf = parse_leaf(entry.leaf)
                retracted[str(leaf.data.retracts)] = leaf.id
        after += len(entries)
    return retracted
