"""Every question at (at, known_at), pinned to a position.

Answers come from stored timelines: in force from the diagonal, hindsight from the current ones; for any other known_at
a subject's events are folded as they stood. Every question stands on the ledger's head, so a read after an acknowledged
write sees it, whichever process took it. The stored timelines are brought up to there before; where they cannot be,
what they lack is read from the events. From then on the question sees one moment of the ledger (see `moments`).
Proved by tests/query and tests/faults/test_behind.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from ledger.errors import LedgerUnavailable, NotFound
from ledger.follower import AT_LEAST_SECONDS_MAX
from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT
from ledger.times import BEGINNING
from projections.decisions.check import check, decision_basis, judge
from projections.decisions.encoding import decisions_bytes
from projections.decisions.model import AsOf, Decision, Outcome, RequestRecord
from projections.query import causes, listing
from projections.query.as_of_view import View
from projections.query.at_once import in_force_bytes
from projections.query.decision_cache import ValiditySpan
from projections.query.snapshots import IN_FORCE, MEMORY_MAX, KnownAt, ReadContext, TimelineCache
from projections.temporal.changes import Change, Retraction
from projections.temporal.effective_state import Interval, SettingState, intervals
from projections.timelines.store import Held, SubjectRow, open_timelines

__all__ = [
    "IN_FORCE",
    "CatalogAnswer",
    "DiffAnswer",
    "Difference",
    "KnownAt",
    "Query",
    "Snapshot",
    "StateAnswer",
    "TimelineAnswer",
]

ATTEMPTS_MAX: Final = 100


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


class DiffAnswer(NamedTuple):
    known_at: int | None
    """None: in force, at each of the two instants."""
    position: int
    differences: tuple[Difference, ...]


class CatalogAnswer(NamedTuple):
    """`definitions`: setting → its definition's change, whose value holds the definition's members."""

    known_at: int
    position: int
    definitions: Mapping[str, Change]


class Snapshot(NamedTuple):
    """What subjects themselves have at one (at, known_at), by subject and setting in byte order; no clears."""

    position: int
    steps: tuple[tuple[str, str, Change], ...]


class Query:
    """All questions about one ledger. Safe to use from many threads; closes nothing."""

    def __init__(self, ledger: Ledger, *, memory_max: int = MEMORY_MAX) -> None:
        self.ledger = ledger
        self.store = open_timelines(ledger)
        self.timeline_cache = TimelineCache(ledger, self.store, memory_max)

    def moment(self) -> ReadContext:
        """What the next question sees: the ledger's head."""
        return self.timeline_cache.now()

    def at_least(self, position: int, timeout_s: float = AT_LEAST_SECONDS_MAX) -> None:
        """Returns once the ledger has reached `position`: no question asked after that is answered from before it.

        Raises `PositionNotReached`. A receipt's position is seen anyway by every question asked after the receipt came.
        """
        self.ledger.at_least(position, timeout_s)

    def _must_exist(self, subject: str, moment: ReadContext) -> None:
        if not moment.snapshot.kept(subject).history and not moment.snapshot.assertions(subject):
            raise NotFound("the subject has no history in this ledger")

    def state(
        self, subject: str, *, at: int, known_at: KnownAt = None, settings: Sequence[str] | None = None
    ) -> StateAnswer:
        """Every setting of the subject's kind at (at, known_at), or only `settings`. Raises `NotFound`."""
        moment = self.moment()
        self._must_exist(subject, moment)
        view = View(moment, at, known_at)
        defined = view.settings(CATALOG_SUBJECT)
        if settings is not None and not set(settings) <= set(defined):
            raise NotFound("a setting is not defined; the catalog lists those that are")
        wanted = sorted(defined) if settings is None else settings
        states = (view.setting(subject, setting) for setting in wanted)
        found = {s.setting: s for s in states if s.source in ("explicit", "default")}
        return StateAnswer(subject, at, moment.instant(at, known_at), moment.position, found)

    def timeline(self, subject: str, *, setting: str | None = None, known_at: KnownAt = None) -> TimelineAnswer:
        """Intervals over valid time of one setting, or of each setting that the subject ever had. Raises `NotFound`."""
        moment = self.moment()
        self._must_exist(subject, moment)
        view = View(moment, BEGINNING, known_at)
        if isinstance(known_at, int) and view.known_at == IN_FORCE:
            # A timeline has no `at` of its own for its known_at to coincide with.
            view.known_at = known_at
        wanted = sorted(view.settings(subject)) if setting is None else [setting]
        found = [
            interval
            for key in wanted
            for interval in intervals(subject, key, view.timeline(subject, key), view.timeline(CATALOG_SUBJECT, key))
        ]
        if setting is not None and all(interval.source in ("undefined", "not_applicable") for interval in found):
            raise NotFound("the subject has no such setting; the catalog lists those that are defined")
        instant = None if known_at == IN_FORCE else moment.instant(BEGINNING, known_at)
        return TimelineAnswer(subject, instant, moment.position, tuple(found))

    def diff(self, subject: str, *, start: int, end: int, known_at: KnownAt = None) -> DiffAnswer:
        """The settings whose value differs between instants `start` and `end`. Raises `NotFound`."""
        moment = self.moment()
        self._must_exist(subject, moment)
        before, after = View(moment, start, known_at), View(moment, end, known_at)
        differences = []
        for setting in sorted({*before.settings(CATALOG_SUBJECT), *after.settings(CATALOG_SUBJECT)}):
            states = (before.setting(subject, setting), after.setting(subject, setting))
            applies = any(state.source in ("explicit", "default") for state in states)
            if applies and states[0].value != states[1].value:
                earlier, later = states if start <= end else states[::-1]
                changed_by = causes.between(moment, earlier, later, min(start, end), max(start, end), known_at)
                differences.append(Difference(*states, changed_by))
        instant = None if known_at == IN_FORCE else moment.instant(start, known_at)
        return DiffAnswer(instant, moment.position, tuple(differences))

    def catalog(self, *, at: int, known_at: KnownAt = None) -> CatalogAnswer:
        """The settings that are defined at (at, known_at)."""
        moment = self.moment()
        view = View(moment, at, known_at)
        found = {key: view.own(CATALOG_SUBJECT, key) for key in sorted(view.settings(CATALOG_SUBJECT))}
        definitions = {key: change for key, change in found.items() if change is not None}
        return CatalogAnswer(moment.instant(at, known_at), moment.position, definitions)

    def subjects(
        self, kind: str | None = None, prefix: str | None = None, after: str | None = None, limit: int | None = None
    ) -> tuple[int, list[SubjectRow]]:
        """(position, subjects that have a history in byte order); `prefix` is of the whole reference."""
        return listing.subjects(self.moment(), self.store, kind, prefix, after, limit)

    def snapshot(self, *, at: int, known_at: KnownAt = None, kind: str | None = None) -> Snapshot:
        """What every subject (of `kind`) itself has at (at, known_at): the whole ledger at one instant."""
        for _attempt in range(ATTEMPTS_MAX):
            moment = self.moment()
            known = moment.cheapest(at, known_at)
            if isinstance(known, int):
                view = View(moment, at, known_at)
                rows = listing.subjects(moment, self.store, kind)[1]
                told = sorted((row.subject, setting) for row in rows for setting in view.settings(row.subject))
                steps = [(subject, setting, view.own(subject, setting)) for subject, setting in told]
                held = [Held(subject, setting, change) for subject, setting, change in steps if change is not None]
            else:
                found = listing.held(moment, self.store, "in_force" if known == IN_FORCE else "current", at, kind)
                if found is None:
                    # The stored rows of everything are of a later moment: ask for that one.
                    continue
                held = found
            return Snapshot(moment.position, tuple(step for step in held if step.change.value is not None))
        raise LedgerUnavailable("the ledger kept moving under the question; ask again")

    def check(self, record: RequestRecord, known_at: KnownAt = IN_FORCE, moment: ReadContext | None = None) -> Decision:
        """The decision on one request record (DESIGN.md section 4)."""
        return self._decide(record, known_at, moment or self.moment())

    def check_all(
        self, records: Iterable[RequestRecord], known_at: KnownAt = IN_FORCE, moment: ReadContext | None = None
    ) -> list[Decision]:
        """Decisions in order, all pinned to one position: that of `moment`, which is the next one if not given."""
        seen = moment or self.moment()
        return [self._decide(record, known_at, seen) for record in records]

    def check_all_bytes(self, records: Iterable[RequestRecord], known_at: KnownAt, moment: ReadContext) -> bytes:
        """`decisions_bytes` of `check_all`; there is at least one record."""
        if known_at == IN_FORCE:
            return in_force_bytes(records, moment, lambda record: self._decide(record, IN_FORCE, moment))
        return decisions_bytes(self.check_all(records, known_at, moment))

    def moment_at_once(self) -> ReadContext | None:
        """`moment` without waiting for anything; None where that cannot be had."""
        return self.timeline_cache.at_once()

    def check_at_once(self, records: Iterable[RequestRecord], moment: ReadContext) -> list[Decision] | None:
        """The decisions in force, if they can be had from memory without waiting for anything; else None."""
        decisions = []
        for record in records:
            span = moment.snapshot.find(record[1:6], record.at)
            if span is None or span.later is not None or record.enforced_position is not None:
                # What changed it since, or was taken back, is read from the ledger.
                return None
            decisions.append(_decided(record, moment, judge(record, span.decision_basis, None)))
        return decisions

    def _decide(self, record: RequestRecord, known_at: KnownAt, moment: ReadContext) -> Decision:
        at = record.at
        if known_at not in (IN_FORCE, at):
            return self._decide_as_known(record, known_at, moment)
        span = moment.snapshot.find(record[1:6], at)
        if span is None:
            span = self._stand(record, moment)
        if span.later is None and record.enforced_position is None:
            return _decided(record, moment, judge(record, span.decision_basis, None))
        states = None if record.enforced_position is None else View(moment, record.at, IN_FORCE)
        decision = _decided(record, moment, judge(record, span.decision_basis, states))
        if span.later is None:
            return decision
        later = judge(record, span.later, None if states is None else View(moment, record.at, None))
        return decision._replace(hindsight=causes.hindsight(moment, decision.outcome, later, decision.as_of))

    def _stand(self, record: RequestRecord, moment: ReadContext) -> ValiditySpan:
        """What the decision in force on `record` stands on, made and kept."""
        view = View(moment, record.at, IN_FORCE)
        found, later = decision_basis(record, view), None
        if not view.agrees_with_hindsight():
            hindsight = view.later()
            later = decision_basis(record, hindsight)
            view.join(hindsight)
        span = ValiditySpan(view.start, view.until, moment.position, found, later, view.subjects)
        moment.snapshot.keep(record[1:6], span)
        return span

    def _decide_as_known(self, record: RequestRecord, known_at: KnownAt, moment: ReadContext) -> Decision:
        view = View(moment, record.at, known_at)
        outcome = check(record, view)
        as_of = AsOf(record.at, moment.instant(record.at, known_at), moment.position)
        hindsight = None
        if view.known_at is not None and not view.agrees_with_hindsight():
            later = check(record, View(moment, record.at, None))
            hindsight = causes.hindsight(moment, outcome, later, as_of)
        return Decision(record.request_id, outcome, as_of, hindsight)


def _decided(record: RequestRecord, moment: ReadContext, outcome: Outcome) -> Decision:
    """In force, and the same in hindsight."""
    at, now = record.at, moment.now
    # As AsOf(…) and Decision(…) do it, at half the price.
    as_of = _new(AsOf, (at, at if at < now else now, moment.snapshot.position))
    return _new(Decision, (record.request_id, outcome, as_of, None))


_new: Final = tuple.__new__
