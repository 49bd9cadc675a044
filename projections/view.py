"""One moment of the ledger seen at one (at, known_at): the effective states that `check` and the questions ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ledger.subjects import CATALOG_SUBJECT
from projections.changes import Change, Retraction
from projections.courses import COURSE_STEPS_MAX, NOTHING, Course, course, point
from projections.fold import Timeline, fold, retraction_of_decided
from projections.moments import IN_FORCE, History, KnownAt, Moment
from projections.state import SettingState, effective

_EMPTY: Final = Timeline()


class View:
    """Answers as `projections.state.States`. `known_at` is the cheapest with the same answers (see `Moment`)."""

    def __init__(self, moment: Moment, at: int, known_at: KnownAt) -> None:
        self.moment = moment
        self.at = at
        self.known_at: KnownAt = moment.cheapest(at, known_at)
        self._histories: dict[str, History] = {}
        self._folded: dict[str, Mapping[str, Timeline]] = {}
        self._courses: dict[str, dict[str, Course]] = {}
        self._settled = True
        """Whether every state that was read from a course is the same with what is known now."""
        self._asked: dict[tuple[str, str], Change | None] = {}
        """Every step that was looked up besides, and what was found."""

    def setting(self, subject: str, setting: str) -> SettingState:
        if self.known_at != IN_FORCE:
            return effective(subject, setting, self.own(subject, setting), self.own(CATALOG_SUBJECT, setting))
        courses = self._courses.get(subject)
        if courses is None:
            courses = self._courses[subject] = self.moment.courses(subject)
        found = courses.get(setting)
        if found is None:
            own = self._history(subject).get(setting, NOTHING)
            definition = self._history(CATALOG_SUBJECT).get(setting, NOTHING)
            if len(own.in_force.starts) > COURSE_STEPS_MAX:
                return self._noted(*point(subject, setting, own, definition, self.at))
            found = courses[setting] = course(subject, setting, own, definition)
        return self._noted(*found.at(self.at))

    def _noted(self, state: SettingState, settled: bool) -> SettingState:
        self._settled = self._settled and settled
        return state

    def definition(self, setting: str) -> Mapping[str, Any] | None:
        change = self.own(CATALOG_SUBJECT, setting)
        return change.value if change is not None and isinstance(change.value, dict) else None

    def taken_back(self, subject: str, setting: str, after: int) -> Retraction | None:
        if not any(said.position > after and said.setting == setting for said in self.moment.retractions(subject)):
            return None
        known_at = self.at if self.known_at == IN_FORCE else self.known_at
        known = self.moment.assertions(subject, known_at if isinstance(known_at, int) else None)
        return retraction_of_decided(known, setting, self.at, after)

    def own(self, subject: str, setting: str) -> Change | None:
        """The step of the subject's own timeline."""
        asked = (subject, setting)
        if asked in self._asked:
            return self._asked[asked]
        change = self.timeline(subject, setting).at(self.at)
        self._asked[asked] = change
        return change

    def timeline(self, subject: str, setting: str) -> Timeline:
        if isinstance(self.known_at, int):
            return self._fold(subject).get(setting, _EMPTY)
        both = self._history(subject).get(setting, NOTHING)
        return both.in_force if self.known_at == IN_FORCE else both.current

    def settings(self, subject: str) -> Iterable[str]:
        """The settings that anything was ever said about, of this subject."""
        return self._fold(subject) if isinstance(self.known_at, int) else self._history(subject)

    def agrees_with_hindsight(self) -> bool:
        """Whether every step looked up so far is the one that is known now, too.

        `check` asks for nothing that does not follow from the answers before, so it would then come to the same.
        """
        if not self._settled:
            return False
        later = View(self.moment, self.at, None)
        later._histories = self._histories
        for (subject, setting), change in self._asked.items():
            now = later.timeline(subject, setting).at(self.at)
            if now is not change and (now is None or change is None or now.position != change.position):
                return False
        return True

    def _history(self, subject: str) -> History:
        history = self._histories.get(subject)
        if history is None:
            history = self._histories[subject] = self.moment.history(subject)
        return history

    def _fold(self, subject: str) -> Mapping[str, Timeline]:
        folded = self._folded.get(subject)
        if folded is None:
            assert isinstance(self.known_at, int)
            folded = self._folded[subject] = fold(self.moment.assertions(subject, self.known_at))
        return folded
