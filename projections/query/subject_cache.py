"""Subjects' timelines in memory, and the courses made of them: the least lately used go when there is too much.

What a subject takes is estimated by its steps, so that one with a hundred thousand changes counts for what it is.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final

from projections.temporal.changes import Assertion
from projections.temporal.effective_timeline import EffectiveTimeline
from projections.temporal.fold import Timeline
from projections.temporal.in_force import Timelines, extend, fold_both, nothing

History = Mapping[str, Timelines]
"""Setting → timelines of one subject."""

_BYTES: Final = 1_500
_COURSES_BYTES: Final = {"account": 4_500, "org": 4_000, "model": 2_500}
_SETTING_BYTES: Final = 1_200
_STEP_BYTES: Final = 600
"""Measured: projections/README.md."""


class CachedSubject:
    """A subject's timelines, which are never altered, and setting → course, as far as made: for readers to add to."""

    __slots__ = ("bytes", "effective_timelines", "history")

    def __init__(self, subject: str, history: History) -> None:
        self.history = history
        self.effective_timelines: dict[str, EffectiveTimeline] = {}
        steps = sum(len(both.in_force.starts) + len(both.current.starts) for both in history.values()) // 2
        effective_timelines = _COURSES_BYTES.get(subject.partition(":")[0], 800)
        self.bytes = _BYTES + effective_timelines + _SETTING_BYTES * len(history) + _STEP_BYTES * steps


class SubjectCache:
    """At most about `bytes_max`, but always the subject put in last. Safe to use from many threads."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._kept: OrderedDict[str, CachedSubject] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, subject: str) -> bool:
        return subject in self._kept

    def get(self, subject: str) -> CachedSubject | None:
        with self._lock:
            kept = self._kept.get(subject)
            if kept is not None:
                self._kept.move_to_end(subject)
            return kept

    def put(self, subject: str, kept: CachedSubject) -> None:
        with self._lock:
            self._take_out(subject)
            self._kept[subject] = kept
            self._bytes += self._charge(kept)
            while self._bytes > self._bytes_max and len(self._kept) > 1:
                self._take_out(next(iter(self._kept)))

    def drop(self, subject: str) -> None:
        with self._lock:
            self._take_out(subject)

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def forget_effective_timelines(self) -> None:
        """Replaced, not emptied: a reader at an older position may still be adding to them."""
        with self._lock:
            for subject, kept in self._kept.items():
                self._kept[subject] = CachedSubject(subject, kept.history)

    def _take_out(self, subject: str) -> None:
        kept = self._kept.pop(subject, None)
        if kept is not None:
            self._bytes -= self._charge(kept)

    def _charge(self, kept: CachedSubject) -> int:
        # A subject too large for what there is does not drive out all the others each time.
        return min(kept.bytes, self._bytes_max // 2)


def folded(subject: str, assertions: Iterable[Assertion]) -> CachedSubject:
    """The subject's timelines, made of all that was said about it in position order: the same as stored ones."""
    said = fold_both(assertions)
    # As in the stored ones, a setting of which everything was taken back before it held has no timeline.
    return CachedSubject(subject, {setting: both for setting, both in said.items() if any(map(_has_step, both))})


def _has_step(timeline: Timeline) -> bool:
    return any(change is not None for change in timeline.changes)


def extended(history: History, news: list[Assertion]) -> History:
    """Others may be reading `history`: what changes is copied."""
    extended = dict(history)
    for setting in {said.setting for said in news}:
        both = history.get(setting) or nothing()
        current = both.current.copy()
        # Where the two are one, they stay one until they part.
        copied = Timelines(current, current if both.in_force is both.current else both.in_force.copy())
        extended[setting] = extend(copied, [], [said for said in news if said.setting == setting])
    return extended
