"""The questions of callers whose roles are at one subject: their answers hold what is within the caller's reach.

A foreign subject is answered in the bytes of one that does not exist, and no cursor names one. All functions read the
ledger: call them in a question's thread. Proved by tests/api/access.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from api.responses import PAGE_BYTES
from api.service import Service
from ledger.errors import NotFound
from ledger.reader import UNKNOWN_EVENT
from ledger.recorders.contract import Entry
from ledger.subjects import KINDS, RESERVED_KINDS, kind_of
from ledger.verbatim import valid_entries
from projections.access.reach import OWNED_KINDS, Reach, reach_of
from projections.access.rights import PUBLISHED_KINDS, Caller, Need
from projections.query.history import NO_HISTORY
from projections.query.query import StateAnswer
from projections.query.snapshots import KnownAt
from projections.timelines.contract import SubjectRow

SCANNED_MAX: Final = 20_000
"""Events of the feed that one page looks through."""
_PAGE: Final = 1000


def require_subject(
    service: Service, caller: Caller, need: Need, subject: str, *, at: int | None = None, known_at: KnownAt = None
) -> None:
    """Raises `NotFound` if the caller may not read the subject at (at, known_at); `at` (µs) None: at present. The
    settings of tomorrow show those of today, so a later instant is for those who also reach the subject at present."""
    if caller.extent(need) == "all":
        return
    context = service.query.context()
    instants = {context.now} if at is None else {at, min(at, context.now)}
    if not all(Reach(caller, context, instant, known_at).may_read(subject) for instant in instants):
        raise NotFound(NO_HISTORY)


def without_foreign_next(service: Service, caller: Caller, state: StateAnswer, known_at: KnownAt) -> StateAnswer:
    """The state without each next change that began when the subject was beyond the caller's reach: it is of the owner
    that the subject moved to."""
    if caller.extent(Need.STATE) == "all":
        return state
    context = service.query.context()
    starts = {min(following.start, context.now) for following in state.next.values()}
    own = {start for start in starts if Reach(caller, context, start, known_at).may_read(state.subject)}
    return state._replace(next={key: one for key, one in state.next.items() if min(one.start, context.now) in own})


def event(service: Service, caller: Caller, event_id: str) -> Entry:
    """Raises `NotFound`."""
    entry = service.ledger.event(event_id)
    reach = reach_of(caller, Need.FEED, service.query)
    if reach is not None and not reach.may_read(entry.subject):
        raise NotFound(UNKNOWN_EVENT)
    return entry


def feed(service: Service, caller: Caller, after: int, limit: int, subject: str | None) -> tuple[list[Entry], int, int]:
    """As `Service.feed`. A page that looked through `SCANNED_MAX` events may hold fewer than `limit` of them."""
    reach = reach_of(caller, Need.FEED, service.query)
    if reach is None:
        return service.feed(after, limit, subject)
    if subject is not None:
        if reach.may_read(subject):
            return service.feed(after, limit, subject)
        head = service.ledger.require_reached(after)
        return [], max(after, head), head
    head = service.ledger.require_reached(after)
    page: list[Entry] = []
    last, size = after, 0
    while last < min(head, after + SCANNED_MAX):
        for entry in valid_entries(service.ledger.page(last, _PAGE, head, PAGE_BYTES)):
            last = entry.position
            if not reach.may_read(entry.subject):
                continue
            page.append(entry)
            size += len(entry.leaf)
            if len(page) == limit or size >= PAGE_BYTES:
                return page, last, head
    return page, last, head


def subjects(
    service: Service, caller: Caller, kind: str | None, prefix: str | None, after: str | None, limit: int
) -> tuple[int, list[SubjectRow]]:
    """As `Query.subjects`."""
    reach = reach_of(caller, Need.SUBJECTS, service.query)
    if reach is None:
        return service.query.subjects(kind, prefix, after, limit)
    position = service.query.context().position
    kinds = sorted((*KINDS, *RESERVED_KINDS)) if kind is None else [kind]
    rows: list[SubjectRow] = []
    for one in kinds:
        for row in _of_kind(service, caller, one, prefix, after):
            if reach.may_read(row.subject):
                rows.append(row)
                if len(rows) == limit:
                    return position, rows
    return position, rows


def _of_kind(
    service: Service, caller: Caller, kind: str, prefix: str | None, after: str | None
) -> Iterator[SubjectRow]:
    """The subjects of a kind that may be within the caller's reach, in byte order."""
    if kind in PUBLISHED_KINDS or kind in OWNED_KINDS:
        while rows := service.query.subjects(kind, prefix, after, _PAGE)[1]:
            yield from rows
            after = rows[-1].subject
        return
    for subject in sorted(caller.own()):
        if kind_of(subject) == kind:
            # Its own row, if it has a history.
            rows = service.query.subjects(kind, subject, None, 1)[1]
            is_behind = after is None or subject > after
            if is_behind and subject.startswith(prefix or "") and rows and rows[0].subject == subject:
                yield rows[0]
