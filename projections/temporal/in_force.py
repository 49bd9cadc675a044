"""The in-force timeline: the diagonal known_at = at (projections/README.md, "Time model").

It says what anyone could have known and enforced at each moment: at instant t it is the timeline that was known at t,
read at t. Knowledge changes only with a submission, so the diagonal is put together from pieces: from each
submission's recorded_at on, it is the timeline as known from then. Proved by tests/temporal/test_fold.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from projections.temporal.changes import Assertion, Change
from projections.temporal.fold import Timeline, fold_changes
from projections.temporal.known_changes import KnownChanges


class Timelines(NamedTuple):
    """One setting of one subject, both ways: as now known, and as in force. Extended by `extend`.

    The two are one object until a change is backdated: up to then they are equal.
    """

    current: Timeline
    in_force: Timeline


def empty_timelines() -> Timelines:
    """The timelines of a setting before its first change; to be extended."""
    timeline = Timeline()
    return Timelines(timeline, timeline)


def extend(timelines: Timelines, known: KnownChanges, news: Iterable[Assertion]) -> Timelines:
    """The timelines after `news`, which are of one setting and in position order. Alters the timelines given.

    `known`: the changes before them, to which the news are added. Raises `HistoryMissing` if they are needed and not at
    hand; the timelines may be half altered then.
    """
    current, in_force = timelines
    remember = known.add
    pending: int | None = None
    # A retraction was met, and `current` is not folded yet: several of one submission are one fold.
    stale = False
    for assertion in news:
        recorded_at = assertion.recorded_at
        if pending is not None and recorded_at != pending:
            if stale:
                current, stale = fold_changes(known.in_order()), False
            in_force.splice(pending, current)
            pending = None
        if not isinstance(assertion, Change):
            stale = True
        elif not stale:
            # Before its recording such a change alters neither timeline, and from there on both are what is known.
            alike = in_force is current and assertion.effective_from >= recorded_at
            if not alike and in_force is current:
                in_force = current.copy()
            if not current.apply(assertion):
                current.restart(assertion, known.beginning_after(assertion.effective_from))
            if alike:
                remember(assertion)
                continue
        remember(assertion)
        pending = recorded_at
    if pending is not None:
        if stale:
            current = fold_changes(known.in_order())
        in_force.splice(pending, current)
    return Timelines(current, in_force)


def appends_from(assertion: Assertion) -> int | None:
    """The instant (µs) from which both timelines hold this change, if all it does is to append one step.

    That is so as long as the two timelines are one object without a step there or later. None: call `extend`.
    """
    if not isinstance(assertion, Change) or assertion.effective_until is not None:
        return None
    return assertion.effective_from if assertion.effective_from >= assertion.recorded_at else None


def fold_both(assertions: Iterable[Assertion]) -> dict[str, Timelines]:
    """Setting → both timelines of one subject, from all its changes and retractions in position order."""
    by_setting: dict[str, list[Assertion]] = {}
    for assertion in assertions:
        by_setting.setdefault(assertion.setting, []).append(assertion)
    return {setting: extend(empty_timelines(), KnownChanges(()), news) for setting, news in by_setting.items()}
