"""Every question at (at, known_at), pinned to a position.

Answers come from stored timelines: in force from the diagonal, hindsight from the current ones; for any other known_at
a subject's events are folded as they stood. Before a question is answered the projection is brought up to the
ledger's head, so a read after an acknowledged write sees it, whichever process took it. An answer never mixes two
positions: where the ledger moves on under a question, the question is asked again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeVar

from ledger.errors import LedgerUnavailable, NotFound
from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT
from ledger.times import BEGINNING
from projections.changes import Change, Retraction, read_assertions
from projections.check import check
from projections.decision import AsOf, Decision, Hindsight, Outcome, RequestRecord
from projections.fold import Timeline, fold
from projections.in_force import Timelines
from projections.runner import Runner
from projections.state import Interval, SettingState, effective, intervals
from projections.timelines import open_timelines

IN_FORCE: Final = "at"
"""As a known_at: the same instant as `at`."""

KnownAt = int | Literal["at"] | None
"""An instant (µs), `IN_FORCE`, or None: everything recorded so far."""

CACHED_SUBJECTS_MAX: Final = 200_000
ATTEMPTS_MAX: Final = 100

_EMPTY: Final = Timeline()
Answer = TypeVar("Answer")


class StateAnswer(NamedTuple):
    """Effective state. Instants in µs; `settings` in the order of their keys."""

    subject: str
    at: int
    known_at: int
    position: int
    settings: Mapping[str, SettingState]


class TimelineAnswer(NamedTuple):
    subject: str
    known_at: int | None
    """None: in force."""
    position: int
    intervals: tuple[Interval, ...]


class Difference(NamedTuple):
    """A setting whose value differs between two instants, as it was and as it became."""

    before: SettingState
    after: SettingState


class _Moved(Exception):
    """The ledger moved on while a question was being answered."""


class _View:
    """The ledger at one position, seen at one (at, known_at): what `check` and `effective` may ask."""

    def __init__(self, query: Query, position: int, at: int, known_at: KnownAt) -> None:
        self._query = query
        self._position = position
        self.at = at
        self.known_at: KnownAt = query.in_force_of(at, known_at)
        self._folded: dict[str, Mapping[str, Timeline]] = {}

    def own(self, subject: str, setting: str) -> Change | None:
        return self.timeline(subject, setting).at(self.at)

    def timeline(self, subject: str, setting: str) -> Timeline:
        if self.known_at is None or self.known_at == IN_FORCE:
            both = self._query.timelines_of(subject, self._position).get(setting)
            if both is None:
                return _EMPTY
            return both.in_force if self.known_at == IN_FORCE else both.current
        return self.folded(subject).get(setting, _EMPTY)

    def settings(self, subject: str) -> Iterable[str]:
        """The settings that anything was ever said about, of this subject."""
        if isinstance(self.known_at, int):
            return self.folded(subject)
        return self._query.timelines_of(subject, self._position)

    def folded(self, subject: str) -> Mapping[str, Timeline]:
        known = self._folded.get(subject)
        if known is None:
            assert isinstance(self.known_at, int)
            known = fold(self._query.known_assertions(subject, self._position, self.known_at))
            self._folded[subject] = known
        return known

    def setting(self, subject: str, setting: str) -> SettingState:
        return effective(subject, setting, self.own(subject, setting), self.own(CATALOG_SUBJECT, setting))

    def definition(self, setting: str) -> Mapping[str, Any] | None:
        change = self.own(CATALOG_SUBJECT, setting)
        return change.value if change is not None and isinstance(change.value, dict) else None


class Query:
    """All questions about one ledger. Safe to use from many threads; closes nothing."""

    def __init__(self, ledger: Ledger, *, cached_subjects_max: int = CACHED_SUBJECTS_MAX) -> None:
        self.ledger = ledger
        self.store = open_timelines(ledger)
        self.runner = Runner(ledger, self.store)
        self._cached_subjects_max = cached_subjects_max
        self._cache: OrderedDict[str, Mapping[str, Timelines]] = OrderedDict()
        self._position = 0
        self._head_recorded_at: int | None = None
        self._lock = threading.RLock()

    def pin(self) -> int:
        """Brings the projection up to the ledger's head; answers the position that the next answers are pinned to."""
        head = self.ledger.head()
        with self._lock:
            if head.position > self._position:
                caught_up = self.runner.catch_up()
                self._forget(self._position, caught_up.position)
                self._position = caught_up.position
                self._head_recorded_at = self._recorded_at(caught_up.position, head.position, head.recorded_at)
            return self._position

    def _recorded_at(self, position: int, head: int, recorded_at: int | None) -> int | None:
        if position == head:
            return recorded_at
        entry = self.ledger.recorder.entry(position)
        return entry.recorded_at if entry is not None else None

    def _forget(self, after: int, until: int) -> None:
        """Drops from the cache what the events in (after, until] are about."""
        if not self._cache:
            return
        while after < until:
            page = self.ledger.page(after, until=until)
            for entry in page:
                self._cache.pop(entry.subject, None)
            after = page[-1].position

    def in_force_of(self, at: int, known_at: KnownAt) -> KnownAt:
        """The cheapest known_at with the same answers: stored timelines serve `IN_FORCE` and None."""
        if isinstance(known_at, int):
            if self._everything_known_at(known_at):
                return None
            if known_at == at:
                return IN_FORCE
        return known_at

    def _everything_known_at(self, instant: int) -> bool:
        return self._head_recorded_at is None or instant >= self._head_recorded_at

    def timelines_of(self, subject: str, position: int) -> Mapping[str, Timelines]:
        """The stored timelines of a subject as of `position`. Raises `_Moved` where they are newer."""
        with self._lock:
            if self._position != position:
                raise _Moved
            cached = self._cache.get(subject)
            if cached is not None:
                self._cache.move_to_end(subject)
                return cached
            tracked, timelines = self.store.subject(subject)
            if tracked != position:
                raise _Moved
            self._cache[subject] = timelines
            if len(self._cache) > self._cached_subjects_max:
                self._cache.popitem(last=False)
            return timelines

    def known_assertions(self, subject: str, position: int, known_at: int) -> list[Change | Retraction]:
        """What had been said about a subject by `known_at` (µs), up to `position`."""
        entries = self.ledger.stream(subject)
        return read_assertions(e for e in entries if e.recorded_at <= known_at and e.position <= position)

    def _ask(self, question: Callable[[int], Answer]) -> Answer:
        for _attempt in range(ATTEMPTS_MAX):
            try:
                return question(self.pin())
            except _Moved:
                continue
        raise LedgerUnavailable("the ledger kept moving under the question; ask again")

    def _must_exist(self, subject: str, position: int) -> None:
        if not self.timelines_of(subject, position):
            raise NotFound(f"{subject} has no history in this ledger")

    def _instant(self, at: int, known_at: KnownAt) -> int:
        if known_at is None:
            return self.ledger.clock.now()
        return at if known_at == IN_FORCE else known_at

    def state(
        self, subject: str, *, at: int, known_at: KnownAt = None, settings: Sequence[str] | None = None
    ) -> StateAnswer:
        """Every setting of the subject's kind at (at, known_at), or only `settings`. Raises `NotFound`."""

        def answer(position: int) -> StateAnswer:
            self._must_exist(subject, position)
            view = _View(self, position, at, known_at)
            wanted = sorted(view.settings(CATALOG_SUBJECT)) if settings is None else settings
            states = (view.setting(subject, setting) for setting in wanted)
            found = {s.setting: s for s in states if s.source in ("explicit", "default")}
            return StateAnswer(subject, at, self._instant(at, known_at), position, found)

        return self._ask(answer)

    def timeline(self, subject: str, *, setting: str | None = None, known_at: KnownAt = None) -> TimelineAnswer:
        """Intervals over valid time of one setting, or of each setting that the subject ever had. Raises `NotFound`."""

        def answer(position: int) -> TimelineAnswer:
            self._must_exist(subject, position)
            view = _View(self, position, BEGINNING, known_at)
            if known_at == IN_FORCE:
                view.known_at = IN_FORCE
            wanted = sorted(view.settings(subject)) if setting is None else [setting]
            found = [
                interval
                for key in wanted
                for interval in intervals(
                    subject, key, view.timeline(subject, key), view.timeline(CATALOG_SUBJECT, key)
                )
            ]
            if setting is not None and all(interval.source in ("undefined", "not_applicable") for interval in found):
                raise NotFound(f"{subject} has no setting {setting}; GET /v1/catalog lists those that are defined")
            instant = None if known_at == IN_FORCE else self._instant(BEGINNING, known_at)
            return TimelineAnswer(subject, instant, position, tuple(found))

        return self._ask(answer)

    def diff(
        self, subject: str, *, start: int, end: int, known_at: KnownAt = None
    ) -> tuple[int, tuple[Difference, ...]]:
        """(position, the settings whose value differs between instants `start` and `end`). Raises `NotFound`."""

        def answer(position: int) -> tuple[int, tuple[Difference, ...]]:
            self._must_exist(subject, position)
            before, after = _View(self, position, start, known_at), _View(self, position, end, known_at)
            differences = []
            for setting in sorted({*before.settings(CATALOG_SUBJECT), *after.settings(CATALOG_SUBJECT)}):
                difference = Difference(before.setting(subject, setting), after.setting(subject, setting))
                applies = any(s.source in ("explicit", "default") for s in difference)
                if applies and difference.before.value != difference.after.value:
                    differences.append(difference)
            return position, tuple(differences)

        return self._ask(answer)

    def catalog(self, *, at: int, known_at: KnownAt = None) -> tuple[int, Mapping[str, Change]]:
        """(position, setting → its definition's change, whose value holds the definition's members)."""

        def answer(position: int) -> tuple[int, Mapping[str, Change]]:
            view = _View(self, position, at, known_at)
            found = {key: view.own(CATALOG_SUBJECT, key) for key in sorted(view.settings(CATALOG_SUBJECT))}
            return position, {key: change for key, change in found.items() if change is not None}

        return self._ask(answer)

    def check(self, record: RequestRecord, known_at: KnownAt = IN_FORCE) -> Decision:
        """The decision on one request record (DESIGN.md section 4)."""
        return self.check_all((record,), known_at)[0]

    def check_all(self, records: Iterable[RequestRecord], known_at: KnownAt = IN_FORCE) -> list[Decision]:
        """Decisions in order, all pinned to one position."""
        kept = tuple(records)
        return self._ask(lambda position: [self._decide(record, known_at, position) for record in kept])

    def _decide(self, record: RequestRecord, known_at: KnownAt, position: int) -> Decision:
        view = _View(self, position, record.at, known_at)
        outcome = check(record, view)
        as_of = AsOf(record.at, self._instant(record.at, known_at), position)
        hindsight = None
        if view.known_at is not None and not self._everything_known_at(as_of.known_at):
            later = _View(self, position, record.at, None)
            hindsight = self._hindsight(outcome, check(record, later), as_of)
        return Decision(record.request_id, outcome, as_of, hindsight)

    def _hindsight(self, outcome: Outcome, later: Outcome, as_of: AsOf) -> Hindsight | None:
        if (outcome.verdict, outcome.handling) == (later.verdict, later.handling):
            return None
        now = {(state.subject, state.setting): state for state in later.evidence}
        changed_by: list[SettingState | Retraction] = []
        for state in outcome.evidence:
            other = now.get((state.subject, state.setting))
            if other is None or other.change == state.change:
                continue
            if other.change is not None and other.change.recorded_at > as_of.known_at:
                changed_by.append(other)
            changed_by.extend(self._retractions_of(state, as_of))
        return Hindsight(later, tuple(changed_by))

    def _retractions_of(self, state: SettingState, as_of: AsOf) -> Iterator[Retraction]:
        entries = self.ledger.stream(state.subject)
        for said in read_assertions(e for e in entries if as_of.known_at < e.recorded_at and e.position <= as_of.position):
            if isinstance(said, Retraction) and state.change is not None and said.retracts == state.change.event_id:
                yield said
