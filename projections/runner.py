"""The projector: brings the stored timelines up to the ledger, and makes them anew.

Events are taken a page at a time. What they change and the tracked position are written by one transaction, which
first sees that nobody else has projected them, so each is projected exactly once. A rebuild is the same code started
from position 0 on tables beside the live ones, which it then compares and replaces.
A submission is never split: who reads the timelines sees all of it or nothing.
Proved by tests/contracts: test_catching_up.py, test_rebuilding.py, test_projectors_at_once.py, test_timelines.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import Final, NamedTuple

from ledger.errors import BadTime, InforceError, LedgerCorrupt, LedgerUnavailable
from ledger.recorders.contract import Entry
from ledger.store import Ledger
from ledger.times import BEGINNING
from projections.changes import Assertion, Change, Retraction, read_assertion
from projections.in_force import extend
from projections.timelines import TimelineStore
from projections.timelines.contract import (
    LIVE,
    REBUILD,
    Difference,
    NotStored,
    Pair,
    RawStep,
    Reading,
    Side,
    StepKey,
    SubjectRow,
    SwapBusy,
    Update,
    Writing,
)
from projections.timelines.rows import changed_rows, first_of, timelines_of

PAGE_EVENTS: Final = 5000
DIFFERENCES_MAX: Final = 10
FINISH_ATTEMPTS_MAX: Final = 1000
SWAP_PAUSE_S: Final = 0.2
"""After an attempt at a swap that readers were in the way of: all attempts together take about five minutes."""

Progress = Callable[[int, int], None]
"""Called with the position reached and the ledger's head."""


class CaughtUp(NamedTuple):
    """`position`: up to where the ledger is projected now; `subjects`: those that this call projected news of."""

    position: int
    subjects: frozenset[str]


class Rebuilt(NamedTuple):
    """What a rebuild found. Both sides were compared as of `position`, so `events` is as many.

    `differences` are the first rows that were not the same. Where there are none and yet `live_equal` is false, the
    live timelines were of another format, or at no position of this ledger.
    """

    position: int
    events: int
    subjects: int
    live_equal: bool
    differences: tuple[Difference, ...]
    swapped: bool


class _News(NamedTuple):
    """A page of the ledger, made ready: everything that projecting needs to know of the ledger itself."""

    position: int
    """Of the last event."""
    last: bool
    """Whether the ledger ended there when it was read."""
    assertions: dict[Pair, list[Assertion]]
    known: dict[Pair, list[Change]]
    """Where something is retracted: the unretracted changes before the page (see `extend`)."""
    begun: frozenset[str]
    """The subjects that have events before the page."""
    subjects: list[SubjectRow]


class _Compared(NamedTuple):
    """`unsettled`: the subjects left out because one side was ahead with them; `since`: it had events after that."""

    differences: list[Difference]
    unsettled: frozenset[str]
    since: int


class Runner:
    """One ledger's projector. Safe to use from many threads, and beside those of other processes."""

    def __init__(self, ledger: Ledger, store: TimelineStore, *, page_events: int = PAGE_EVENTS) -> None:
        self.ledger = ledger
        self.store = store
        self.page_events = page_events
        # One thread of a process does the work; the others would only do it again and throw it away.
        self._lock = threading.Lock()

    def catch_up(self, limit: int | None = None) -> CaughtUp:
        """Projects what the ledger holds, or about `limit` events of it, ending with a whole submission.

        Raises `LedgerCorrupt`, naming the position, at an event that cannot be read: the submissions before it are
        projected and stay so. Raises `LedgerUnavailable` where there is news and the ledger cannot be written.
        """
        with self._lock:
            return self._catch_up(LIVE, limit)

    def _catch_up(self, side: Side, limit: int | None = None, progress: Progress | None = None) -> CaughtUp:
        subjects: set[str] = set()
        begun = after = self._tracked(side)
        while limit is None or after - begun < limit:
            page_events = self.page_events if limit is None else min(self.page_events, limit - (after - begun))
            news = self._news(after, page_events)
            if news is None:
                self._check_not_beyond(after)
                break
            with self.store.writing(side) as tables:
                tracked = tables.tracked(side)
                if tracked == after:
                    _project(tables, side, news)
                    tracked = news.position
                    subjects.update(row.subject for row in news.subjects)
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
        assertions: dict[Pair, list[Assertion]] = {}
        versions: dict[str, SubjectRow] = {}
        first: dict[str, int] = {}
        for entry, assertion in read:
            assertions.setdefault((entry.subject, assertion.setting), []).append(assertion)
            first.setdefault(entry.subject, entry.version)
            versions[entry.subject] = SubjectRow(entry.subject, entry.version, entry.position)
        return _News(
            position=read[-1][0].position,
            last=last and len(read) == len(entries),
            assertions=assertions,
            known={
                pair: self._unretracted(pair, until=news[0].version - 1)
                for pair, news in assertions.items()
                if any(isinstance(assertion, Retraction) for assertion in news)
            },
            begun=frozenset(subject for subject, version in first.items() if version > 1),
            subjects=sorted(versions.values()),
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

    def _unretracted(self, pair: Pair, until: int) -> list[Change]:
        subject, setting = pair
        changes: dict[str, Change] = {}
        for entry in self.ledger.stream(subject, until=until):
            assertion = _read(entry)
            if assertion.setting != setting:
                continue
            if isinstance(assertion, Retraction):
                changes.pop(assertion.retracts, None)
            else:
                changes[assertion.event_id] = assertion
        return list(changes.values())

    def rebuild(self, *, check_only: bool = False, progress: Progress | None = None) -> Rebuilt:
        """Makes the timelines anew beside the live ones, compares the two, and swaps them in.

        Reads and writes go on meanwhile. Killed, it leaves the live timelines alone and can be run again.
        `check_only`: compares, and takes its own away again. Raises as `catch_up` does, and `LedgerUnavailable` where
        others never let it come to an end.
        """
        with self.store.writing(LIVE, REBUILD) as tables:
            tables.create(LIVE)
            tables.drop(REBUILD)
            tables.create(REBUILD)
        try:
            self._catch_up(REBUILD, progress=progress)
            return self._finish(self._compare(), check_only)
        except BaseException:
            # What cannot be taken away now is taken away by the next rebuild.
            with suppress(InforceError), self.store.writing(REBUILD) as tables:
                tables.drop(REBUILD)
            raise

    def _compare(self) -> _Compared:
        """The bulk of the comparison, while everything goes on."""
        self._live_caught_up()
        with self.store.reading(LIVE, REBUILD) as tables:
            try:
                since = min(tables.tracked(LIVE), tables.tracked(REBUILD))
            except NotStored:
                return _Compared([], frozenset(), 0)
            unsettled = frozenset(tables.moved(since))
            return _Compared(tables.differences(DIFFERENCES_MAX, but=unsettled), unsettled, since)

    def _live_caught_up(self) -> bool:
        """False: the live timelines cannot be brought up to the ledger, which is what a rebuild is for."""
        try:
            self.catch_up()
        except (LedgerCorrupt, NotStored):
            return False
        return True

    def _finish(self, compared: _Compared, check_only: bool) -> Rebuilt:
        """Compares what has moved since, at one position of both sides and with no other writer, and swaps."""
        for _attempt in range(FINISH_ATTEMPTS_MAX):
            sound = self._live_caught_up()
            self._catch_up(REBUILD)
            try:
                with self.store.writing(LIVE, REBUILD) as tables:
                    position = tables.tracked(REBUILD)
                    if sound and tables.tracked(LIVE) != position:
                        continue
                    differences = self._differences(tables, compared)
                    subjects = tables.count_subjects(REBUILD)
                    if check_only:
                        tables.drop(REBUILD)
                    else:
                        tables.swap()
            except SwapBusy:
                time.sleep(SWAP_PAUSE_S)
                continue
            return Rebuilt(
                position=position,
                events=position,
                subjects=subjects,
                live_equal=sound and not differences,
                differences=differences,
                swapped=not check_only,
            )
        raise LedgerUnavailable("the rebuilt timelines could not take their place: others kept using those there are")

    @staticmethod
    def _differences(tables: Reading, compared: _Compared) -> tuple[Difference, ...]:
        try:
            tables.tracked(LIVE)
        except NotStored:
            return ()
        among = compared.unsettled | tables.moved(compared.since)
        moved = tables.differences(DIFFERENCES_MAX, among=among)
        return tuple(first_of(compared.differences, moved, limit=DIFFERENCES_MAX))


def _readable(entries: Sequence[Entry]) -> list[tuple[Entry, Assertion]]:
    """The entries with what they say: all, or where one cannot be read those of the submissions before it.

    Raises `LedgerCorrupt` where there are none before it.
    """
    read: list[tuple[Entry, Assertion]] = []
    for entry in entries:
        try:
            read.append((entry, _read(entry)))
        except LedgerCorrupt:
            before = [one for one in read if one[0].recorded_at != entry.recorded_at]
            if not before:
                raise
            return before
    return read


def _read(entry: Entry) -> Assertion:
    try:
        assertion = read_assertion(entry.leaf)
    except (LedgerCorrupt, BadTime) as error:
        raise LedgerCorrupt(
            f"the event at position {entry.position} cannot be projected, and so nothing after it: {error.detail}"
        ) from error
    if (assertion.position, assertion.version) != (entry.position, entry.version):
        raise LedgerCorrupt(f"the event stored at position {entry.position} says that it belongs elsewhere")
    return assertion


def _project(tables: Writing, side: Side, news: _News) -> None:
    touched = {pair: _reach(said) for pair, said in news.assertions.items() if pair[0] in news.begun}
    before = tables.load(side, touched)
    removed: list[StepKey] = []
    written: list[RawStep] = []
    # In the order of the key, neighbours are written to the same page of the table.
    for pair, assertions in sorted(news.assertions.items(), key=itemgetter(0)):
        rows = before.get(pair, ())
        timelines = extend(timelines_of(rows), news.known.get(pair, []), assertions)
        stale, fresh = changed_rows(pair, rows, timelines)
        removed += stale
        written += fresh
    tables.write(side, Update(removed, written, news.subjects, news.position))


def _reach(assertions: list[Assertion]) -> int:
    """The instant (µs) before which these leave every step as it is."""
    if any(isinstance(said, Retraction) for said in assertions):
        return BEGINNING
    return min(min(said.effective_from, said.recorded_at) for said in assertions if isinstance(said, Change))
