"""The ledger as of one (at, known_at): the effective states that the decision rules and the questions read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ledger.subjects import CATALOG_SUBJECT
from ledger.times import BEGINNING, END
from projections.decisions.directory import Directory
from projections.query.snapshots import IN_FORCE, KnownAt, ReadContext
from projections.query.subject_cache import CachedSubject, SubjectTimelines
from projections.temporal.changes import Assertion, Change, LargeValue, Retraction, same_change
from projections.temporal.effective_state import SettingState, effective
from projections.temporal.effective_timeline import (
    EFFECTIVE_STEPS_MAX,
    NO_TIMELINES,
    effective_at,
    effective_timeline,
)
from projections.temporal.fold import Timeline, deciding_retraction, fold

_EMPTY: Final = Timeline()


class AsOfView:
    """Implements `projections.decisions.states.States`.

    `known_at` is the cheapest one with the same answers (see `ReadContext.cheapest`). In force, and with everything
    known, everything read so far stays the same all over [`start`, `until`) (µs).
    """

    def __init__(self, context: ReadContext, at: int, known_at: KnownAt) -> None:
        self.context = context
        self.at = at
        self.known_at: KnownAt = context.cheapest(at, known_at)
        self.start = BEGINNING
        self.until = END
        self._subjects: dict[str, CachedSubject] = {}
        self._same_in_hindsight = True
        """Of every state that was read from an effective timeline."""
        self._changes: dict[tuple[str, str], Change | None] = {}
        """Every step that was read from another timeline."""
        self._directory: Directory | None = None

    @property
    def subjects(self) -> tuple[str, ...]:
        """All subjects that were read in force or with everything known, without the catalog, which always is."""
        return tuple(subject for subject in self._subjects if subject != CATALOG_SUBJECT)

    def setting(self, subject: str, setting: str) -> SettingState:
        state = self.setting_in_timeline(subject, setting)
        return self.whole(state) if isinstance(state.value, LargeValue) else state

    def whole(self, state: SettingState) -> SettingState:
        """The state with its value, if that is large."""
        return self.context.snapshot.large_values.state(state)

    def setting_in_timeline(self, subject: str, setting: str) -> SettingState:
        """`setting`, in which a large value may be a `LargeValue`."""
        if self.known_at != IN_FORCE:
            return effective(subject, setting, self.change(subject, setting), self.change(CATALOG_SUBJECT, setting))
        cached = self._subject(subject)
        timeline = cached.effective_timelines.get(setting)
        if timeline is None:
            changes = cached.timelines.get(setting, NO_TIMELINES)
            definitions = self._subject(CATALOG_SUBJECT).timelines.get(setting, NO_TIMELINES)
            if len(changes.in_force.starts) > EFFECTIVE_STEPS_MAX:
                for each in (*changes, *definitions):
                    self._narrow_to_step(each)
                state, same = effective_at(subject, setting, changes, definitions, self.at)
                self._same_in_hindsight = self._same_in_hindsight and same
                return state
            timeline = cached.effective_timelines[setting] = effective_timeline(subject, setting, changes, definitions)
        step = timeline.step(self.at)
        self._narrow(timeline.starts[step], timeline.starts[step + 1] if step + 1 < len(timeline.starts) else END)
        self._same_in_hindsight = self._same_in_hindsight and timeline.same_in_hindsight[step]
        return timeline.states[step]

    def known(self, subject: str) -> bool:
        first = self._first_recorded(subject)
        if self.known_at == IN_FORCE and first is not None:
            if first <= self.at:
                self._narrow(first, END)
            else:
                self._narrow(BEGINNING, first)
        known = first is not None and (self.known_at is None or first <= self._known_by())
        if not known and first is not None:
            self._same_in_hindsight = False
        return known

    def _first_recorded(self, subject: str) -> int | None:
        """When (µs) an event of the subject was first recorded; None: there is none up to the position.

        A subject with a setting in force is known since then at the latest, which needs no look at its events.
        """
        if self.known_at == IN_FORCE:
            since = self._subject(subject).in_force_since
            if since <= self.at:
                return since
        return self.context.snapshot.first_recorded_at(subject)

    def _known_by(self) -> int:
        return self.known_at if isinstance(self.known_at, int) else self.at

    def directory(self) -> Directory:
        if self._directory is None:
            if isinstance(self.known_at, int):
                self._directory = self.context.directory_as_known(self.known_at).at(self.at)
            else:
                span = self.context.snapshot.directory().span(self.at)
                self._narrow(span.start, span.until)
                self._directory = span.in_force if self.known_at == IN_FORCE else span.later
        return self._directory

    def definition(self, setting: str) -> Mapping[str, Any] | None:
        # The catalog has no setting of its own, so the event behind its state is the definition.
        definition = self.setting(CATALOG_SUBJECT, setting).change
        return definition.value if definition is not None and isinstance(definition.value, dict) else None

    def retraction_since(self, subject: str, setting: str, after: int) -> Retraction | None:
        retractions = self.context.snapshot.retractions(subject)
        if not any(retraction.position > after and retraction.setting == setting for retraction in retractions):
            return None
        return deciding_retraction(self.assertions(subject), setting, self.at, after)

    def assertions(self, subject: str) -> list[Assertion]:
        """All that is known about the subject, in position order."""
        known_at = self.at if self.known_at == IN_FORCE else self.known_at
        return self.context.snapshot.assertions(subject, known_at if isinstance(known_at, int) else None)

    def change(self, subject: str, setting: str) -> Change | None:
        """The step of the subject's own timeline, without the catalog's default."""
        key = (subject, setting)
        if key not in self._changes:
            self._changes[key] = self._narrow_to_step(self.timeline(subject, setting))
        return self._changes[key]

    def timeline(self, subject: str, setting: str) -> Timeline:
        if isinstance(self.known_at, int):
            return self._folded(subject).get(setting, _EMPTY)
        both = self.timelines(subject).get(setting, NO_TIMELINES)
        return both.in_force if self.known_at == IN_FORCE else both.current

    def known_timelines(self, subject: str, setting: str) -> tuple[Timeline, Timeline]:
        """The setting's timelines, of the subject and of the catalog, as known at one instant: in force too, where a
        stored timeline also holds what became known later."""
        if self.known_at != IN_FORCE:
            return self.timeline(subject, setting), self.timeline(CATALOG_SUBJECT, setting)
        snapshot = self.context.snapshot
        if snapshot.recorded_at is None or self.at >= snapshot.recorded_at:
            return (
                self.timelines(subject).get(setting, NO_TIMELINES).current,
                self.timelines(CATALOG_SUBJECT).get(setting, NO_TIMELINES).current,
            )
        return self._known_then(subject, setting), self._known_then(CATALOG_SUBJECT, setting)

    def _known_then(self, subject: str, setting: str) -> Timeline:
        assertions = self.context.snapshot.all_assertions(subject)
        known = (one for one in assertions if one.setting == setting and one.recorded_at <= self.at)
        return fold(known).get(setting, _EMPTY)

    def scheduled(self, subject: str, settings: Iterable[str]) -> list[str]:
        """The settings that may change after `at`, by what is known: the others need no look ahead.

        An in-force question about the past reads the events for it, because what was known then is not stored.
        """
        snapshot = self.context.snapshot
        if self.known_at != IN_FORCE or snapshot.recorded_at is None or self.at >= snapshot.recorded_at:
            return list(settings)
        at = self.at
        ahead = {
            one.setting
            for whose in (subject, CATALOG_SUBJECT)
            for one in snapshot.scheduled_changes(whose)
            if one.recorded_at <= at
            and (one.effective_from > at or (one.effective_until is not None and one.effective_until > at))
        }
        return [setting for setting in settings if setting in ahead]

    def settings(self, subject: str) -> Iterable[str]:
        """The settings of which the subject ever had a change."""
        return self._folded(subject) if isinstance(self.known_at, int) else self.timelines(subject)

    def timelines(self, subject: str) -> SubjectTimelines:
        """The subject's timelines, in force and with everything known; empty if it has no change."""
        return self._subject(subject).timelines

    def agrees_with_hindsight(self) -> bool:
        """Whether everything known now gives the same event for every step read so far.

        `check` reads only what follows from what it read before, so it then gives the same decision.
        """
        if not self._same_in_hindsight:
            return False
        if not self._changes and self._directory is None:
            return True
        hindsight = self.in_hindsight()
        if self._directory is not None and self._directory.positions() != hindsight.directory().positions():
            return False
        for (subject, setting), change in self._changes.items():
            same = same_change(change, hindsight.change(subject, setting))
            self.include(hindsight)
            if not same:
                return False
        return True

    def in_hindsight(self) -> AsOfView:
        """The same instant with everything known."""
        hindsight = AsOfView(self.context, self.at, None)
        hindsight._subjects = dict(self._subjects)
        return hindsight

    def include(self, other: AsOfView) -> None:
        """Makes `start`, `until` and `subjects` count everything that `other` read, too."""
        self._narrow(other.start, other.until)
        self._subjects |= other._subjects

    def _narrow(self, start: int, until: int) -> None:
        if start > self.start:  # noqa: PLR1730 - at every setting that a decision reads, quicker than `max` and `min`
            self.start = start
        if until < self.until:  # noqa: PLR1730
            self.until = until

    def _narrow_to_step(self, timeline: Timeline) -> Change | None:
        step = timeline.step(self.at)
        self._narrow(step.start, step.until)
        return step.change

    def _subject(self, subject: str) -> CachedSubject:
        cached = self._subjects.get(subject)
        if cached is None:
            cached = self._subjects[subject] = self.context.snapshot.subject(subject)
        return cached

    def _folded(self, subject: str) -> Mapping[str, Timeline]:
        assert isinstance(self.known_at, int)
        return self.context.folded(subject, self.known_at)
