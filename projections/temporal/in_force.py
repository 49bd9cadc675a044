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


def extend(timelines: Timelines, known: list[Change], news: Iterable[Assertion]) -> Timelines:
    """The timelines after `news`, which are of one setting and in position order. Alters the timelines given.

    `known`: the unretracted changes so far, in position order, updated in place. It is read only if `news` holds a
    retraction, because that folds the timeline again.
    """
    current, in_force = timelines
    pending: int | None = None
    for assertion in news:
        recorded_at = assertion.recorded_at
        if pending is not None and recorded_at != pending:
            in_force.splice(pending, current)
            pending = None
        if isinstance(assertion, Change):
            known.append(assertion)
            if in_force is current:
                if assertion.effective_from >= recorded_at:
                    # Before its recording neither timeline changes, and from there on both are what is known.
                    current.apply(assertion)
                    continue
                in_force = current.copy()
            current.apply(assertion)
        else:
            known[:] = [change for change in known if change.event_id != assertion.retracts]
            current = fold_changes(known)
        pending = recorded_at
    if pending is not None:
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
    return {setting: extend(empty_timelines(), [], news) for setting, news in by_setting.items()}
