"""The in-force timeline: the diagonal known_at = at (DESIGN.md section 3).

What anyone could have known and enforced at each moment: at instant t it is the timeline that was known at t, read
at t. Between two submissions nothing becomes known, so it is put together from pieces: from each submission's
recorded_at on, it is the timeline as known from then. Proved by tests/test_fold.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from projections.temporal.changes import Assertion, Change
from projections.temporal.fold import Timeline


class Timelines(NamedTuple):
    """One setting of one subject, both ways: as now known, and as in force. Extended by `extend`.

    The two may be one object: as long as nothing was ever said about a time before its recording, they are the same.
    """

    current: Timeline
    in_force: Timeline


def extend(timelines: Timelines, known: list[Change], news: Iterable[Assertion]) -> Timelines:
    """The timelines after `news`, which are of one setting and in position order. Changes those given.

    `known`: the unretracted changes so far, in position order; it is brought up to date in place. It is only read
    where something is retracted, because then the timeline is folded again.
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
                    # From its recording on in force is what is known, and before it neither changes.
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


def goes_on_from(said: Assertion) -> int | None:
    """The instant (µs) from which on both timelines are this change, if neither has a step there or later: nothing else
    of them changes, as long as the two are one. None: there is more to it, see `extend`."""
    if isinstance(said, Change) and said.effective_until is None and said.effective_from >= said.recorded_at:
        return said.effective_from
    return None


def fold_changes(changes: Iterable[Change]) -> Timeline:
    timeline = Timeline()
    for change in changes:
        timeline.apply(change)
    return timeline


def fold_both(assertions: Iterable[Assertion]) -> dict[str, Timelines]:
    """Setting → both timelines of one subject, from all its changes and retractions in position order."""
    by_setting: dict[str, list[Assertion]] = {}
    for assertion in assertions:
        of_setting = by_setting.get(assertion.setting)
        if of_setting is None:
            by_setting[assertion.setting] = [assertion]
        else:
            of_setting.append(assertion)
    return {setting: extend(nothing(), [], of_setting) for setting, of_setting in by_setting.items()}


def nothing() -> Timelines:
    """What is known of a setting before the first word about it; to be extended."""
    timeline = Timeline()
    return Timelines(timeline, timeline)
