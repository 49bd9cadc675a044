"""Subjects' timelines in memory, with the effective timelines made of them: the least recently used go first.

A subject's size is estimated from its steps, so that one with a hundred thousand changes counts for what it takes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final

from ledger.times import END
from projections.temporal.changes import Assertion, value_bytes
from projections.temporal.effective_timeline import EffectiveTimeline
from projections.temporal.fold import Timeline
from projections.temporal.in_force import Timelines, empty_timelines, extend, fold_both
from projections.temporal.known_changes import KnownChanges

SubjectTimelines = Mapping[str, Timelines]
"""Setting → timelines of one subject."""

_BYTES: Final = 1_500
_EFFECTIVE_BYTES: Final = {"account": 4_500, "org": 4_000, "model": 2_500}
_SETTING_BYTES: Final = 1_200
_STEP_BYTES: Final = 600
"""Measured: projections/DECISIONS.md."""


class CachedSubject:
    """A subject's timelines, which are never altered, and its effective timelines, which readers add as they need."""

    __slots__ = ("bytes", "effective_timelines", "in_force_since", "timelines")

    def __init__(self, subject: str, timelines: SubjectTimelines) -> None:
        self.timelines = timelines
        self.effective_timelines: dict[str, EffectiveTimeline] = {}
        self.in_force_since = min((_since(both.in_force) for both in timelines.values()), default=END)
        """When (µs) the first of its settings came into force, or END."""
        steps = sum(len(both.in_force.starts) + len(both.current.starts) for both in timelines.values()) // 2
        effective_bytes = _EFFECTIVE_BYTES.get(subject.partition(":")[0], 800)
        sizes = _SETTING_BYTES * len(timelines) + _STEP_BYTES * steps + sum(map(_value_bytes, timelines.values()))
        self.bytes = _BYTES + effective_bytes + sizes


def _value_bytes(both: Timelines) -> int:
    """Of the values of a setting's steps, beyond what a step is charged."""
    changes = both.current.changes
    if both.in_force is not both.current:
        changes = list({id(change): change for change in (*changes, *both.in_force.changes)}.values())
    return sum(value_bytes(change.value) for change in changes if change is not None)


def _since(timeline: Timeline) -> int:
    steps = zip(timeline.starts, timeline.changes, strict=True)
    return next((start for start, change in steps if change is not None), END)


class SubjectCache:
    """At most about `bytes_max`: a subject that is larger by itself is not kept. Safe to use from many threads."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self.hits = self.misses = 0
        """Of `get`, since the start."""
        self._subjects: OrderedDict[str, CachedSubject] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._subjects)

    def get(self, subject: str) -> CachedSubject | None:
        with self._lock:
            cached = self._subjects.get(subject)
            if cached is None:
                self.misses += 1
            else:
                self.hits += 1
                self._subjects.move_to_end(subject)
            return cached

    def put(self, subject: str, cached: CachedSubject) -> None:
        with self._lock:
            self._remove(subject)
            if cached.bytes > self._bytes_max:
                return
            self._subjects[subject] = cached
            self._bytes += cached.bytes
            while self._bytes > self._bytes_max:
                self._remove(next(iter(self._subjects)))

    def drop(self, subject: str) -> None:
        with self._lock:
            self._remove(subject)

    def clear(self) -> None:
        with self._lock:
            self._subjects.clear()
            self._bytes = 0

    def forget_effective_timelines(self) -> None:
        """Replaces the entries instead of emptying them: a reader at an older position may still be adding to one."""
        with self._lock:
            for subject, cached in self._subjects.items():
                self._subjects[subject] = CachedSubject(subject, cached.timelines)

    def _remove(self, subject: str) -> None:
        cached = self._subjects.pop(subject, None)
        if cached is not None:
            self._bytes -= cached.bytes


def fold_subject(subject: str, assertions: Iterable[Assertion]) -> CachedSubject:
    """The subject's timelines, folded from all its changes and retractions in position order: as they are stored."""
    folded = fold_both(assertions)
    # A setting whose changes were all retracted before they held has no stored timeline.
    empty = empty_timelines()
    return CachedSubject(subject, {setting: both for setting, both in folded.items() if both != empty})


def extended(timelines: SubjectTimelines, news: list[Assertion]) -> SubjectTimelines:
    """The timelines after `news`. Copies what changes, because other threads may be reading `timelines`.

    Raises `HistoryMissing` if they cannot be told without the changes before: the cache holds only what is seen.
    """
    extended = dict(timelines)
    for setting in {assertion.setting for assertion in news}:
        both = timelines.get(setting) or empty_timelines()
        current = both.current.copy()
        # One object stays one object.
        copied = Timelines(current, current if both.in_force is both.current else both.in_force.copy())
        extended[setting] = extend(copied, KnownChanges(None), [one for one in news if one.setting == setting])
    return extended
