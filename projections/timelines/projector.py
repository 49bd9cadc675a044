"""The projector: brings the stored timelines up to the ledger.

Events are taken a page at a time. What they change and the tracked position are written by one transaction, which
first sees that nobody else has projected them, so each is projected exactly once.
A submission is never split: who reads the timelines sees all of it or nothing.
Proved by tests/contracts: test_catching_up.py, test_projectors_at_once.py, test_timelines.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from ledger.errors import LedgerCorrupt, LedgerUnavailable
from ledger.recorders.contract import Entry
from ledger.store import Ledger
from ledger.times import BEGINNING
from projections.temporal.changes import Assertion, Change, Retraction, read_entry
from projections.temporal.in_force import extend
from projections.timelines.contract import LIVE, BlockRow, Side, StoredRow, SubjectRow, Tail, Update, Writing
from projections.timelines.encoding import encoded, part, settings_of, stored_form
from projections.timelines.store import TimelineStore

PAGE_EVENTS: Final = 5000

Progress = Callable[[int, int], None]
"""Called with the position reached and the ledger's head."""


class CaughtUp(NamedTuple):
    """`position`: up to where the ledger is projected now; `subjects`: those that this call projected news of."""

    position: int
    subjects: frozenset[str]


class _News(NamedTuple):
    """A page of the ledger, made ready: everything that projecting needs to know of the ledger itself."""

    position: int
    """Of the last event."""
    last: bool
    """Whether the ledger ended there when it was read."""
    assertions: dict[str, dict[str, list[Assertion]]]
    """Subject → setting → what is said, in the order of subjects."""
    known: dict[tuple[str, str], list[Change]]
    """Where something is retracted: the unretracted changes before the page (see `extend`)."""
    begun: list[str]
    """The subjects that have events before the page."""
    heads: dict[str, SubjectRow]


class Projector:
    """One ledger's projector. Safe to use from many threads, and beside those of other processes."""

    def __init__(self, ledger: Ledger, store: TimelineStore, *, page_events: int = PAGE_EVENTS) -> None:
        self.ledger = ledger
        self.store = store
        self.page_events = page_events
        # One thread of a process does the work; the others would only do it again and throw it away.
        self._lock = threading.Lock()

    def catch_up(self, limit: int | None = None, *, patience_s: float | None = None) -> CaughtUp:
        """Projects what the ledger holds, or about `limit` events of it, ending with a whole submission.

        Raises `LedgerCorrupt`, naming the position, at an event that cannot be read: the submissions before it are
        projected and stay so. Raises `LedgerUnavailable` where there is news and the ledger cannot be written, or not
        within `patience_s` for each lock that others hold.
        """
        if not self._lock.acquire(timeout=-1 if patience_s is None else patience_s):
            raise LedgerUnavailable("another thread is bringing the stored timelines up to the ledger; try again")
        try:
            return self.catch_up_side(LIVE, limit, patience_s=patience_s)
        finally:
            self._lock.release()

    def catch_up_side(
        self, side: Side, limit: int | None = None, progress: Progress | None = None, *, patience_s: float | None = None
    ) -> CaughtUp:
        """`catch_up` for the tables of a side, whose only projector in this process this is."""
        subjects: set[str] = set()
        begun = after = self._tracked(side)
        while limit is None or after - begun < limit:
            page_events = self.page_events if limit is None else min(self.page_events, limit - (after - begun))
            news = self._news(after, page_events)
            if news is None:
                self._check_not_beyond(after)
                break
            with self.store.writing(side, patience_s=patience_s) as tables:
                tracked = tables.tracked(side)
                if tracked == after:
                    _project(tables, side, news)
                    tracked = news.position
                    subjects.update(news.heads)
            after = tracked
            if progress is not None:
                progress(after, self.ledger.head().position)
            if news.last and after == news.position:
                break
        return CaughtUp(after, frozenset(subjects))

    def _tracked(self, side: Side) -> int:
        with self.store.reading(side) as tables:
            return tables.tracked(side)

    def _check_not_beyond(self, position: int) -> None:
        head = self.ledger.head().position
        if head < position:
            raise LedgerCorrupt(
                f"the stored timelines are at position {position} and the ledger ends at {head}; run inforce rebuild"
            )

    def _news(self, after: int, limit: int) -> _News | None:
        entries, last = self._whole_submissions(after, limit)
        read = _readable(entries)
        if not read:
            return None
        assertions: dict[str, dict[str, list[Assertion]]] = {}
        heads: dict[str, SubjectRow] = {}
        begun: list[str] = []
        retracting: dict[tuple[str, str], int] = {}
        for entry, said in read:
            subject = entry.subject
            settings = assertions.get(subject)
            if settings is None:
                settings = assertions[subject] = {}
                if entry.version > 1:
                    begun.append(subject)
            settings.setdefault(said.setting, []).append(said)
            heads[subject] = SubjectRow(subject, entry.version, entry.position)
            if isinstance(said, Retraction):
                retracting[subject, said.setting] = settings[said.setting][0].version - 1
        return _News(
            position=read[-1][0].position,
            last=last and len(read) == len(entries),
            # In the order of the key, neighbours are written to the same page of the table.
            assertions=dict(sorted(assertions.items())),
            known={pair: self._unretracted(*pair, until=until) for pair, until in retracting.items()},
            begun=begun,
            heads=heads,
        )

    def _whole_submissions(self, after: int, limit: int) -> tuple[Sequence[Entry], bool]:
        """At most `limit` entries, or one submission; and whether the ledger ends there.

        One recorded_at is one submission's, and no other's.
        """
        # One more than wanted tells whether the last submission ends here.
        entries = self.ledger.page(after, limit + 1)
        if len(entries) <= limit:
            return entries, True
        cut = entries[-1].recorded_at
        whole = [entry for entry in entries if entry.recorded_at != cut]
        if whole:
            return whole, False
        while len(entries) > limit and entries[-1].recorded_at == cut:
            limit *= 2
            entries = self.ledger.page(after, limit + 1)
        return [entry for entry in entries if entry.recorded_at == cut], False

    def _unretracted(self, subject: str, setting: str, until: int) -> list[Change]:
        changes: dict[str, Change] = {}
        for entry in self.ledger.stream(subject, until=until):
            assertion = read_entry(entry.position, entry.version, entry.leaf)
            if assertion.setting != setting:
                continue
            if isinstance(assertion, Retraction):
                changes.pop(assertion.retracts, None)
            else:
                changes[assertion.event_id] = assertion
        return list(changes.values())


def _readable(entries: Sequence[Entry]) -> list[tuple[Entry, Assertion]]:
    """The entries with what they say: all, or where one cannot be read those of the submissions before it.

    Raises `LedgerCorrupt` where there are none before it.
    """
    read: list[tuple[Entry, Assertion]] = []
    for entry in entries:
        try:
            read.append((entry, read_entry(entry.position, entry.version, entry.leaf)))
        except LedgerCorrupt:
            before = [one for one in read if one[0].recorded_at != entry.recorded_at]
            if not before:
                raise
            return before
    return read


def _project(tables: Writing, side: Side, news: _News) -> None:
    before = tables.load(side, news.begun) if news.begun else {}
    removed: list[Tail] = []
    blocks: list[BlockRow] = []
    rows: list[StoredRow] = []
    for subject, said in news.assertions.items():
        row = before.get(subject)
        settings = {} if row is None else settings_of(subject, row.settings)
        for setting, assertions in said.items():
            load = partial(tables.load_blocks, side, subject, setting)
            old = part(subject, settings.pop(setting, None), _reach(assertions), load)
            timelines = extend(old.timelines, news.known.get((subject, setting), []), assertions)
            stored, cut = stored_form(subject, setting, old._replace(timelines=timelines))
            if old.cut:
                removed.append(Tail(subject, setting, old.first))
            if stored is not None:
                settings[setting] = stored
            blocks += cut
        rows.append(StoredRow(*news.heads[subject], encoded(settings)))
    tables.write(side, Update(removed, blocks, rows, news.position))


def _reach(assertions: list[Assertion]) -> int:
    """The instant (µs) before which these leave every step as it is."""
    if any(isinstance(said, Retraction) for said in assertions):
        return BEGINNING
    return min(min(said.effective_from, said.recorded_at) for said in assertions if isinstance(said, Change))
