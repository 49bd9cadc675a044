"""The ledger at one position: everything that a question sees, from its first look to its last.

A `LedgerSnapshot` is one position of the timelines in memory (`timeline_cache`), shared by the questions asked there; a
`ReadContext` is the snapshot and the present of one question. So no answer mixes two positions, and no question has to
be asked twice.

Proved by tests/query/test_snapshots.py, tests/query/test_shared_change_token.py, tests/query/test_decision_cache.py,
tests/query/test_pinned.py and tests/faults/test_behind.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Final, Protocol

from ledger.recorders.contract import Head
from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT
from projections.decisions.directory import BothDirectories, DirectorySteps
from projections.decisions.model import AsOf
from projections.query.clock_notices import notice_at, with_unacknowledged
from projections.query.decision_cache import DecisionCache, Key, ValiditySpan
from projections.query.directories import (
    AS_KNOWN_MAX,
    both_directories,
    directory_as_known,
    directory_subjects,
)
from projections.query.large_values import LargeValues
from projections.query.subject_cache import CachedSubject, SubjectCache, fold_subject
from projections.temporal.changes import Assertion, Change, Retraction, read_timeline_entries, value_bytes
from projections.temporal.coordinates import IN_FORCE, ClockNotice, KnownAt
from projections.temporal.fold import Timeline, fold
from projections.timelines.store import TimelineStore
from projections.timelines.turns import in_turn

__all__ = ["IN_FORCE", "KnownAt", "LedgerSnapshot", "ReadContext"]

ASSERTIONS_MAX: Final = 20_000
"""Of a snapshot: some 10 MB, and more only if one subject has more."""
RETRACTIONS_MAX: Final = 20_000
"""Of a snapshot: with the subjects, some 10 MB, and more only if one subject has more."""
FIRST_RECORDED_MAX: Final = 20_000
"""Subjects of a snapshot: some 3 MB."""
_ASSERTION_BYTES: Final = 500
"""Of an assertion with a small value. A large value counts as many assertions as it fills, in each of these bounds."""
FOLDED_MAX: Final = 20_000
"""Of a read context, subjects and assertions about them: some 10 MB, and more only if one subject has more."""


class SharedTimelines(Protocol):
    """The timelines and decisions in memory, which all snapshots of one ledger share (see `timeline_cache`)."""

    ledger: Ledger
    store: TimelineStore
    decision_cache: DecisionCache
    large_values: LargeValues
    memory_max: int

    def subject(self, subject: str, position: int) -> CachedSubject | None:
        """The subject's timelines as of `position`, cached or stored; None if both have moved on."""

    def put_decision(self, key: Key, span: ValiditySpan, position: int) -> bool:
        """Caches a span made at `position`. False: the timelines have moved on, so it may no longer hold."""


class LedgerSnapshot:
    """The ledger at `position`, whose event was recorded at `recorded_at` (µs; None: there is no event)."""

    def __init__(
        self,
        timeline_cache: SharedTimelines,
        position: int,
        recorded_at: int | None,
        directory: BothDirectories | None = None,
    ) -> None:
        """`directory`: if it is known already."""
        self.position = position
        self.recorded_at = recorded_at
        self.ledger = timeline_cache.ledger
        self.decision_cache = timeline_cache.decision_cache
        self.large_values = timeline_cache.large_values
        self._timeline_cache = timeline_cache
        self.clock_notices: tuple[ClockNotice, ...] = ()
        """The acknowledged stretches of a clock that was ahead."""
        # For questions that stay here after the timelines have moved on: an audit does so for its whole length.
        self._own_subjects: SubjectCache | None = None
        self._own_decisions: DecisionCache | None = None
        self._assertions: dict[str, tuple[tuple[Assertion, ...], tuple[Change, ...]]] = {}
        """And those among them that were scheduled."""
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
            self.loaded_directory = both_directories(
                subjects, self.subject(CATALOG_SUBJECT).timelines, self.large_values.state
            )
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
            own = fold_subject(subject, self.read_assertions(subject))
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
        return list(self.read_assertions(subject, known_at))

    def read_assertions(self, subject: str, known_at: int | None = None) -> Iterator[Assertion]:
        """`assertions`, one by one: those that are not asked for are not read."""
        stream = in_turn(self.ledger.stream_entries(subject))
        entries = takewhile(lambda entry: entry.position <= self.position, stream)
        return read_timeline_entries(entry for entry in entries if known_at is None or entry.recorded_at <= known_at)

    def all_assertions(self, subject: str) -> tuple[Assertion, ...]:
        """`assertions`, cached: an in-force question about the past asks what was scheduled then."""
        return self._cached_assertions(subject)[0]

    def scheduled_changes(self, subject: str) -> tuple[Change, ...]:
        """The subject's changes that begin after they were recorded, or end: at no instant was another one known that
        was still to begin or to end. Cached: few of the changes of a subject are."""
        return self._cached_assertions(subject)[1]

    def _cached_assertions(self, subject: str) -> tuple[tuple[Assertion, ...], tuple[Change, ...]]:
        cached = self._assertions.get(subject)
        if cached is None:
            assertions = tuple(self.read_assertions(subject))
            scheduled = tuple(
                one
                for one in assertions
                if isinstance(one, Change) and (one.effective_from > one.recorded_at or one.effective_until is not None)
            )
            cached = assertions, scheduled
            self._assertions_left -= (weight := _weight(assertions))
            if self._assertions_left < 0:
                self._assertions, self._assertions_left = {}, ASSERTIONS_MAX - weight
            self._assertions[subject] = cached
        return cached

    def retractions(self, subject: str) -> tuple[Retraction, ...]:
        """The subject's retractions up to this position. Cached: an audit reads them at every breach."""
        retractions = self._retractions.get(subject)
        if retractions is None:
            retractions = tuple(one for one in self.read_assertions(subject) if isinstance(one, Retraction))
            self._retractions_left -= (weight := 1 + len(retractions))
            if self._retractions_left < 0:
                self._retractions, self._retractions_left = {}, RETRACTIONS_MAX - weight
            self._retractions[subject] = retractions
        return retractions


def _weight(assertions: Sequence[Assertion]) -> int:
    values = sum(value_bytes(one.value) for one in assertions if isinstance(one, Change))
    return 1 + len(assertions) + values // _ASSERTION_BYTES


class ReadContext:
    """A snapshot, and the question's present: `now` (µs), read before the ledger was looked at.

    Answers hold nothing that was recorded since, so none claims to know of it. An event that was being committed at
    that very moment may have been recorded earlier and still be missing: for certain, an answer rests on `position`.
    """

    __slots__ = ("_directories", "_folded", "_folded_left", "clock_notices", "now", "snapshot")

    def __init__(self, snapshot: LedgerSnapshot, now: int) -> None:
        self.snapshot = snapshot
        self.now = now
        self.clock_notices = snapshot.clock_notices
        if snapshot.recorded_at is not None and now <= snapshot.recorded_at:
            # Never before the last event that answers rest on, even if this machine's clock is behind.
            self.now = snapshot.recorded_at
            head = Head(snapshot.position, snapshot.recorded_at)
            self.clock_notices = with_unacknowledged(snapshot.ledger, head, self.clock_notices, now)
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
            self._folded_left -= (weight := _weight(assertions))
            if self._folded_left < 0:
                self._folded, self._folded_left = {}, FOLDED_MAX - weight
            self._folded[subject, known_at] = timelines
        return timelines

    def directory_as_known(self, known_at: int) -> DirectorySteps:
        """The regions and providers as known at an instant (µs)."""
        steps = self._directories.get(known_at)
        if steps is None:
            if len(self._directories) >= AS_KNOWN_MAX:
                self._directories.clear()
            subjects, catalog = self.snapshot.directory_subjects(), self.folded(CATALOG_SUBJECT, known_at)
            whole = self.snapshot.large_values.state
            steps = directory_as_known(subjects, lambda subject: self.folded(subject, known_at), catalog, whole)
            self._directories[known_at] = steps
        return steps

    def instant(self, at: int, known_at: KnownAt) -> int:
        """`known_at` as an instant (µs), at most the present."""
        if known_at is None:
            return self.now
        return min(at if known_at == IN_FORCE else known_at, self.now)

    def clock_notice(self, *instants: int) -> ClockNotice | None:
        """The notice of an answer with these coordinates (µs), if it needs one."""
        return notice_at(self.clock_notices, *instants)

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
