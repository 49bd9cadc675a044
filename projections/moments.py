"""The ledger at one position: what a question sees from its first look to its last.

`Histories` keeps subjects' timelines in memory and is kept right by the feed: it learns what an event says before it
moves on to that event's position. A `Moment` is one position of it. As long as the stored timelines stand there
they serve; once they have moved on under a question, a subject's events up to the position are folded instead, which
is slower and comes to the same. So no answer mixes two positions, and none has to be asked twice.
Proved by tests/query/test_moments.py and tests/test_pinned.py.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, Literal

from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT
from projections.changes import Assertion, Retraction, read_assertion, read_assertions
from projections.courses import NOTHING, Course
from projections.in_force import Timelines, extend, fold_both
from projections.runner import Runner
from projections.timelines import TimelineStore

IN_FORCE: Final = "at"
"""As a known_at: the same instant as `at`."""

KnownAt = int | Literal["at"] | None
"""An instant (µs), `IN_FORCE`, or None: everything recorded so far."""

CACHED_SUBJECTS_MAX: Final = 200_000
COURSES_SUBJECTS_MAX: Final = 50_000
"""About 4 KB each."""

History = Mapping[str, Timelines]
"""Setting → timelines of one subject."""


class Moment:
    """The ledger at `position`, whose event was recorded at `recorded_at` (µs; None: there is no event).

    `now`: the present (µs) before the ledger was looked at. What was recorded since is not in the answers, so none of
    them claims to know of it. (What was being committed just then may have been recorded a moment earlier and still
    not be seen: what an answer rests on for certain is `position`.)
    """

    def __init__(self, histories: Histories, position: int, recorded_at: int | None, now: int) -> None:
        self.position = position
        self.recorded_at = recorded_at
        # Not before what the answers rest on, whatever the clock says.
        self.now = now if recorded_at is None else max(now, recorded_at)
        self._histories = histories
        self._folded: OrderedDict[str, History] = OrderedDict()
        self._retractions: OrderedDict[str, tuple[Retraction, ...]] = OrderedDict()
        self._courses: dict[str, dict[str, Course]] = {}

    def history(self, subject: str) -> History:
        """The subject's timelines, in force and as known at this position; empty where nothing was said."""
        stored = self._histories.stored(subject, self.position)
        if stored is not None:
            return stored
        folded = self._folded.get(subject)
        if folded is None:
            folded = fold_both(self.assertions(subject))
            self._folded[subject] = folded
            if len(self._folded) > self._histories.cached_subjects_max:
                self._folded.popitem(last=False)
        return folded

    def assertions(self, subject: str, known_at: int | None = None) -> list[Assertion]:
        """What had been said about the subject up to this position, and by `known_at` (µs) if given."""
        entries = self._histories.ledger.stream(subject)
        return read_assertions(
            entry
            for entry in entries
            if entry.position <= self.position and (known_at is None or entry.recorded_at <= known_at)
        )

    def retractions(self, subject: str) -> tuple[Retraction, ...]:
        """What of the subject's changes was taken back up to this position. Kept: an audit asks at every breach."""
        found = self._retractions.get(subject)
        if found is None:
            found = tuple(said for said in self.assertions(subject) if isinstance(said, Retraction))
            self._retractions[subject] = found
            if len(self._retractions) > self._histories.cached_subjects_max:
                self._retractions.popitem(last=False)
        return found

    def courses(self, subject: str) -> dict[str, Course]:
        """Setting → course of the subject, as far as made: for the reader to make more and add them."""
        shared = self._histories.courses(subject, self.position)
        if shared is not None:
            return shared
        if len(self._courses) >= COURSES_SUBJECTS_MAX:
            self._courses.clear()
        return self._courses.setdefault(subject, {})

    def everything_known_at(self, instant: int) -> bool:
        """Whether nothing of this moment was recorded after `instant` (µs)."""
        return self.recorded_at is None or instant >= self.recorded_at

    def instant(self, at: int, known_at: KnownAt) -> int:
        """`known_at` as an instant (µs): the one asked for, but not beyond the present."""
        if known_at is None:
            return self.now
        return min(at if known_at == IN_FORCE else known_at, self.now)

    def cheapest(self, at: int, known_at: KnownAt) -> KnownAt:
        """The known_at with the same answers that stored timelines can serve, which is `IN_FORCE` or None, if any."""
        if isinstance(known_at, int):
            if self.everything_known_at(known_at):
                return None
            if known_at == at:
                return IN_FORCE
        return known_at


class Histories:
    """One ledger's timelines in memory. Safe to use from many threads."""

    def __init__(self, ledger: Ledger, store: TimelineStore, cached_subjects_max: int = CACHED_SUBJECTS_MAX) -> None:
        self.ledger = ledger
        self.store = store
        self.runner = Runner(ledger, store)
        self.cached_subjects_max = cached_subjects_max
        self._cache: OrderedDict[str, History] = OrderedDict()
        self._courses: dict[str, dict[str, Course]] = {}
        self._position = 0
        self._recorded_at: int | None = None
        self._lock = threading.RLock()

    def now(self) -> Moment:
        """The ledger at its head, with the stored timelines brought up to it."""
        now = self.ledger.clock.now()
        head = self.ledger.head()
        with self._lock:
            if head.position > self._position:
                position = self.runner.catch_up().position
                recorded_at = head.recorded_at
                if position != head.position:
                    entry = self.ledger.recorder.entry(position)
                    recorded_at = entry.recorded_at if entry is not None else None
                try:
                    self._learn(self._position, position)
                except BaseException:
                    # Some of it is learned, and nothing may be learned twice: begin with nothing kept.
                    self._cache.clear()
                    self._courses = {}
                    raise
                self._position, self._recorded_at = position, recorded_at
            return Moment(self, self._position, self._recorded_at, now)

    def _learn(self, after: int, until: int) -> None:
        """Brings what is kept up to the events in (after, until]."""
        if not self._cache and not self._courses:
            return
        while after < until:
            page = self.ledger.page(after, until=until)
            news: dict[str, list[Assertion]] = {}
            for entry in page:
                if entry.subject in self._cache:
                    news.setdefault(entry.subject, []).append(read_assertion(entry.leaf))
                self._courses.pop(entry.subject, None)
                if entry.subject == CATALOG_SUBJECT:
                    # Every course rests on definitions. Replaced, not cleared: a reader may still be adding to it.
                    self._courses = {}
            for subject, assertions in news.items():
                if any(isinstance(said, Retraction) for said in assertions):
                    # Folded again from the first change, which is not kept.
                    del self._cache[subject]
                else:
                    self._cache[subject] = _extended(self._cache[subject], assertions)
            after = page[-1].position

    def stored(self, subject: str, position: int) -> History | None:
        """The stored timelines of the subject as of `position`; None where they have moved on."""
        with self._lock:
            if self._position != position:
                return None
            cached = self._cache.get(subject)
            if cached is not None:
                self._cache.move_to_end(subject)
                return cached
        tracked, history = self.store.subject(subject)
        if tracked != position:
            return None
        with self._lock:
            if self._position == position:
                self._cache[subject] = history
                if len(self._cache) > self.cached_subjects_max:
                    self._cache.popitem(last=False)
        return history

    def courses(self, subject: str, position: int) -> dict[str, Course] | None:
        """The courses kept for the subject as of `position`; None where the timelines have moved on."""
        with self._lock:
            if self._position != position:
                return None
            courses = self._courses.get(subject)
            if courses is None:
                if len(self._courses) >= COURSES_SUBJECTS_MAX:
                    self._courses = {}
                courses = self._courses[subject] = {}
            return courses


def _extended(history: History, news: list[Assertion]) -> History:
    """Others may be reading `history`: what changes is copied."""
    extended = dict(history)
    for setting in {said.setting for said in news}:
        current, in_force = history.get(setting, NOTHING)
        copied = Timelines(current.copy(), in_force.copy())
        extended[setting] = extend(copied, [], [said for said in news if said.setting == setting])
    return extended
