"""One moment of the ledger seen at one (at, known_at): the effective states that `check` and the questions ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ledger.subjects import CATALOG_SUBJECT
from ledger.times import BEGINNING, END
from projections.query.snapshots import IN_FORCE, KnownAt, ReadContext
from projections.query.subject_cache import CachedSubject, History
from projections.temporal.changes import Change, Retraction
from projections.temporal.effective_state import SettingState, effective
from projections.temporal.effective_timeline import EFFECTIVE_STEPS_MAX, NOTHING, effective_timeline, point
from projections.temporal.fold import Timeline, retraction_of_decided

_EMPTY: Final = Timeline()


class View:
    """Answers as `projections.temporal.effective_state.States`. `known_at` is the cheapest with the same answers (see
    `ReadContext`).

    In force and with everything known, whatever was asked so far is answered the same all over [`start`, `until`) (µs).
    """

    def __init__(self, moment: ReadContext, at: int, known_at: KnownAt) -> None:
        self.moment = moment
        self.at = at
        self.known_at: KnownAt = moment.cheapest(at, known_at)
        self.start = BEGINNING
        self.until = END
        self._kept: dict[str, CachedSubject] = {}
        self._settled = True
        """Whether every state that was read from a course is the same with what is known now."""
        self._asked: dict[tuple[str, str], Change | None] = {}
        """Every step that was looked up besides, and what was found."""

    @property
    def subjects(self) -> tuple[str, ...]:
        """All that was looked at, in force or with everything known; but the catalog, which always is."""
        return tuple(subject for subject in self._kept if subject != CATALOG_SUBJECT)

    def setting(self, subject: str, setting: str) -> SettingState:
        if self.known_at != IN_FORCE:
            return effective(subject, setting, self.own(subject, setting), self.own(CATALOG_SUBJECT, setting))
        kept = self._of(subject)
        found = kept.effective_timelines.get(setting)
        if found is None:
            own = kept.history.get(setting, NOTHING)
            definition = self._of(CATALOG_SUBJECT).history.get(setting, NOTHING)
            if len(own.in_force.starts) > EFFECTIVE_STEPS_MAX:
                for timeline in (*own, *definition):
                    self._narrow(timeline)
                return self._noted(*point(subject, setting, own, definition, self.at))
            found = kept.effective_timelines[setting] = effective_timeline(subject, setting, own, definition)
        step = found.step(self.at)
        self._stay(found.starts[step], found.starts[step + 1] if step + 1 < len(found.starts) else END)
        return self._noted(found.states[step], found.settled[step])

    def _noted(self, state: SettingState, settled: bool) -> SettingState:
        self._settled = self._settled and settled
        return state

    def _stay(self, start: int, until: int) -> None:
        self.start = max(self.start, start)
        self.until = min(self.until, until)

    def _narrow(self, timeline: Timeline) -> Change | None:
        step = timeline.step(self.at)
        self._stay(step.start, step.until)
        return step.change

    def definition(self, setting: str) -> Mapping[str, Any] | None:
        change = self.own(CATALOG_SUBJECT, setting)
        return change.value if change is not None and isinstance(change.value, dict) else None

    def taken_back(self, subject: str, setting: str, after: int) -> Retraction | None:
        snapshot = self.moment.snapshot
        if not any(said.position > after and said.setting == setting for said in snapshot.retractions(subject)):
            return None
        known_at = self.at if self.known_at == IN_FORCE else self.known_at
        known = snapshot.assertions(subject, known_at if isinstance(known_at, int) else None)
        return retraction_of_decided(known, setting, self.at, after)

    def own(self, subject: str, setting: str) -> Change | None:
        """The step of the subject's own timeline."""
        asked = (subject, setting)
        if asked in self._asked:
            return self._asked[asked]
        change = self._narrow(self.timeline(subject, setting))
        self._asked[asked] = change
        return change

    def timeline(self, subject: str, setting: str) -> Timeline:
        if isinstance(self.known_at, int):
            return self._fold(subject).get(setting, _EMPTY)
        both = self.history(subject).get(setting, NOTHING)
        return both.in_force if self.known_at == IN_FORCE else both.current

    def settings(self, subject: str) -> Iterable[str]:
        """The settings that anything was ever said about, of this subject."""
        return self._fold(subject) if isinstance(self.known_at, int) else self.history(subject)

    def history(self, subject: str) -> History:
        """The subject's timelines, in force and as known at this moment; empty where nothing was said."""
        return self._of(subject).history

    def agrees_with_hindsight(self) -> bool:
        """Whether every step looked up so far is the one that is known now, too.

        `check` asks for nothing that does not follow from the answers before, so it would then come to the same.
        """
        if not self._settled:
            return False
        later = self.later()
        for (subject, setting), change in self._asked.items():
            now = later.own(subject, setting)
            self.join(later)
            if now is not change and (now is None or change is None or now.position != change.position):
                return False
        return True

    def join(self, other: View) -> None:
        """From here on what was asked of both views counts for `start`, `until` and `subjects`."""
        self._stay(other.start, other.until)
        self._kept |= other._kept

    def later(self) -> View:
        """The same instant with everything known."""
        later = View(self.moment, self.at, None)
        later._kept = dict(self._kept)
        return later

    def _of(self, subject: str) -> CachedSubject:
        kept = self._kept.get(subject)
        if kept is None:
            kept = self._kept[subject] = self.moment.snapshot.kept(subject)
        return kept

    def _fold(self, subject: str) -> Mapping[str, Timeline]:
        assert isinstance(self.known_at, int)
        return self.moment.folded(subject, self.known_at)
