"""The ledger at one position: what a question sees from its first look to its last.

`Histories` keeps subjects' timelines, courses and grounds in memory and is kept right by the feed: it learns what an
event says before it moves on to that event's position. A `Footing` is one position of it, shared by the questions that
stand on it; a `Moment` is a question's. As long as the stored timelines stand there they serve; once they have moved
on under a question, a subject's events up to the position are folded instead, which is slower and comes to the same.
So no answer mixes two positions, and none has to be asked twice.
Proved by tests/query/test_moments.py, tests/query/test_grounds.py and tests/test_pinned.py.
"""

from __future__ import annotations

import threading
from typing import Final, Literal

from ledger.recorders.contract import Mark
from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT
from projections.changes import Assertion, Retraction, read_assertion, read_assertions
from projections.fold import Timeline
from projections.grounds import Grounds, Key, Span
from projections.in_force import fold_both
from projections.keeping import Keeping, Kept, extended
from projections.marking import SharedMark
from projections.runner import Runner
from projections.timelines import TimelineStore

IN_FORCE: Final = "at"
"""As a known_at: the same instant as `at`."""

KnownAt = int | Literal["at"] | None
"""An instant (µs), `IN_FORCE`, or None: everything recorded so far."""

MEMORY_MAX: Final = 104_000_000
"""Bytes, about, of what is kept: two thirds grounds, one third timelines and courses. See projections/README.md."""
_LEARNED_MAX: Final = 20_000
"""Events: after more of them, as after somebody's import, it is cheaper to begin with nothing kept."""


class Footing:
    """The ledger at `position`, whose event was recorded at `recorded_at` (µs; None: there is no event)."""

    def __init__(self, histories: Histories, position: int, recorded_at: int | None) -> None:
        self.position = position
        self.recorded_at = recorded_at
        self._histories = histories
        self._shared = histories.grounds
        # For who still stands here when the timelines have moved on: an audit does for its whole length.
        self._folded: Keeping | None = None
        self._grounds: Grounds | None = None
        self._retractions: dict[str, tuple[Retraction, ...]] = {}
        self._retractions_room = RETRACTIONS_MAX

    def find(self, key: Key, at: int) -> Span | None:
        """What is kept to stand on at `at` (µs), for records with these ids."""
        found = self._shared.find(key, at, self.position)
        if found is None and self._grounds is not None:
            return self._grounds.find(key, at, self.position)
        return found

    def keep(self, key: Key, span: Span) -> None:
        if self._histories.keep(key, span, self.position):
            return
        if self._grounds is None:
            self._grounds = Grounds(self._histories.memory_max * 2 // 3)
        self._grounds.keep(key, span)

    def kept(self, subject: str) -> Kept:
        """The subject's timelines and courses as known at this position."""
        stored = self._histories.stored(subject, self.position)
        if stored is not None:
            return stored
        if self._folded is None:
            self._folded = Keeping(self._histories.memory_max // 3)
        folded = self._folded.get(subject)
        if folded is None:
            said = fold_both(self.assertions(subject))
            # As in the stored ones, a setting of which everything was taken back before it held has no timeline.
            folded = Kept(subject, {setting: both for setting, both in said.items() if any(map(_has_step, both))})
            self._folded.put(subject, folded)
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
            self._retractions_room -= 1 + len(found)
            if self._retractions_room < 0:
                self._retractions, self._retractions_room = {}, RETRACTIONS_MAX
            self._retractions[subject] = found
        return found


RETRACTIONS_MAX: Final = 20_000
"""With the subjects of which they are, some 10 MB; of one subject more, if it has more."""


def _has_step(timeline: Timeline) -> bool:
    return any(change is not None for change in timeline.changes)


class Moment:
    """A footing, and the question's present: `now` (µs), read before the ledger was looked at.

    What was recorded since is not in the answers, so none of them claims to know of it. (What was being committed just
    then may have been recorded a moment earlier and still not be seen: what an answer rests on for certain is
    `position`.)
    """

    __slots__ = ("footing", "now")

    def __init__(self, footing: Footing, now: int) -> None:
        self.footing = footing
        # Not before what the answers rest on, whatever the clock says.
        self.now = now if footing.recorded_at is None or now > footing.recorded_at else footing.recorded_at

    @property
    def position(self) -> int:
        return self.footing.position

    @property
    def recorded_at(self) -> int | None:
        return self.footing.recorded_at

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
    """One ledger's timelines in memory, at most about `memory_max` bytes of them. Safe to use from many threads."""

    def __init__(self, ledger: Ledger, store: TimelineStore, memory_max: int = MEMORY_MAX) -> None:
        self.ledger = ledger
        self.store = store
        self.runner = Runner(ledger, store)
        self.memory_max = memory_max
        self.grounds = Grounds(memory_max * 2 // 3)
        self._keeping = Keeping(memory_max // 3)
        self._mark = SharedMark(ledger.recorder.mark)
        self._mark_at_once = ledger.recorder.mark_at_once
        self._lock = threading.RLock()
        self._footing = Footing(self, 0, None)
        self._marked: tuple[Mark | None, Footing] = (None, self._footing)
        """A footing, and a mark that was read before it was looked for: as long as the mark is the same, it is all."""

    def now(self) -> Moment:
        """The ledger at its head, with the stored timelines brought up to it."""
        now = self.ledger.clock.now()
        # At once where that can be: it saves the company of other threads.
        mark = self._mark_at_once() or self._mark.read()
        marked, footing = self._marked
        return Moment(footing if mark == marked else self._look(mark), now)

    def at_once(self) -> Moment | None:
        """The same without waiting for anything; None where that cannot be had."""
        now = self.ledger.clock.now()
        mark = self._mark_at_once()
        marked, footing = self._marked
        return Moment(footing, now) if mark is not None and mark == marked else None

    def _look(self, mark: Mark) -> Footing:
        """The ledger at its head. `mark` was read before: what is committed meanwhile is only news to the next one."""
        head = self.ledger.head()
        with self._lock:
            if head.position > self._footing.position:
                position = self.runner.catch_up().position
                recorded_at = head.recorded_at
                if position != head.position:
                    entry = self.ledger.recorder.entry(position)
                    recorded_at = entry.recorded_at if entry is not None else None
                try:
                    self._learn(self._footing.position, position)
                except BaseException:
                    # Some of it is learned, and nothing may be learned twice: begin with nothing kept.
                    self._forget()
                    raise
                self._footing = Footing(self, position, recorded_at)
            self._marked = (mark, self._footing)
            return self._footing

    def _forget(self) -> None:
        self._keeping.clear()
        self.grounds.clear()

    def _learn(self, after: int, until: int) -> None:
        """Brings what is kept up to the events in (after, until]."""
        if until - after > _LEARNED_MAX:
            self._forget()
        if not len(self._keeping):
            # What grounds rest on was kept when they were made, but may have gone before them.
            self.grounds.clear()
            return
        while after < until:
            page = self.ledger.page(after, until=until)
            news: dict[str, list[Assertion]] = {}
            for entry in page:
                news.setdefault(entry.subject, [])
                if entry.subject in self._keeping:
                    news[entry.subject].append(read_assertion(entry.leaf))
            for subject, assertions in news.items():
                self.grounds.drop(subject)
                kept = self._keeping.get(subject) if assertions else None
                if kept is None:
                    continue
                if any(isinstance(said, Retraction) for said in assertions):
                    # Folded again from the first change, which is not kept.
                    self._keeping.drop(subject)
                else:
                    self._keeping.put(subject, Kept(subject, extended(kept.history, assertions)))
            if CATALOG_SUBJECT in news:
                # Everything rests on definitions.
                self._keeping.forget_courses()
                self.grounds.clear()
            after = page[-1].position

    def keep(self, key: Key, span: Span, position: int) -> bool:
        """Keeps what was made at `position`. False: the timelines have moved on, so that it may be no longer true."""
        with self._lock:
            if self._footing.position != position:
                return False
            self.grounds.keep(key, span)
            return True

    def stored(self, subject: str, position: int) -> Kept | None:
        """The stored timelines of the subject as of `position`; None where they have moved on."""
        with self._lock:
            if self._footing.position != position:
                return None
            kept = self._keeping.get(subject)
            if kept is not None:
                return kept
        tracked, history = self.store.subject(subject)
        if tracked != position:
            return None
        kept = Kept(subject, history)
        with self._lock:
            if self._footing.position == position:
                self._keeping.put(subject, kept)
        return kept
