"""The in-force timeline: the diagonal known_at = at (DESIGN.md section 3).

What anyone could have known and enforced at each moment: at instant t it is the timeline that was known at t, read
at t. Between two submissions nothing becomes known, so it is put together from pieces: from each submission's
recorded_at on, it is the timeline as known from then. Proved by tests/test_fold.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from projections.changes import Assertion, Change, Retraction
from projections.fold import Timeline


class Timelines(NamedTuple):
    """One setting of one subject, both ways: as now known, and as in force. Extended by `extend`."""

    current: Timeline
    in_force: Timeline


def extend(timelines: Timelines, known: list[Change], news: Iterable[Assertion]) -> Timelines:
    """The timelines after `news`, which are of one setting and in position order.

    `known`: the unretracted changes so far, in position order; it is brought up to date in place. It is only read
    where something is retracted, because then the timeline is folded again.
    """
    current, in_force = timelines
    pending: int | None = None
    for assertion in news:
        if pending is not None and assertion.recorded_at != pending:
            in_force.splice(pending, current)
        pending = assertion.recorded_at
        if isinstance(assertion, Retraction):
            known[:] = [change for change in known if change.event_id != assertion.retracts]
            current = Timeline()
            for change in known:
                current.apply(change)
        else:
            known.append(assertion)
            current.apply(assertion)
    if pending is not None:
        in_force.splice(pending, current)
    return Timelines(current, in_force)


def fold_both(assertions: Iterable[Assertion]) -> dict[str, Timelines]:
    """Setting → both timelines of one subject, from all its changes and retractions in position order."""
    by_setting: dict[str, list[Assertion]] = {}
    for assertion in assertions:
        by_setting.setdefault(assertion.setting, []).append(assertion)
    return {
        setting: extend(Timelines(Timeline(), Timeline()), [], of_setting) for setting, of_setting in by_setting.items()
    }
