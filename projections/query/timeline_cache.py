"""One ledger's timelines in memory, for all questions: `TimelineCache` keeps subjects' timelines and the bases of
decisions. It applies every new event to them before it moves on to that event's position.

A subject that is not in memory comes from the stored timelines. If these are behind the snapshot, the subject's newer
events are applied to them; if they have moved on past it, the subject's events up to the position are folded, which is
slower and gives the same.
Proved by tests/query/test_snapshots.py, tests/query/test_shared_change_token.py and tests/faults/test_behind.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import Final

from ledger.acknowledgements import read_acknowledgements
from ledger.errors import LedgerCorrupt
from ledger.recorders.contract import ChangeToken, Entry, Head
from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT, LEDGER_SUBJECT
from projections.query.clock_notices import clock_notices
from projections.query.decision_cache import DecisionCache, Key, ValiditySpan
from projections.query.directories import (
    is_in_directory,
)
from projections.query.large_values import LargeValues
from projections.query.snapshots import LedgerSnapshot, ReadContext
from projections.query.subject_cache import CachedSubject, SubjectCache, extended, fold_subject
from projections.temporal.changes import Assertion, read_entries, read_timeline_entries
from projections.temporal.known_changes import HistoryMissing
from projections.timelines.catch_up import PATIENCE_S, CatchUp
from projections.timelines.contract import DamagedRows
from projections.timelines.heal import heal
from projections.timelines.projector import Projector
from projections.timelines.store import TimelineStore

MEMORY_MAX: Final = 104_000_000
"""Bytes of cache, about: two thirds decisions, one third timelines. See projections/DECISIONS.md."""
_NEWS_MAX: Final = 20_000
"""Events. After more of them, as after an import, it is cheaper to begin with an empty cache."""
_NEWS_BYTES: Final = 4 * 1024 * 1024
"""Leaves of the news that are read at once."""


class SharedChangeToken:
    """The ledger's change token, read once for all threads that ask for it together.

    A caller must learn of everything that was committed before it asked. So a reading serves only callers that came
    before it began: those that come while one is under way wait for its end, and one more reading serves all of them.
    An error of `read` reaches only the caller whose reading failed.
    """

    def __init__(self, read: Callable[[], ChangeToken]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._begun = 0
        self._last: tuple[int, ChangeToken] | None = None

    def read(self) -> ChangeToken:
        begun = self._begun
        with self._lock:
            last = self._last
            if last is not None and last[0] > begun:
                return last[1]
            self._begun += 1
            change_token = self._read()
            self._last = (self._begun, change_token)
            return change_token


class TimelineCache:
    """One ledger's timelines in memory, at most about `memory_max` bytes. Safe to use from many threads."""

    def __init__(self, ledger: Ledger, store: TimelineStore, memory_max: int = MEMORY_MAX) -> None:
        self.ledger = ledger
        self.store = store
        self._catch_up = CatchUp(Projector(ledger, store))
        # Apart from `_lock`, so that questions answered from memory do not wait for the thread that projects.
        self._project_lock = threading.Lock()
        self.memory_max = memory_max
        self.decision_cache = DecisionCache(memory_max * 2 // 3)
        self.subject_cache = SubjectCache(memory_max // 3)
        self.large_values = LargeValues(ledger)
        self._change_token = SharedChangeToken(ledger.recorder.change_token)
        self._change_token_nowait = ledger.recorder.change_token_nowait
        self._lock = threading.RLock()
        self._snapshot = LedgerSnapshot(self, 0, None)
        self._ledger_version, self._generation = 0, 1
        """Of the subject `ledger:self`, and as its events say."""
        self._acknowledgements: list[Assertion] = []
        self._verified: tuple[ChangeToken | None, LedgerSnapshot] = (None, self._snapshot)
        """A change token, and a snapshot taken after it was read: while the token is the same, nothing is newer."""

    def now(self) -> ReadContext:
        """The ledger at its head, with the stored timelines brought up to it."""
        now = self.ledger.clock.now()
        # A recorder that has its token at hand saves waiting for other threads.
        change_token = self._change_token_nowait() or self._change_token.read()
        verified, snapshot = self._verified
        if change_token != verified or self._catch_up.retry_due():
            snapshot = self._refresh(change_token)
        return ReadContext(snapshot, now)

    def nowait(self) -> ReadContext | None:
        """`now` without waiting for anything; None if that is not possible."""
        now = self.ledger.clock.now()
        change_token = self._change_token_nowait()
        verified, snapshot = self._verified
        return ReadContext(snapshot, now) if change_token is not None and change_token == verified else None

    def _refresh(self, change_token: ChangeToken) -> LedgerSnapshot:
        """The ledger at its head. `change_token` was read before, so events committed since count as news again."""
        head = self.ledger.head()
        if head.position != self._snapshot.position:
            self._read_acknowledgements(head)
        if self._is_behind(head):
            if self._project_lock.acquire(timeout=PATIENCE_S):
                try:
                    # The thread that had the lock before may have done it.
                    if self._is_behind(head):
                        self._advance(self._project(head))
                finally:
                    self._project_lock.release()
            else:
                self._advance(head)
        with self._lock:
            self._verified = (change_token, self._snapshot)
            if self._acknowledgements:
                self._snapshot.clock_notices = clock_notices(self._acknowledgements, head)
            return self._snapshot

    def _read_acknowledgements(self, head: Head) -> None:
        version = self.ledger.recorder.versions([LEDGER_SUBJECT])[LEDGER_SUBJECT]
        if version == self._ledger_version:
            return
        entries = self.ledger.stream(LEDGER_SUBJECT)
        generation = read_acknowledgements((e.position, e.recorded_at, e.leaf) for e in entries).generation
        with self._lock:
            self._ledger_version, self._acknowledgements = version, read_entries(entries)
            if generation > self._generation:
                # The ledger went back and goes on from an older head: nothing that was read before may be used.
                self._clear()
                self._snapshot = LedgerSnapshot(self, 0, None)
                self.ledger.follower.reset(head.position)
            self._generation = generation

    def _is_behind(self, head: Head) -> bool:
        return head.position > self._snapshot.position or self._catch_up.retry_due()

    def _project(self, head: Head) -> Head:
        try:
            return self._catch_up.up_to(head)
        except LedgerCorrupt:
            # So that the next question asks the projector again, and gets the error, too.
            with self._lock:
                self._verified = (None, self._snapshot)
            raise

    def _advance(self, head: Head) -> None:
        with self._lock:
            if head.position <= self._snapshot.position:
                if head.position < self._snapshot.position:
                    self._catch_up.retry_soon()
                return
            try:
                same_directory = self._apply_events(self._snapshot.position, head.position)
            except BaseException:
                # Some events were applied, and none may be applied twice: begin with an empty cache.
                self._clear()
                raise
            directory = self._snapshot.loaded_directory if same_directory else None
            self._snapshot = LedgerSnapshot(self, *head, directory)

    def _clear(self) -> None:
        self.subject_cache.clear()
        self.decision_cache.clear()

    def _apply_events(self, after: int, until: int) -> bool:
        """Brings the caches up to the events in (after, until]. Returns whether these leave the directory as it is."""
        if until - after > _NEWS_MAX:
            self._clear()
        if not len(self.subject_cache):
            # A basis may outlive the subjects that it rests on, which is no reason to read the news here.
            self.decision_cache.clear()
            return False
        same_directory = True
        while after < until:
            page = self.ledger.page(after, until=until, bytes_max=_NEWS_BYTES)
            news: dict[str, list[Entry]] = {}
            for entry in page:
                news.setdefault(entry.subject, []).append(entry)
            for subject, entries in news.items():
                self.decision_cache.drop(subject)
                cached = self.subject_cache.get(subject)
                if cached is None:
                    continue
                assertions = list(read_timeline_entries(entries))
                try:
                    self.subject_cache.put(subject, CachedSubject(subject, extended(cached.timelines, assertions)))
                except HistoryMissing:
                    self.subject_cache.drop(subject)
            if CATALOG_SUBJECT in news:
                # Everything rests on definitions.
                self.subject_cache.forget_effective_timelines()
            if CATALOG_SUBJECT in news or any(map(is_in_directory, news)):
                # A text may have become the name of a region or a provider.
                self.decision_cache.clear()
                same_directory = False
            after = page[-1].position
        return same_directory

    def put_decision(self, key: Key, span: ValiditySpan, position: int) -> bool:
        """Caches a span made at `position`. False: the timelines have moved on, so it may no longer hold."""
        with self._lock:
            if self._snapshot.position != position:
                return False
            self.decision_cache.put(key, span)
            return True

    def subject(self, subject: str, position: int) -> CachedSubject | None:
        """The subject's timelines as of `position`, cached or stored; None if both have moved on."""
        with self._lock:
            if self._snapshot.position != position:
                return None
            cached = self.subject_cache.get(subject)
            if cached is not None:
                return cached
        try:
            tracked, timelines = self.store.subject(subject)
        except DamagedRows:
            # Nothing is answered from them: `None` makes the snapshot fold the subject's events.
            heal(self.ledger, self.store, [subject], patience_s=PATIENCE_S)
            return None
        if tracked > position:
            return None
        cached = CachedSubject(subject, timelines)
        if tracked < position:
            cached = self._brought_up(subject, cached, tracked, position)
        with self._lock:
            if self._snapshot.position == position:
                self.subject_cache.put(subject, cached)
        return cached

    def _brought_up(self, subject: str, cached: CachedSubject, tracked: int, position: int) -> CachedSubject:
        """`cached`, which is as of `tracked`, with the subject's events up to `position`."""

        def read(after_version: int) -> Iterator[Assertion]:
            entries = self.ledger.stream_entries(subject, after=after_version)
            return read_timeline_entries(takewhile(lambda entry: entry.position <= position, entries))

        news = list(read(self.ledger.recorder.version_at(subject, tracked)))
        try:
            return CachedSubject(subject, extended(cached.timelines, news)) if news else cached
        except HistoryMissing:
            return fold_subject(subject, read(0))
