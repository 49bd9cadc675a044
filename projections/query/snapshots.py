"""The ledger at one position: what a question sees from its first look to its last.

`TimelineCache` keeps subjects' timelines, courses and grounds in memory and is kept right by the feed: it learns what
an
event says before it moves on to that event's position. A `LedgerSnapshot` is one position of it, shared by the
questions that
stand on it; a `ReadContext` is a question's. As long as the stored timelines stand there they serve; where they stayed
behind, they are taken on by what was said about the subject since; once they have moved on under a question, the
subject's events up to the position are folded instead, which is slower and comes to the same.
So no answer mixes two positions, and none has to be asked twice.
Proved by tests/query/test_moments.py, tests/query/test_grounds.py, tests/faults/test_behind.py, tests/test_pinned.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Final

from ledger.errors import LedgerCorrupt
from ledger.recorders.contract import ChangeToken, Entry, Head
from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT
from projections.query.decision_cache import DecisionCache, Key, Row, ValiditySpan
from projections.query.head_token import SharedChangeToken
from projections.query.subject_cache import CachedSubject, SubjectCache, extended, folded
from projections.temporal.changes import Assertion, Retraction, read_entries
from projections.temporal.coordinates import IN_FORCE, KnownAt
from projections.temporal.fold import Timeline, fold
from projections.timelines.catch_up import PATIENCE_S, CatchUp
from projections.timelines.projector import Projector
from projections.timelines.store import TimelineStore

__all__ = ["IN_FORCE", "MEMORY_MAX", "KnownAt", "LedgerSnapshot", "ReadContext", "TimelineCache"]

MEMORY_MAX: Final = 104_000_000
"""Bytes, about, of what is kept: two thirds grounds, one third timelines and courses. See projections/README.md."""
_LEARNED_MAX: Final = 20_000
"""Events: after more of them, as after somebody's import, it is cheaper to begin with nothing kept."""


class LedgerSnapshot:
    """The ledger at `position`, whose event was recorded at `recorded_at` (µs; None: there is no event)."""

    def __init__(self, timeline_cache: TimelineCache, position: int, recorded_at: int | None) -> None:
        self.position = position
        self.recorded_at = recorded_at
        self.ledger = timeline_cache.ledger
        self._timeline_cache = timeline_cache
        self._shared = timeline_cache.decision_cache
        # For who still stands here when the timelines have moved on: an audit does for its whole length.
        self._folded: SubjectCache | None = None
        self._decision_cache: DecisionCache | None = None
        self._retractions: dict[str, tuple[Retraction, ...]] = {}
        self._retractions_room = RETRACTIONS_MAX

    def find(self, key: Key, at: int) -> ValiditySpan | None:
        """What is kept to stand on at `at` (µs), for records with these ids."""
        found = self._shared.find(key, at, self.position)
        if found is None and self._decision_cache is not None:
            return self._decision_cache.find(key, at, self.position)
        return found

    def rows_at_once(self) -> Callable[[Key], Row | None]:
        """See `DecisionCache.rows_at_once`."""
        return self._shared.rows_at_once()

    def keep(self, key: Key, span: ValiditySpan) -> None:
        if self._timeline_cache.keep(key, span, self.position):
            return
        if self._decision_cache is None:
            self._decision_cache = DecisionCache(self._timeline_cache.memory_max * 2 // 3)
        self._decision_cache.keep(key, span)

    def kept(self, subject: str) -> CachedSubject:
        """The subject's timelines and courses as known at this position."""
        stored = self._timeline_cache.stored(subject, self.position)
        if stored is not None:
            return stored
        if self._folded is None:
            self._folded = SubjectCache(self._timeline_cache.memory_max // 3)
        found = self._folded.get(subject)
        if found is None:
            found = folded(subject, self.assertions(subject))
            self._folded.put(subject, found)
        return found

    def assertions(self, subject: str, known_at: int | None = None) -> list[Assertion]:
        """What had been said about the subject up to this position, and by `known_at` (µs) if given."""
        entries = self.ledger.stream(subject)
        return read_entries(
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


FOLDED_MAX: Final = 20_000
"""Subjects and assertions about them, some 10 MB; of one subject more, if it has more."""


class ReadContext:
    """A footing, and the question's present: `now` (µs), read before the ledger was looked at.

    What was recorded since is not in the answers, so none of them claims to know of it. (What was being committed just
    then may have been recorded a moment earlier and still not be seen: what an answer rests on for certain is
    `position`.)
    """

    __slots__ = ("_folded", "_folded_room", "now", "snapshot")

    def __init__(self, snapshot: LedgerSnapshot, now: int) -> None:
        self.snapshot = snapshot
        # Not before what the answers rest on, whatever the clock says.
        self.now = now if snapshot.recorded_at is None or now > snapshot.recorded_at else snapshot.recorded_at
        self._folded: dict[tuple[str, int], Mapping[str, Timeline]] = {}
        self._folded_room = FOLDED_MAX

    @property
    def position(self) -> int:
        return self.snapshot.position

    @property
    def recorded_at(self) -> int | None:
        return self.snapshot.recorded_at

    def folded(self, subject: str, known_at: int) -> Mapping[str, Timeline]:
        """The subject's timelines as known at an instant (µs). Kept: who asks about many asks at one instant, and each
        of them asks for the catalog."""
        found = self._folded.get((subject, known_at))
        if found is None:
            said = self.snapshot.assertions(subject, known_at)
            found = fold(said)
            self._folded_room -= 1 + len(said)
            if self._folded_room < 0:
                self._folded, self._folded_room = {}, FOLDED_MAX
            self._folded[subject, known_at] = found
        return found

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


class TimelineCache:
    """One ledger's timelines in memory, at most about `memory_max` bytes of them. Safe to use from many threads."""

    def __init__(self, ledger: Ledger, store: TimelineStore, memory_max: int = MEMORY_MAX) -> None:
        self.ledger = ledger
        self.store = store
        self._catch_up = CatchUp(Projector(ledger, store))
        # Who brings the timelines up does not keep those waiting who need none of them.
        self._turn = threading.Lock()
        self.memory_max = memory_max
        self.decision_cache = DecisionCache(memory_max * 2 // 3)
        self._subject_cache = SubjectCache(memory_max // 3)
        self._change_token = SharedChangeToken(ledger.recorder.change_token)
        self._change_token_nowait = ledger.recorder.change_token_nowait
        self._lock = threading.RLock()
        self._snapshot = LedgerSnapshot(self, 0, None)
        self._marked: tuple[ChangeToken | None, LedgerSnapshot] = (None, self._snapshot)
        """A footing, and a mark that was read before it was looked for: as long as the mark is the same, it is all."""

    def now(self) -> ReadContext:
        """The ledger at its head, with the stored timelines brought up to it."""
        now = self.ledger.clock.now()
        # At once where that can be: it saves the company of other threads.
        change_token = self._change_token_nowait() or self._change_token.read()
        marked, snapshot = self._marked
        return ReadContext(
            snapshot if change_token == marked and not self._catch_up.due() else self._look(change_token), now
        )

    def at_once(self) -> ReadContext | None:
        """The same without waiting for anything; None where that cannot be had."""
        now = self.ledger.clock.now()
        change_token = self._change_token_nowait()
        marked, snapshot = self._marked
        return ReadContext(snapshot, now) if change_token is not None and change_token == marked else None

    def _look(self, change_token: ChangeToken) -> LedgerSnapshot:
        """The ledger at its head. `change_token` was read before: what is committed meanwhile is only news to the next
        one."""
        head = self.ledger.head()
        if self._lacks(head):
            if self._turn.acquire(timeout=PATIENCE_S):
                try:
                    # Whoever had the turn before may have done it.
                    if self._lacks(head):
                        self._stand_on(self._projected(head))
                finally:
                    self._turn.release()
            else:
                self._stand_on(head)
        with self._lock:
            self._marked = (change_token, self._snapshot)
            return self._snapshot

    def _lacks(self, head: Head) -> bool:
        return head.position > self._snapshot.position or self._catch_up.due()

    def _projected(self, head: Head) -> Head:
        try:
            return self._catch_up.up_to(head)
        except LedgerCorrupt:
            # Nobody is to take what was answered without the projector for the projector's word.
            with self._lock:
                self._marked = (None, self._snapshot)
            raise

    def _stand_on(self, head: Head) -> None:
        with self._lock:
            if head.position <= self._snapshot.position:
                if head.position < self._snapshot.position:
                    self._catch_up.left_behind()
                return
            try:
                self._learn(self._snapshot.position, head.position)
            except BaseException:
                # Some of it is learned, and nothing may be learned twice: begin with nothing kept.
                self._forget()
                raise
            self._snapshot = LedgerSnapshot(self, *head)

    def _forget(self) -> None:
        self._subject_cache.clear()
        self.decision_cache.clear()

    def _learn(self, after: int, until: int) -> None:
        """Brings what is kept up to the events in (after, until]."""
        if until - after > _LEARNED_MAX:
            self._forget()
        if not len(self._subject_cache):
            # What grounds rest on was kept when they were made, but may have gone before them.
            self.decision_cache.clear()
            return
        while after < until:
            page = self.ledger.page(after, until=until)
            news: dict[str, list[Entry]] = {}
            for entry in page:
                news.setdefault(entry.subject, []).append(entry)
            for subject, entries in news.items():
                self.decision_cache.drop(subject)
                kept = self._subject_cache.get(subject)
                if kept is None:
                    continue
                assertions = read_entries(entries)
                if any(isinstance(said, Retraction) for said in assertions):
                    # Folded again from the first change, which is not kept.
                    self._subject_cache.drop(subject)
                else:
                    self._subject_cache.put(subject, CachedSubject(subject, extended(kept.history, assertions)))
            if CATALOG_SUBJECT in news:
                # Everything rests on definitions.
                self._subject_cache.forget_effective_timelines()
                self.decision_cache.clear()
            after = page[-1].position

    def keep(self, key: Key, span: ValiditySpan, position: int) -> bool:
        """Keeps what was made at `position`. False: the timelines have moved on, so that it may be no longer true."""
        with self._lock:
            if self._snapshot.position != position:
                return False
            self.decision_cache.keep(key, span)
            return True

    def stored(self, subject: str, position: int) -> CachedSubject | None:
        """The subject's timelines as of `position`, from what is stored; None where that has moved on."""
        with self._lock:
            if self._snapshot.position != position:
                return None
            kept = self._subject_cache.get(subject)
            if kept is not None:
                return kept
        tracked, history = self.store.subject(subject)
        if tracked > position:
            return None
        kept = CachedSubject(subject, history)
        if tracked < position:
            kept = self._taken_on(subject, kept, tracked, position)
        with self._lock:
            if self._snapshot.position == position:
                self._subject_cache.put(subject, kept)
        return kept

    def _taken_on(self, subject: str, kept: CachedSubject, tracked: int, position: int) -> CachedSubject:
        """`kept`, which is as of `tracked`, with what was said about the subject up to `position`."""

        def read(after: int) -> list[Assertion]:
            entries = self.ledger.stream(subject, after=after)
            return read_entries(entry for entry in entries if entry.position <= position)

        news = read(self.ledger.recorder.version_at(subject, tracked))
        if any(isinstance(said, Retraction) for said in news):
            return folded(subject, read(0))
        return CachedSubject(subject, extended(kept.history, news)) if news else kept
