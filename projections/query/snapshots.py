"""The ledger at one position: everything that a question sees, from its first look to its last.

`TimelineCache` keeps subjects' timelines and the bases of decisions in memory. It applies every new event to them
before it moves on to that event's position. A `LedgerSnapshot` is one position of it, shared by the questions asked
there; a `ReadContext` is the snapshot and the present of one question.

A subject that is not in memory comes from the stored timelines. If these are behind the snapshot, the subject's newer
events are applied to them; if they have moved on past it, the subject's events up to the position are folded, which is
slower and gives the same. So no answer mixes two positions, and no question has to be asked twice.

Proved by tests/query/test_snapshots.py, tests/query/test_shared_change_token.py, tests/query/test_decision_cache.py,
tests/query/test_pinned.py and tests/faults/test_behind.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Final

from ledger.acknowledgements import read_acknowledgements
from ledger.errors import LedgerCorrupt
from ledger.recorders.contract import ChangeToken, Entry, Head
from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT, LEDGER_SUBJECT
from projections.decisions.directory import BothDirectories, DirectorySteps
from projections.decisions.model import AsOf
from projections.query.clock_notices import clock_notices, notice_at
from projections.query.decision_cache import DecisionCache, Key, ValiditySpan
from projections.query.directories import (
    AS_KNOWN_MAX,
    both_directories,
    directory_as_known,
    directory_subjects,
    is_in_directory,
)
from projections.query.subject_cache import CachedSubject, SubjectCache, extended, fold_subject
from projections.temporal.changes import Assertion, Retraction, read_entries
from projections.temporal.coordinates import IN_FORCE, ClockNotice, KnownAt
from projections.temporal.fold import Timeline, fold
from projections.temporal.known_changes import HistoryMissing
from projections.timelines.catch_up import PATIENCE_S, CatchUp
from projections.timelines.contract import DamagedRows
from projections.timelines.heal import heal
from projections.timelines.projector import Projector
from projections.timelines.store import TimelineStore

__all__ = ["IN_FORCE", "MEMORY_MAX", "KnownAt", "LedgerSnapshot", "ReadContext", "TimelineCache"]

MEMORY_MAX: Final = 104_000_000
"""Bytes of cache, about: two thirds decisions, one third timelines. See projections/DECISIONS.md."""
_NEWS_MAX: Final = 20_000
"""Events. After more of them, as after an import, it is cheaper to begin with an empty cache."""
_NEWS_BYTES: Final = 4 * 1024 * 1024
"""Leaves of the news that are read at once."""
ASSERTIONS_MAX: Final = 20_000
"""Of a snapshot: some 10 MB, and more only if one subject has more."""
RETRACTIONS_MAX: Final = 20_000
"""Of a snapshot: with the subjects, some 10 MB, and more only if one subject has more."""
FIRST_RECORDED_MAX: Final = 20_000
"""Subjects of a snapshot: some 3 MB."""
FOLDED_MAX: Final = 20_000
"""Of a read context, subjects and assertions about them: some 10 MB, and more only if one subject has more."""


class LedgerSnapshot:
    """The ledger at `position`, whose event was recorded at `recorded_at` (µs; None: there is no event)."""

    def __init__(
        self,
        timeline_cache: TimelineCache,
        position: int,
        recorded_at: int | None,
        directory: BothDirectories | None = None,
    ) -> None:
        """`directory`: if it is known already."""
        self.position = position
        self.recorded_at = recorded_at
        self.ledger = timeline_cache.ledger
        self.decision_cache = timeline_cache.decision_cache
        self._timeline_cache = timeline_cache
        self.clock_notices: tuple[ClockNotice, ...] = ()
        """The acknowledged stretches of a clock that was ahead."""
        # For questions that stay here after the timelines have moved on: an audit does so for its whole length.
        self._own_subjects: SubjectCache | None = None
        self._own_decisions: DecisionCache | None = None
        self._assertions: dict[str, tuple[Assertion, ...]] = {}
        self._assertions_left = ASSERTIONS_MAX
        self._retractions: dict[str, tuple[Retraction, ...]] = {}
        self._retractions_left = RETRACTIONS_MAX
        self._first_recorded: dict[str, int | None] = {}
        self.loaded_directory = directory
        self._directory_subjects: tuple[str, ...] | None = None

    def directory(self) -> BothDirectories:
        """The regions and providers in force, and with everything known at this position."""
        # Two threads may both read it; they read the same.
        if self.loaded_directory is None:
            subjects = {subject: self.subject(subject).timelines for subject in self.directory_subjects()}
            self.loaded_directory = both_directories(subjects, self.subject(CATALOG_SUBJECT).timelines)
        return self.loaded_directory

    def directory_subjects(self) -> tuple[str, ...]:
        if self._directory_subjects is None:
            self._directory_subjects = directory_subjects(self.ledger, self._timeline_cache.store, self.position)
        return self._directory_subjects

    def find(self, key: Key, at: int) -> ValiditySpan | None:
        """The cached span at `at` (µs) for records with these ids."""
        span = self.decision_cache.find(key, at, self.position)
        if span is None and self._own_decisions is not None:
            return self._own_decisions.find(key, at, self.position)
        return span

    def put(self, key: Key, span: ValiditySpan) -> None:
        if self._timeline_cache.put_decision(key, span, self.position):
            return
        if self._own_decisions is None:
            self._own_decisions = DecisionCache(self._timeline_cache.memory_max * 2 // 3)
        self._own_decisions.put(key, span)

    def subject(self, subject: str) -> CachedSubject:
        """The subject's timelines as known at this position."""
        shared = self._timeline_cache.subject(subject, self.position)
        if shared is not None:
            return shared
        if self._own_subjects is None:
            self._own_subjects = SubjectCache(self._timeline_cache.memory_max // 3)
        own = self._own_subjects.get(subject)
        if own is None:
            own = fold_subject(subject, self.assertions(subject))
            self._own_subjects.put(subject, own)
        return own

    def first_recorded_at(self, subject: str) -> int | None:
        """When (µs) the subject's first event was recorded; None if it has none up to this position."""
        if subject not in self._first_recorded:
            if len(self._first_recorded) >= FIRST_RECORDED_MAX:
                self._first_recorded = {}
            first = self.ledger.recorder.stream(subject, limit=1)
            known = first and first[0].position <= self.position
            self._first_recorded[subject] = first[0].recorded_at if known else None
        return self._first_recorded[subject]

    def assertions(self, subject: str, known_at: int | None = None) -> list[Assertion]:
        """The subject's changes and retractions up to this position, recorded by `known_at` (µs) if given."""
        entries = self.ledger.stream(subject)
        return read_entries(
            entry
            for entry in entries
            if entry.position <= self.position and (known_at is None or entry.recorded_at <= known_at)
        )

    def all_assertions(self, subject: str) -> tuple[Assertion, ...]:
        """`assertions`, cached: an in-force question about the past asks what was scheduled then."""
        assertions = self._assertions.get(subject)
        if assertions is None:
            assertions = tuple(self.assertions(subject))
            self._assertions_left -= 1 + len(assertions)
            if self._assertions_left < 0:
                self._assertions, self._assertions_left = {}, ASSERTIONS_MAX
            self._assertions[subject] = assertions
        return assertions

    def retractions(self, subject: str) -> tuple[Retraction, ...]:
        """The subject's retractions up to this position. Cached: an audit reads them at every breach."""
        retractions = self._retractions.get(subject)
        if retractions is None:
            retractions = tuple(one for one in self.assertions(subject) if isinstance(one, Retraction))
            self._retractions_left -= 1 + len(retractions)
            if self._retractions_left < 0:
                self._retractions, self._retractions_left = {}, RETRACTIONS_MAX
            self._retractions[subject] = retractions
        return retractions


class ReadContext:
    """A snapshot, and the question's present: `now` (µs), read before the ledger was looked at.

    Answers hold nothing that was recorded since, so none claims to know of it. An event that was being committed at
    that very moment may have been recorded earlier and still be missing: for certain, an answer rests on `position`.
    """

    __slots__ = ("_directories", "_folded", "_folded_left", "now", "snapshot")

    def __init__(self, snapshot: LedgerSnapshot, now: int) -> None:
        self.snapshot = snapshot
        # Never before the last event that answers rest on, even if this machine's clock is behind.
        self.now = now if snapshot.recorded_at is None or now > snapshot.recorded_at else snapshot.recorded_at
        self._folded: dict[tuple[str, int], Mapping[str, Timeline]] = {}
        self._folded_left = FOLDED_MAX
        self._directories: dict[int, DirectorySteps] = {}

    @property
    def position(self) -> int:
        return self.snapshot.position

    def folded(self, subject: str, known_at: int) -> Mapping[str, Timeline]:
        """The subject's timelines as known at an instant (µs). Cached: a batch has one known_at, and each of its
        records needs the catalog."""
        timelines = self._folded.get((subject, known_at))
        if timelines is None:
            assertions = self.snapshot.assertions(subject, known_at)
            timelines = fold(assertions)
            self._folded_left -= 1 + len(assertions)
            if self._folded_left < 0:
                self._folded, self._folded_left = {}, FOLDED_MAX
            self._folded[subject, known_at] = timelines
        return timelines

    def directory_as_known(self, known_at: int) -> DirectorySteps:
        """The regions and providers as known at an instant (µs)."""
        steps = self._directories.get(known_at)
        if steps is None:
            if len(self._directories) >= AS_KNOWN_MAX:
                self._directories.clear()
            subjects, catalog = self.snapshot.directory_subjects(), self.folded(CATALOG_SUBJECT, known_at)
            steps = directory_as_known(subjects, lambda subject: self.folded(subject, known_at), catalog)
            self._directories[known_at] = steps
        return steps

    def instant(self, at: int, known_at: KnownAt) -> int:
        """`known_at` as an instant (µs), at most the present."""
        if known_at is None:
            return self.now
        return min(at if known_at == IN_FORCE else known_at, self.now)

    def clock_notice(self, *instants: int) -> ClockNotice | None:
        """The notice of an answer with these coordinates (µs), if it needs one."""
        return notice_at(self.snapshot.clock_notices, *instants)

    def as_of(self, at: int, known_at: KnownAt) -> AsOf:
        """The coordinates of an answer here."""
        instant = self.instant(at, known_at)
        return AsOf(at, instant, self.position, self.clock_notice(at, instant))

    def cheapest(self, at: int, known_at: KnownAt) -> KnownAt:
        """`IN_FORCE` or None, which stored timelines can serve, if its answers are those of `known_at`."""
        if isinstance(known_at, int):
            if self.snapshot.recorded_at is None or known_at >= self.snapshot.recorded_at:
                return None
            if known_at == at:
                return IN_FORCE
        return known_at


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
        self._subject_cache = SubjectCache(memory_max // 3)
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
        self._subject_cache.clear()
        self.decision_cache.clear()

    def _apply_events(self, after: int, until: int) -> bool:
        """Brings the caches up to the events in (after, until]. Returns whether these leave the directory as it is."""
        if until - after > _NEWS_MAX:
            self._clear()
        if not len(self._subject_cache):
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
                cached = self._subject_cache.get(subject)
                if cached is None:
                    continue
                assertions = read_entries(entries)
                try:
                    self._subject_cache.put(subject, CachedSubject(subject, extended(cached.timelines, assertions)))
                except HistoryMissing:
                    self._subject_cache.drop(subject)
            if CATALOG_SUBJECT in news:
                # Everything rests on definitions.
                self._subject_cache.forget_effective_timelines()
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
            cached = self._subject_cache.get(subject)
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
                self._subject_cache.put(subject, cached)
        return cached

    def _brought_up(self, subject: str, cached: CachedSubject, tracked: int, position: int) -> CachedSubject:
        """`cached`, which is as of `tracked`, with the subject's events up to `position`."""

        def read(after_version: int) -> list[Assertion]:
            entries = self.ledger.stream(subject, after=after_version)
            return read_entries(entry for entry in entries if entry.position <= position)

        news = read(self.ledger.recorder.version_at(subject, tracked))
        try:
            return CachedSubject(subject, extended(cached.timelines, news)) if news else cached
        except HistoryMissing:
            return fold_subject(subject, read(0))
