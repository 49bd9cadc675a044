"""Every question at (at, known_at), pinned to a position.

Answers come from stored timelines: in force from the diagonal, hindsight from the current ones; for any other known_at
a subject's events are folded as they stood. Before a question is answered the projection is brought up to the
ledger's head, so a read after an acknowledged write sees it, whichever process took it. An answer never mixes two
positions: where the ledger moves on under a question, the question is asked again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeVar

from ledger.errors import LedgerUnavailable, NotFound
from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT
from ledger.times import BEGINNING
from projections.changes import Change, Retraction, read_assertions
from projections.check import check
from projections.courses import NOTHING, Course, course
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
COURSES_SUBJECTS_MAX: Final = 50_000
"""About 4 KB each."""
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
    """A setting whose value differs between two instants, as it was and as it became.

    `changed_by`: the events that did it, in position order: what decides at the later instant, and what decided at
    the earlier one where it ended by itself or was taken back between the two.
    """

    before: SettingState
    after: SettingState
    changed_by: tuple[Change | Retraction, ...]


class Snapshot(NamedTuple):
    """What subjects themselves have at one (at, known_at), by subject and setting in byte order; no clears."""

    position: int
    steps: tuple[tuple[str, str, Change], ...]


class _Moved(Exception):
    """The ledger moved on while a question was being answered."""


class _View:
    """The ledger at one position, seen at one (at, known_at): what `check` and `effective` may ask."""

    def __init__(self, query: Query, position: int, at: int, known_at: KnownAt) -> None:
        self._query = query
        self._position = position
        self.at = at
        self.known_at: KnownAt = query.in_force_of(at, known_at)
        self._timelines: dict[str, Mapping[str, Timelines]] = {}
        self._folded: dict[str, Mapping[str, Timeline]] = {}
        self._courses: dict[str, dict[str, Course]] = {}
        self._settled = True
        """Whether every state that was read from a course is the same with what is known now."""
        self.asked: dict[tuple[str, str], Change | None] = {}
        """Every step that was looked up besides, and what was found."""

    def own(self, subject: str, setting: str) -> Change | None:
        asked = (subject, setting)
        if asked in self.asked:
            return self.asked[asked]
        change = self.timeline(subject, setting).at(self.at)
        self.asked[asked] = change
        return change

    def timeline(self, subject: str, setting: str) -> Timeline:
        if isinstance(self.known_at, int):
            return self._fold(subject).get(setting, _EMPTY)
        both = self._stored(subject).get(setting)
        if both is None:
            return _EMPTY
        return both.in_force if self.known_at == IN_FORCE else both.current

    def settings(self, subject: str) -> Iterable[str]:
        """The settings that anything was ever said about, of this subject."""
        return self._fold(subject) if isinstance(self.known_at, int) else self._stored(subject)

    def _stored(self, subject: str) -> Mapping[str, Timelines]:
        stored = self._timelines.get(subject)
        if stored is None:
            stored = self._timelines[subject] = self._query.timelines_of(subject, self._position)
        return stored

    def _fold(self, subject: str) -> Mapping[str, Timeline]:
        folded = self._folded.get(subject)
        if folded is None:
            assert isinstance(self.known_at, int)
            folded = fold(self._query.known_assertions(subject, self._position, self.known_at))
            self._folded[subject] = folded
        return folded

    def agrees_with_hindsight(self) -> bool:
        """Whether every step looked up so far is the one that is known now, too.

        `check` asks for nothing that does not follow from the answers before, so it would then come to the same.
        """
        if not self._settled:
            return False
        later = _View(self._query, self._position, self.at, None)
        later._timelines = self._timelines
        for (subject, setting), change in self.asked.items():
            now = later.timeline(subject, setting).at(self.at)
            if now is not change and (now is None or change is None or now.position != change.position):
                return False
        return True

    def setting(self, subject: str, setting: str) -> SettingState:
        if self.known_at != IN_FORCE:
            return effective(subject, setting, self.own(subject, setting), self.own(CATALOG_SUBJECT, setting))
        courses = self._courses.get(subject)
        if courses is None:
            courses = self._courses[subject] = self._query.courses_of(subject, self._position)
        found = courses.get(setting)
        if found is None:
            own = self._stored(subject).get(setting, NOTHING)
            definition = self._stored(CATALOG_SUBJECT).get(setting, NOTHING)
            found = courses[setting] = course(subject, setting, own, definition)
        state, settled = found.at(self.at)
        self._settled = self._settled and settled
        return state

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
        self._courses: dict[str, dict[str, Course]] = {}
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
        if not self._cache and not self._courses:
            return
        while after < until:
            page = self.ledger.page(after, until=until)
            for entry in page:
                self._cache.pop(entry.subject, None)
                if entry.subject == CATALOG_SUBJECT:
                    self._courses = {}
                self._courses.pop(entry.subject, None)
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

    def courses_of(self, subject: str, position: int) -> dict[str, Course]:
        """Setting → course of a subject as of `position`, for the view to make and add. Raises `_Moved`."""
        with self._lock:
            if self._position != position:
                raise _Moved
            courses = self._courses.get(subject)
            if courses is None:
                if len(self._courses) >= COURSES_SUBJECTS_MAX:
                    self._courses = {}
                courses = self._courses[subject] = {}
            return courses

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
        if not self.timelines_of(subject, position) and not self.ledger.recorder.versions([subject])[subject]:
            raise NotFound(f"{subject} has no history in this ledger")

    def _instant(self, at: int, known_at: KnownAt) -> int:
        if known_at is None:
            # Not before what the answer rests on, whatever the clock says.
            return max(self.ledger.clock.now(), self._head_recorded_at or BEGINNING)
        return at if known_at == IN_FORCE else known_at

    def state(
        self, subject: str, *, at: int, known_at: KnownAt = None, settings: Sequence[str] | None = None
    ) -> StateAnswer:
        """Every setting of the subject's kind at (at, known_at), or only `settings`. Raises `NotFound`."""

        def answer(position: int) -> StateAnswer:
            self._must_exist(subject, position)
            view = _View(self, position, at, known_at)
            defined = view.settings(CATALOG_SUBJECT)
            if settings is not None and not set(settings) <= set(defined):
                raise NotFound("a setting is not defined; GET /v1/catalog lists those that are")
            wanted = sorted(defined) if settings is None else settings
            states = (view.setting(subject, setting) for setting in wanted)
            found = {s.setting: s for s in states if s.source in ("explicit", "default")}
            return StateAnswer(subject, at, self._instant(at, known_at), position, found)

        return self._ask(answer)

    def timeline(self, subject: str, *, setting: str | None = None, known_at: KnownAt = None) -> TimelineAnswer:
        """Intervals over valid time of one setting, or of each setting that the subject ever had. Raises `NotFound`."""

        def answer(position: int) -> TimelineAnswer:
            self._must_exist(subject, position)
            view = _View(self, position, BEGINNING, known_at)
            if isinstance(known_at, int) and view.known_at == IN_FORCE:
                # A timeline has no `at` of its own for its known_at to coincide with.
                view.known_at = known_at
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
                states = (before.setting(subject, setting), after.setting(subject, setting))
                applies = any(state.source in ("explicit", "default") for state in states)
                if applies and states[0].value != states[1].value:
                    changed_by = self._changed_by(*(states if start <= end else states[::-1]), start, end, known_at)
                    differences.append(Difference(*states, changed_by))
            return position, tuple(differences)

        return self._ask(answer)

    def _changed_by(
        self, earlier: SettingState, later: SettingState, start: int, end: int, known_at: KnownAt
    ) -> tuple[Change | Retraction, ...]:
        first, last = min(start, end), max(start, end)
        found: dict[int, Change | Retraction] = {}
        if later.newest is not None and later.newest != earlier.newest:
            found[later.newest.position] = later.newest
        gone = earlier.newest
        if gone is not None and gone.effective_until is not None and gone.effective_until <= last:
            found[gone.position] = gone
        if known_at == IN_FORCE and gone is not None:
            for said in read_assertions(
                e for e in self.ledger.stream(earlier.subject) if first < e.recorded_at <= last
            ):
                if isinstance(said, Retraction) and said.retracts == gone.event_id:
                    found[said.position] = said
        return tuple(found[position] for position in sorted(found))

    def catalog(self, *, at: int, known_at: KnownAt = None) -> tuple[int, Mapping[str, Change]]:
        """(position, setting → its definition's change, whose value holds the definition's members)."""

        def answer(position: int) -> tuple[int, Mapping[str, Change]]:
            view = _View(self, position, at, known_at)
            found = {key: view.own(CATALOG_SUBJECT, key) for key in sorted(view.settings(CATALOG_SUBJECT))}
            return position, {key: change for key, change in found.items() if change is not None}

        return self._ask(answer)

    def snapshot(self, *, at: int, known_at: KnownAt = None, kind: str | None = None) -> Snapshot:
        """What every subject (of `kind`) itself has at (at, known_at): the whole ledger at one instant."""

        def answer(position: int) -> Snapshot:
            known = self.in_force_of(at, known_at)
            if isinstance(known, int):
                view = _View(self, position, at, known_at)
                held = [
                    (row.subject, key) for row in self.store.subjects(kind)[1] for key in view.settings(row.subject)
                ]
                steps = [(subject, setting, view.own(subject, setting)) for subject, setting in sorted(held)]
            else:
                with self.store.snapshot("in_force" if known == IN_FORCE else "current", at, kind) as stored:
                    if stored.position != position:
                        raise _Moved
                    steps = list(stored.held)
            said = [(subject, key, change) for subject, key, change in steps if change is not None]
            return Snapshot(position, tuple(step for step in said if step[2].value is not None))

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
        if view.known_at is not None and not view.agrees_with_hindsight():
            later = _View(self, position, record.at, None)
            hindsight = self._hindsight(outcome, check(record, later), as_of)
        return Decision(record.request_id, outcome, as_of, hindsight)

    def _hindsight(self, outcome: Outcome, later: Outcome, as_of: AsOf) -> Hindsight | None:
        if (outcome.verdict, outcome.handling) == (later.verdict, later.handling):
            return None
        before = {(state.subject, state.setting): state for state in outcome.evidence}
        changed_by: list[SettingState | Retraction] = []
        for state in later.evidence:
            known = before.get((state.subject, state.setting))
            if known is not None and known.value == state.value:
                continue
            newer = state.newest is not None and state.newest.recorded_at > as_of.known_at
            if newer:
                changed_by.append(state)
            if known is not None:
                changed_by.extend(self._retractions(known, as_of, of_any=not newer))
        return Hindsight(later, tuple(changed_by))

    def _retractions(self, known: SettingState, as_of: AsOf, *, of_any: bool) -> list[Retraction]:
        """What was retracted since: the change that `known` rested on. Or, `of_any` where it still stands, others: an
        open change may reach further once a bounded one that it began in is gone."""
        entries = self.ledger.stream(known.subject)
        since = (e for e in entries if e.recorded_at > as_of.known_at and e.position <= as_of.position)
        retractions = [
            said for said in read_assertions(since) if isinstance(said, Retraction) and said.setting == known.setting
        ]
        rested_on = [said for said in retractions if known.newest and said.retracts == known.newest.event_id]
        return rested_on or (retractions if of_any else [])
