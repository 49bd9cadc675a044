"""Plots as plain SVG. Colours are classes, which the style sheet gives values on screen, in the dark and on paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final, NamedTuple

from projections.audit.report.page.markup import Markup, join, tag

WIDTH: Final = 960
HEIGHT: Final = 220
_LEFT: Final = 56
_TOP: Final = 14
_BOTTOM: Final = 28
BARS_MAX: Final = 130
"""More days than this are drawn by weeks, more weeks by months, and more months by years."""
_EPOCH: Final = date(1970, 1, 1)


class Bin(NamedTuple):
    """A bar: its name, and what it counts, from the bottom up. Days counted from 1970-01-01 UTC: start <= day < end."""

    name: str
    start: int
    end: int
    counts: tuple[int, ...]


class Binned(NamedTuple):
    """unit: day, week, month or year."""

    unit: str
    bins: tuple[Bin, ...]


def binned(days: Sequence[tuple[int, Sequence[int]]], width: int) -> Binned:
    """`days` in order, with `width` counts each, over gapless bins of equal names' units. Not for an empty log."""
    first, last = days[0][0], days[-1][0]
    span = last - first + 1
    unit = (
        "day" if span <= BARS_MAX else "week" if span <= 7 * BARS_MAX else "month" if span <= 30 * BARS_MAX else "year"
    )
    starts = _starts(unit, first, last)
    sums = [[0] * width for _ in starts]
    place = 0
    for day, counts in days:
        while place + 1 < len(starts) and starts[place + 1] <= day:
            place += 1
        for thing, count in enumerate(counts):
            sums[place][thing] += count
    ends = [*starts[1:], last + 1]
    bins = (
        Bin(_name(unit, start), start, end, tuple(counts))
        for start, end, counts in zip(starts, ends, sums, strict=True)
    )
    return Binned(unit, tuple(bins))


def _starts(unit: str, first: int, last: int) -> list[int]:
    if unit in ("day", "week"):
        step = 1 if unit == "day" else 7
        # Weeks begin on Mondays; 1970-01-01 was a Thursday.
        return list(range(first if step == 1 else first - (first + 3) % 7, last + 1, step))
    at = _date(first).replace(day=1) if unit == "month" else _date(first).replace(month=1, day=1)
    starts = []
    while at <= _date(last):
        starts.append((at - _EPOCH).days)
        year, month = (at.year, at.month + 1) if unit == "month" and at.month < 12 else (at.year + 1, 1)
        if year > date.max.year:
            break
        at = date(year, month, 1)
    return starts


def _date(day: int) -> date:
    return _EPOCH + timedelta(days=day)


def _name(unit: str, start: int) -> str:
    written = _date(start).isoformat()
    return {"day": written, "week": written, "month": written[:7], "year": written[:4]}[unit]


def columns(plotted: Binned, classes: Sequence[str], names: Sequence[str], label: str) -> Markup:
    """A column for each bin, its counts stacked in the order of `classes`."""
    bins = plotted.bins
    top = max((sum(one.counts) for one in bins), default=0)
    step = _step(top)
    ceiling = max(step * math.ceil(top / step), step)
    inner = HEIGHT - _TOP - _BOTTOM
    slot = (WIDTH - _LEFT) / max(len(bins), 1)
    gap = min(slot * 0.2, 4)
    drawn: list[Markup] = []
    for value in range(0, ceiling + 1, step):
        y = _TOP + inner * (1 - value / ceiling)
        drawn.append(tag("line", x1=_LEFT, x2=WIDTH, y1=_n(y), y2=_n(y), class_="grid" if value else "axis"))
        drawn.append(tag("text", f"{value:,}", x=_LEFT - 8, y=_n(y + 4), text_anchor="end"))
    for place, one in enumerate(bins):
        x, y = _LEFT + place * slot + gap / 2, float(_TOP + inner)
        said = ", ".join(f"{n:,} {name}" for name, n in zip(names, one.counts, strict=True) if n)
        bars = [tag("title", f"{one.name}: {said}")] if said else []
        for class_, count in zip(classes, one.counts, strict=True):
            height = inner * count / ceiling
            if count:
                # Thinner than this nobody sees that there is one.
                height = max(height, 1.5)
                y -= height
                bars.append(tag("rect", x=_n(x), y=_n(y), width=_n(slot - gap), height=_n(height), class_=class_))
        if bars:
            drawn.append(tag("g", *bars))
    drawn += _dates(bins, slot)
    box = f"0 0 {WIDTH} {HEIGHT}"
    return tag("svg", *drawn, viewBox=box, role="img", aria_label=label, class_="plot")


def _dates(bins: Sequence[Bin], slot: float) -> list[Markup]:
    every = max(1, math.ceil(96 / slot))
    found = []
    for place in range(0, len(bins), every):
        x = _LEFT + place * slot + slot / 2
        if x + 36 > WIDTH and place:
            continue
        found.append(tag("text", bins[place].name, x=_n(x), y=HEIGHT - 8, text_anchor="middle"))
    return found


def _step(top: int) -> int:
    """Between the lines of a grid of about four, a round number."""
    raw = max(top / 4, 1)
    unit = 10 ** math.floor(math.log10(raw))
    return int(next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw))


def share(parts: Sequence[tuple[str, int]], label: str) -> Markup:
    """One bar over the full width, cut in proportion: (class, count)."""
    total = sum(count for _, count in parts) or 1
    x, drawn = 0.0, []
    for class_, count in parts:
        if count:
            width = max(1000 * count / total, 2)
            drawn.append(tag("rect", x=_n(x), y=0, width=_n(width), height=16, class_=class_))
            x += width
    # The least parts are drawn wider than they are, so the whole may be a little longer.
    box = f"0 0 {_n(max(x, 1000))} 16"
    return tag("svg", *drawn, viewBox=box, preserveAspectRatio="none", role="img", aria_label=label, class_="share")


def bar(counts: Sequence[tuple[str, int]], longest: int) -> Markup:
    """A bar in a table, beside the numbers that say the same: for eyes only."""
    x, drawn = 0.0, []
    for class_, count in counts:
        if count:
            width = max(100 * count / max(longest, 1), 0.6)
            drawn.append(tag("rect", x=_n(x), y=0, width=_n(width), height=10, class_=class_))
            x += width
    box = "0 0 102 10"
    return tag("svg", join(*drawn), viewBox=box, preserveAspectRatio="none", aria_hidden="true", class_="bar")


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
