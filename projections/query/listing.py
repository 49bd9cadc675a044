"""Questions about every subject at once: from the stored timelines, and from the events that these lack.

Reading those events costs as much as the stored timelines are behind: usually nothing, a few events while another
process keeps the projector from writing, and many only if a ledger with news is opened read-only.
Proved by tests/query/test_state_and_timelines.py and tests/faults/test_behind.py.
"""

from __future__ import annotations

from collections.abc import Collection

from projections.query.snapshots import ReadContext
from projections.timelines.catch_up import PATIENCE_S
from projections.timelines.contract import Axis, SubjectChange, SubjectRow
from projections.timelines.engine import subject_range
from projections.timelines.heal import heal
from projections.timelines.store import TimelineStore


def subjects(
    context: ReadContext,
    store: TimelineStore,
    kind: str | None = None,
    prefix: str | None = None,
    after: str | None = None,
    limit: int | None = None,
) -> tuple[int, list[SubjectRow]]:
    """(position, subjects that have a history in byte order), as of the context or of what was projected since."""
    tracked, (rows, damaged) = store.subjects(kind, prefix, after, limit)
    _heal(context, store, damaged)
    position = max(tracked, context.position)
    if tracked >= context.position and not damaged:
        return tracked, rows
    by_subject = {row.subject: row for row in rows}
    bounds = subject_range(kind, prefix, after)
    if bounds is not None:
        low, high, above = bounds
        if limit is not None and len(rows) == limit:
            # The stored rows fill the page, so no subject beyond the last of them belongs to it.
            high = rows[-1].subject
        by_subject |= {
            subject: row
            for subject in damaged
            if subject <= high and (row := _last_event(context, subject, tracked)) is not None
        }
        by_subject |= _subjects_since(context, tracked, low, high, above)
    return position, sorted(by_subject.values())[:limit]


def changes_at(
    context: ReadContext, store: TimelineStore, axis: Axis, at: int, kind: str | None = None
) -> list[SubjectChange] | None:
    """The change of every subject and setting at `at` (µs), clears included, by subject and setting in byte order.

    None: the stored timelines have moved on from the context.
    """
    with store.changes_at(axis, at, kind) as (tracked, stored):
        if tracked > context.position:
            return None
        changes = list(stored)
    _heal(context, store, stored.damaged)
    bounds = subject_range(kind, None)
    news = set(stored.damaged)
    if tracked < context.position and bounds is not None:
        news |= _subjects_since(context, tracked, *bounds).keys()
    if not news:
        return changes
    changes = [row for row in changes if row.subject not in news]
    for subject in news:
        for setting, both in context.snapshot.subject(subject).timelines.items():
            change = (both.in_force if axis == "in_force" else both.current).at(at)
            if change is not None:
                changes.append(SubjectChange(subject, setting, change))
    return sorted(changes, key=lambda row: row[:2])


def _heal(context: ReadContext, store: TimelineStore, damaged: Collection[str]) -> None:
    if damaged:
        heal(context.snapshot.ledger, store, damaged, patience_s=PATIENCE_S)


def _last_event(context: ReadContext, subject: str, tracked: int) -> SubjectRow | None:
    """The subject's row as it ought to be stored."""
    ledger = context.snapshot.ledger
    version = ledger.version_at(subject, tracked)
    if not version:
        return None
    (entry,) = ledger.stream(subject, after=version - 1, until=version)
    return SubjectRow(subject, version, entry.position)


def _subjects_since(context: ReadContext, tracked: int, low: str, high: str, above: str) -> dict[str, SubjectRow]:
    """The subjects of the range (see `subject_range`) with events behind `tracked`, as of the context."""
    rows: dict[str, SubjectRow] = {}
    for page in context.snapshot.ledger.pages(tracked, context.position):
        for entry in page:
            if low <= entry.subject <= high and entry.subject > above:
                rows[entry.subject] = SubjectRow(entry.subject, entry.version, entry.position)
    return rows
