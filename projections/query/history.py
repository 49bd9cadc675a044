"""A subject's history: every event about it with its actor, newest first, retracted changes marked.

Each change shows until when it decides, as known now and as known when it was recorded (`temporal.outlook`).
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Final, NamedTuple

from msgspec.structs import replace

from ledger.codec import Leaf, parse_leaf
from ledger.errors import NotFound
from ledger.near_names import did_you_mean
from ledger.recorders.contract import Entry
from ledger.store import Ledger
from ledger.subjects import kind_of
from ledger.verbatim import valid_entries
from projections.query.clock_notices import notice_at, notices_of_ledger
from projections.temporal.changes import Assertion, Change, Retraction, read_timeline_entries
from projections.temporal.coordinates import ClockNotice
from projections.temporal.outlook import Holding, holdings
from projections.timelines.store import timelines_as_stored
from projections.timelines.turns import require_turn

NO_HISTORY: Final = "the subject has no history in this ledger"
"""Of a subject that is unknown, and of one that the caller may not know: in the same words."""
BYTES_MAX: Final = 2 * 1024 * 1024
_Pair = tuple[Entry, Leaf]


class HistoryRow(NamedTuple):
    """`retracted_by`: the event id of the retraction of this change, or None. `holding`: None for a retraction."""

    entry: Entry
    setting: str
    reason: str | None
    retracted_by: str | None
    holding: Holding | None


class HistoryAnswer(NamedTuple):
    """A page. `next_after`: the `after` of the next page; None on the last. `position`: the ledger's, to which the
    answer is pinned. `clock_notice`: of the newest event of the page whose recorded_at rests on a clock that was ahead.
    """

    subject: str
    rows: tuple[HistoryRow, ...]
    next_after: int | None
    position: int
    clock_notice: ClockNotice | None = None


def history(
    ledger: Ledger,
    subject: str,
    *,
    setting: str | None = None,
    after: int | None = None,
    limit: int = 100,
    bytes_max: int = BYTES_MAX,
) -> HistoryAnswer:
    """The subject's events with version < `after` (None: from the newest), up to `limit`. Raises `NotFound`, also for
    a setting that was never defined.

    The page ends with the event that reaches `bytes_max`, its reason included.

    Reads the events of the page, and then all of the subject's: what a change still decides rests on them.
    """
    head = ledger.head()
    position = head.position
    if ledger.newest_of is None:
        ledger.newest_of = timelines_as_stored(ledger).newest
    newest = ledger.version_at(subject, position)
    if not newest:
        raise NotFound(NO_HISTORY)
    require_turn(newest)
    until = newest if after is None else min(newest, after - 1)
    older = _newest_first(ledger, subject, until, limit + 1, bytes_max)
    # One more than the page holds shows whether there is a next page.
    page, more = _up_to(limit, bytes_max, (pair for pair in older if setting in (None, pair[1].data.setting)))
    assertions = list(_assertions(ledger, subject, newest, {leaf.data.setting for _, leaf in page})) if page else []
    retracted = {one.retracts: one.event_id for one in assertions if isinstance(one, Retraction)}
    held = holdings(assertions, {entry.position for entry, _ in page})
    personal = ledger.personal(entry for entry, _ in page)
    reasons = {position: data.reason for position, data in personal.items()}
    rows: list[HistoryRow] = []
    bytes_ = 0
    for entry, leaf in page:
        if bytes_ >= bytes_max:
            more = True
            break
        reason = reasons.get(entry.position)
        bytes_ += len(entry.leaf) + len((reason or "").encode())
        by, holding = retracted.get(leaf.id), held.get(entry.position)
        rows.append(HistoryRow(entry, leaf.data.setting, reason, by, holding))
    if setting is not None and not rows and setting not in (catalog := ledger.catalog()):
        near = did_you_mean(setting, catalog.names(kind_of(subject)))
        raise NotFound(f"no such setting was ever defined{near}; the catalog lists those that are")
    notice = notice_at(notices_of_ledger(ledger, head), *(row.entry.recorded_at for row in rows))
    return HistoryAnswer(subject, tuple(rows), rows[-1].entry.version if more else None, position, notice)


def _up_to(limit: int, bytes_max: int, pairs: Iterator[_Pair]) -> tuple[list[_Pair], bool]:
    """(the first pairs, whether there are more)."""
    page: list[_Pair] = []
    bytes_ = 0
    for pair in pairs:
        if len(page) == limit or bytes_ >= bytes_max:
            return page, True
        page.append(pair)
        bytes_ += len(pair[0].leaf)
    return page, False


def _newest_first(ledger: Ledger, subject: str, until: int, page: int, bytes_max: int) -> Iterator[_Pair]:
    """The subject's events with version <= `until`, read `page` or `bytes_max` at a time."""
    recorder = ledger.recorder
    while until > 0:
        length = recorder.stream_length(subject, 0, until, page, bytes_max, newest_first=True)
        entries = recorder.stream(subject, until=until, limit=length, newest_first=True)
        for entry in valid_entries(entries):
            yield entry, parse_leaf(entry.leaf)
        until = entries[-1].version - 1


def _assertions(ledger: Ledger, subject: str, until: int, settings: Container[str]) -> Iterator[Assertion]:
    """The subject's changes and retractions of these settings with version <= `until`, oldest first, without the
    values, which take the memory and are not needed."""
    for one in read_timeline_entries(ledger.stream_entries(subject, until=until)):
        if one.setting in settings:
            yield (
                replace(one, value=None)
                if isinstance(one, Change) and isinstance(one.value, str | list | dict)
                else one
            )
