"""Every question at (at, known_at), pinned to a position.

Answers come from stored timelines: in force from the in-force ones, hindsight from the current ones. For any other
known_at the subject's events known then are folded. Every question sees one snapshot of the ledger's head (see
`snapshots`).
`PinnedQuery` stays at one position, however far the ledger moves on meanwhile: what an audit needs.
Proved by tests/query and tests/faults/test_behind.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from ledger.errors import LedgerUnavailable, NotFound
from ledger.near_names import did_you_mean
from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT, MUST_BE_KNOWN
from ledger.times import BEGINNING
from projections.decisions.model import Decision, RequestRecord
from projections.query import causes, listing
from projections.query.as_of_view import AsOfView
from projections.query.decide import decide
from projections.query.history import NO_HISTORY
from projections.query.snapshots import IN_FORCE, KnownAt, ReadContext
from projections.query.timeline_cache import MEMORY_MAX, TimelineCache
from projections.temporal.changes import Assertion, Change
from projections.temporal.coordinates import ClockNotice, Pin
from projections.temporal.effective_state import Interval, NextState, SettingState, intervals, next_state
from projections.timelines.contract import Axis, SubjectChange, SubjectRow
from projections.timelines.store import open_timelines
from projections.timelines.turns import require_turn

__all__ = [
    "IN_FORCE",
    "CatalogAnswer",
    "DiffAnswer",
    "KnownAt",
    "PinnedQuery",
    "Query",
    "SettingDifference",
    "SnapshotAnswer",
    "StateAnswer",
    "TimelineAnswer",
]

ATTEMPTS_MAX: Final = 100


class StateAnswer(NamedTuple):
    """Effective state. Instants in µs; `settings` in the order of their keys. `next`: setting → its next change after
    `at`, as known at `known_at`, for the settings that have one. `version`: the subject's at `position`, which a
    submission may expect."""

    subject: str
    at: int
    known_at: int
    position: int
    version: int
    settings: Mapping[str, SettingState]
    next: Mapping[str, NextState]
    clock_notice: ClockNotice | None = None


class TimelineAnswer(NamedTuple):
    subject: str
    known_at: int | None
    """None: in force."""
    position: int
    intervals: tuple[Interval, ...]
    clock_notice: ClockNotice | None = None


class SettingDifference(NamedTuple):
    """A setting whose value differs between two instants, as it was and as it became.

    `changed_by`, in position order: the event that decides at the later instant, and the one that decided at the
    earlier instant if it ended by itself or was retracted between the two.
    """

    before: SettingState
    after: SettingState
    changed_by: tuple[Assertion, ...]


class DiffAnswer(NamedTuple):
    known_at: int | None
    """None: in force, at each of the two instants."""
    position: int
    differences: tuple[SettingDifference, ...]
    clock_notice: ClockNotice | None = None


class CatalogAnswer(NamedTuple):
    """`definitions`: setting → its definition's change, whose value holds the definition's members."""

    known_at: int
    position: int
    definitions: Mapping[str, Change]
    clock_notice: ClockNotice | None = None


class SnapshotAnswer(NamedTuple):
    """Every subject's own changes at one (at, known_at), by subject and setting in byte order; no clears."""

    position: int
    changes: tuple[SubjectChange, ...]
    clock_notice: ClockNotice | None = None


def _not_defined(fact: str, wanted: Iterable[str], defined: Iterable[str]) -> NotFound:
    """The error, with names near the first of the wanted settings that is not defined."""
    known = frozenset(defined)
    missing = next((setting for setting in wanted if setting not in known), None)
    near = "" if missing is None else did_you_mean(missing, sorted(known))
    return NotFound(f"{fact}{near}; the catalog lists those that are defined")


class Query:
    """All questions about one ledger. Safe to use from many threads; closes nothing.

    `large_values` False: the answer may hold a `LargeValue` in the place of a large value, for a caller that reads the
    values of a part of it by `self.large_values`.
    """

    def __init__(self, ledger: Ledger, *, memory_max: int = MEMORY_MAX) -> None:
        self.ledger = ledger
        self.store = open_timelines(ledger)
        self.timeline_cache = TimelineCache(ledger, self.store, memory_max)
        self.large_values = self.timeline_cache.large_values

    def context(self) -> ReadContext:
        """The ledger's head, for the next question."""
        return self.timeline_cache.now()

    def _must_exist(self, subject: str, context: ReadContext) -> None:
        if not context.snapshot.subject(subject).timelines and not context.snapshot.assertions(subject):
            raise NotFound(NO_HISTORY)

    def state(
        self,
        subject: str,
        *,
        at: int,
        known_at: KnownAt = None,
        settings: Sequence[str] | None = None,
        large_values: bool = True,
    ) -> StateAnswer:
        """Every setting of the subject's kind at (at, known_at), or only `settings`. Raises `NotFound`.

        The demand that a kind be known is a setting of no subject: the answer holds it only if `settings` names it.
        """
        context = self.context()
        self._must_exist(subject, context)
        view = AsOfView(context, at, known_at)
        defined = view.settings(CATALOG_SUBJECT)
        if settings is not None and not set(settings) <= set(defined):
            raise _not_defined("a setting is not defined", settings, defined)
        names = sorted(set(defined) - {MUST_BE_KNOWN}) if settings is None else settings
        read = view.setting if large_values else view.setting_in_timeline
        states = [read(subject, setting) for setting in names]
        applicable = {state.setting: state for state in states if state.source in ("explicit", "default")}
        instant = context.instant(at, known_at)
        following = {
            key: state
            for key in view.scheduled(subject, applicable)
            if (state := next_state(subject, key, *view.known_timelines(subject, key), at)) is not None
        }
        version = self.ledger.recorder.version_at(subject, context.position)
        if large_values:
            following = {key: state._replace(state=view.whole(state.state)) for key, state in following.items()}
        notice = context.clock_notice(at, instant)
        return StateAnswer(subject, at, instant, context.position, version, applicable, following, notice)

    def timeline(
        self, subject: str, *, setting: str | None = None, known_at: KnownAt = None, large_values: bool = True
    ) -> TimelineAnswer:
        """Intervals over valid time of one setting, or of each setting that the subject ever had. Raises `NotFound`."""
        context = self.context()
        self._must_exist(subject, context)
        view = AsOfView(context, BEGINNING, known_at)
        if isinstance(known_at, int) and view.known_at == IN_FORCE:
            # BEGINNING stands for all of valid time here, so a known_at that equals it does not mean in force.
            view.known_at = known_at
        keys = sorted(view.settings(subject)) if setting is None else [setting]
        require_turn(sum(len(view.timeline(subject, key).starts) for key in keys))
        all_intervals = [
            interval
            for key in keys
            for interval in intervals(subject, key, view.timeline(subject, key), view.timeline(CATALOG_SUBJECT, key))
        ]
        if setting is not None and all(
            interval.source in ("undefined", "not_applicable") for interval in all_intervals
        ):
            raise _not_defined("the subject has no such setting", [setting], view.settings(CATALOG_SUBJECT))
        if large_values:
            read = context.snapshot.large_values.value
            all_intervals = [interval._replace(value=read(interval.value)) for interval in all_intervals]
        instant = None if known_at == IN_FORCE else context.instant(BEGINNING, known_at)
        notices = context.clock_notices
        # In force, a timeline spans all of time, every stretch included.
        notice = context.clock_notice(instant) if instant is not None else notices[-1] if notices else None
        return TimelineAnswer(subject, instant, context.position, tuple(all_intervals), notice)

    def diff(
        self, subject: str, *, start: int, end: int, known_at: KnownAt = None, large_values: bool = True
    ) -> DiffAnswer:
        """The settings whose value differs between instants `start` and `end`. Raises `NotFound`."""
        context = self.context()
        self._must_exist(subject, context)
        before, after = AsOfView(context, start, known_at), AsOfView(context, end, known_at)
        differences = []
        for setting in sorted({*before.settings(CATALOG_SUBJECT), *after.settings(CATALOG_SUBJECT)}):
            states = (before.setting(subject, setting), after.setting(subject, setting))
            applies = any(state.source in ("explicit", "default") for state in states)
            if applies and states[0].value != states[1].value:
                if not large_values:
                    states = (
                        before.setting_in_timeline(subject, setting),
                        after.setting_in_timeline(subject, setting),
                    )
                earlier, later = states if start <= end else states[::-1]
                # A view whose known_at is its own instant answers in force, so take the other one.
                own = (after if known_at == start else before).timeline(subject, setting)
                within = min(start, end), max(start, end)
                changed_by = causes.changes_between(context, earlier, later, within, own, known_at)
                differences.append(SettingDifference(*states, changed_by))
        instant = None if known_at == IN_FORCE else context.instant(start, known_at)
        instants = (start, end) if instant is None else (start, end, instant)
        return DiffAnswer(instant, context.position, tuple(differences), context.clock_notice(*instants))

    def catalog(self, *, at: int, known_at: KnownAt = None) -> CatalogAnswer:
        """The settings that are defined at (at, known_at)."""
        context = self.context()
        view = AsOfView(context, at, known_at)
        changes = {key: view.change(CATALOG_SUBJECT, key) for key in sorted(view.settings(CATALOG_SUBJECT))}
        definitions = {key: change for key, change in changes.items() if change is not None}
        instant = context.instant(at, known_at)
        return CatalogAnswer(instant, context.position, definitions, context.clock_notice(at, instant))

    def subjects(
        self, kind: str | None = None, prefix: str | None = None, after: str | None = None, limit: int | None = None
    ) -> tuple[int, list[SubjectRow]]:
        """(position, subjects that have a history in byte order); `prefix` is of the whole reference."""
        return listing.subjects(self.context(), self.store, kind, prefix, after, limit)

    def snapshot(self, *, at: int, known_at: KnownAt = None, kind: str | None = None) -> SnapshotAnswer:
        """Every subject's own changes (of `kind`) at (at, known_at): the whole ledger at one instant."""
        for _attempt in range(ATTEMPTS_MAX):
            context = self.context()
            cheapest = context.cheapest(at, known_at)
            if isinstance(cheapest, int):
                changes = self._changes_as_known(context, at, cheapest, kind)
            else:
                axis: Axis = "in_force" if cheapest == IN_FORCE else "current"
                stored = listing.changes_at(context, self.store, axis, at, kind)
                if stored is None:
                    # The stored timelines have moved on: ask again at the new head.
                    continue
                changes = stored
            notice = context.clock_notice(at, context.instant(at, known_at))
            whole = context.snapshot.large_values.change
            return SnapshotAnswer(
                context.position,
                tuple(row._replace(change=whole(row.change)) for row in changes if row.change.value is not None),
                notice,
            )
        raise LedgerUnavailable("the ledger kept moving under the question; ask again")

    def _changes_as_known(self, context: ReadContext, at: int, known_at: int, kind: str | None) -> list[SubjectChange]:
        view = AsOfView(context, at, known_at)
        rows = listing.subjects(context, self.store, kind)[1]
        pairs = sorted((row.subject, setting) for row in rows for setting in view.settings(row.subject))
        changes = ((subject, setting, view.change(subject, setting)) for subject, setting in pairs)
        return [SubjectChange(subject, setting, change) for subject, setting, change in changes if change is not None]

    def check(
        self, record: RequestRecord, known_at: KnownAt = IN_FORCE, context: ReadContext | None = None
    ) -> Decision:
        """The decision on one request record (projections/README.md, "Decision rules")."""
        return next(decide((record,), known_at, context or self.context()))

    def check_all(
        self, records: Iterable[RequestRecord], known_at: KnownAt = IN_FORCE, context: ReadContext | None = None
    ) -> list[Decision]:
        """The decisions in order, all pinned to one position: that of `context`, by default the ledger's head."""
        return list(decide(records, known_at, context or self.context()))

    def context_nowait(self) -> ReadContext | None:
        """`context` without waiting for anything; None if that is not possible."""
        return self.timeline_cache.nowait()


class PinnedQuery(Query):
    """The questions of `query`, all as of the ledger's position now. For one thread."""

    def __init__(self, query: Query) -> None:
        self.ledger = query.ledger
        self.store = query.store
        self.timeline_cache = query.timeline_cache
        self.large_values = query.large_values
        self._context = query.context()
        entry = self.ledger.recorder.entry(self._context.position)
        leaf_hash = entry.leaf_hash.hex() if entry is not None else None
        self.pinned = Pin(self.ledger.origin, self._context.position, self._context.snapshot.recorded_at, leaf_hash)

    def context(self) -> ReadContext:
        return self._context

    def context_nowait(self) -> ReadContext:
        return self._context
