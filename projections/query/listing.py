"""Every subject at once, at a moment: from the stored timelines, and from the events where those stayed behind it.

Reading on from where the stored timelines are costs as much as there is behind them: nothing nearly always, a few
events while somebody keeps the projector from writing, and many only where a ledger that was written to is opened
read-only. Proved by tests/query/test_state_and_timelines.py and tests/faults/test_behind.py.
"""

from __future__ import annotations

from heapq import nsmallest

from projections.query.snapshots import ReadContext
from projections.timelines.contract import Axis
from projections.timelines.sql import subject_range
from projections.timelines.store import Held, SubjectRow, TimelineStore


def subjects(
    moment: ReadContext,
    store: TimelineStore,
    kind: str | None = None,
    prefix: str | None = None,
    after: str | None = None,
    limit: int | None = None,
) -> tuple[int, list[SubjectRow]]:
    """(position, subjects that have a history in byte order), of the moment or of what was projected since."""
    tracked, rows = store.subjects(kind, prefix, after, limit)
    if tracked >= moment.position:
        return tracked, rows
    found = {row.subject: row for row in rows}
    wanted = subject_range(kind, prefix, after)
    if wanted is not None:
        low, high, above = wanted
        if limit is not None and len(rows) == limit:
            # The stored ones fill the page: none behind the last of them is on it.
            high = rows[-1].subject
        found |= _news(moment, tracked, low, high, above)
    listed = found.values()
    return moment.position, sorted(listed) if limit is None else nsmallest(limit, listed)


def held(moment: ReadContext, store: TimelineStore, axis: Axis, at: int, kind: str | None = None) -> list[Held] | None:
    """What holds at `at` (µs), clears included, by subject and setting in byte order. None: what is stored has moved
    on from the moment."""
    with store.snapshot(axis, at, kind) as stored:
        tracked = stored.position
        if tracked > moment.position:
            return None
        found: list[Held] = list(stored.held)
    wanted = subject_range(kind, None)
    if tracked == moment.position or wanted is None:
        return found
    news = _news(moment, tracked, *wanted)
    found = [said for said in found if said.subject not in news]
    for subject in news:
        for setting, both in moment.snapshot.kept(subject).history.items():
            change = (both.in_force if axis == "in_force" else both.current).at(at)
            if change is not None:
                found.append(Held(subject, setting, change))
    return sorted(found, key=lambda said: said[:2])


def _news(moment: ReadContext, tracked: int, low: str, high: str, above: str) -> dict[str, SubjectRow]:
    """The subjects of the range (see `subject_range`) with events behind `tracked`, as of the moment."""
    found: dict[str, SubjectRow] = {}
    while tracked < moment.position:
        page = moment.snapshot.ledger.page(tracked, until=moment.position)
        for entry in page:
            if low <= entry.subject <= high and entry.subject > above:
                found[entry.subject] = SubjectRow(entry.subject, entry.version, entry.position)
        tracked = page[-1].position
    return found
