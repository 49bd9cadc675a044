"""The geometry of the page's plots: bins, scales and rectangles. The templates in `templates/plots/` draw them as SVG.

Proved by tests/audit/report/test_page.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final, NamedTuple

from projections.audit.report.formats import EPOCH, day_text

WIDTH: Final = 960
HEIGHT: Final = 220
LEFT: Final = 56
"""The space for the numbers beside the grid."""
_TOP: Final = 14
_BASE: Final = HEIGHT - 28
_GRID_HEIGHT: Final = _BASE - _TOP
_HEIGHT_MIN: Final = 1.5
"""A flatter rectangle is invisible."""
_LABEL_WIDTH: Final = 96
BARS_MAX: Final = 130
"""A chart of more days has a bar for each week; of more weeks, for each month; of more months, for each year."""


class TimeBin(NamedTuple):
    """The counts of the days in [start, end), one count a verdict. Days count from 1970-01-01 UTC."""

    name: str
    start: int
    end: int
    counts: tuple[int, ...]


class Segment(NamedTuple):
    """A rectangle: a stretch of the length of a bar, or of the height of a column."""

    verdict: str
    requests: int
    start: float
    length: float


class StackedBar(NamedTuple):
    """A horizontal bar with its segments from left to right."""

    segments: tuple[Segment, ...]
    length: float


class ChartColumn(NamedTuple):
    """The column of a bin at `x`, with its segments from bottom to top. y grows downwards."""

    name: str
    x: float
    segments: tuple[Segment, ...]


class ColumnChart(NamedTuple):
    """first, last, highest: bins. grid: (value, y) of its lines. labels: (text, x) below the columns. columns: of the
    bins that have counts."""

    unit: str
    first: TimeBin
    last: TimeBin
    highest: TimeBin
    verdicts: tuple[str, ...]
    grid: tuple[tuple[int, float], ...]
    labels: tuple[tuple[str, float], ...]
    columns: tuple[ChartColumn, ...]
    column_width: float
    left: int = LEFT
    width: int = WIDTH
    height: int = HEIGHT


def stacked_bar(counts: Sequence[tuple[str, int]], whole: int, length: int = 100, least: float = 0.6) -> StackedBar:
    """A bar of (verdict, requests), on which `whole` has `length`. Segments shorter than `least` become that long, so
    the bar can become a little longer."""
    end, segments = 0.0, []
    for verdict, requests in counts:
        if requests:
            segments.append(Segment(verdict, requests, end, max(length * requests / max(whole, 1), least)))
            end += segments[-1].length
    return StackedBar(tuple(segments), end)


def column_chart(days: Sequence[tuple[int, Sequence[int]]], verdicts: Sequence[str]) -> ColumnChart:
    """(day, counts by verdict) in the order of days, at least one."""
    unit, bins = time_bins(days)
    highest = max(bins, key=lambda one: sum(one.counts))
    step = _step(sum(highest.counts))
    ceiling = max(step * math.ceil(sum(highest.counts) / step), step)
    slot = (WIDTH - LEFT) / len(bins)
    gap = min(slot * 0.2, 4)
    columns = (
        ChartColumn(one.name, LEFT + index * slot + gap / 2, _segments(verdicts, one.counts, ceiling))
        for index, one in enumerate(bins)
    )
    return ColumnChart(
        unit=unit,
        first=bins[0],
        last=bins[-1],
        highest=highest,
        verdicts=tuple(verdicts),
        grid=tuple((value, _TOP + _GRID_HEIGHT * (1 - value / ceiling)) for value in range(0, ceiling + 1, step)),
        labels=_labels(bins, slot),
        columns=tuple(column for column in columns if column.segments),
        column_width=slot - gap,
    )


def time_bins(days: Sequence[tuple[int, Sequence[int]]]) -> tuple[str, tuple[TimeBin, ...]]:
    """(day, counts) in the order of days, at least one, summed in bins without gaps. First their unit: day, week, month
    or year."""
    first, last = days[0][0], days[-1][0]
    units = (("day", BARS_MAX), ("week", 7 * BARS_MAX), ("month", 30 * BARS_MAX))
    unit = next((unit for unit, days_max in units if last - first < days_max), "year")
    starts = _starts(unit, first, last)
    ends = [*starts[1:], last + 1]
    sums = [[0] * len(days[0][1]) for _ in starts]
    index = 0
    for day, counts in days:
        while ends[index] <= day:
            index += 1
        sums[index] = [total + count for total, count in zip(sums[index], counts, strict=True)]
    bins = zip(starts, ends, sums, strict=True)
    return unit, tuple(TimeBin(_name(unit, start), start, end, tuple(counts)) for start, end, counts in bins)


def _starts(unit: str, first: int, last: int) -> list[int]:
    if unit == "day":
        return list(range(first, last + 1))
    if unit == "week":
        # Weeks begin on Mondays; 1970-01-01 was a Thursday.
        return list(range(first - (first + 3) % 7, last + 1, 7))
    begin, end = EPOCH + timedelta(days=first), EPOCH + timedelta(days=last)
    months = range(1, 13) if unit == "month" else (1,)
    firsts = (date(year, month, 1) for year in range(begin.year, end.year + 1) for month in months)
    return [(one - EPOCH).days for one in firsts if begin.replace(day=1) <= one <= end or unit == "year"]


def _name(unit: str, start: int) -> str:
    return day_text(start)[: {"month": 7, "year": 4}.get(unit)]


def _segments(verdicts: Sequence[str], counts: Sequence[int], ceiling: int) -> tuple[Segment, ...]:
    y = float(_BASE)
    segments = []
    for verdict, requests in zip(verdicts, counts, strict=True):
        if requests:
            height = max(_GRID_HEIGHT * requests / ceiling, _HEIGHT_MIN)
            y -= height
            segments.append(Segment(verdict, requests, y, height))
    return tuple(segments)


def _labels(bins: Sequence[TimeBin], slot: float) -> tuple[tuple[str, float], ...]:
    every = max(1, math.ceil(_LABEL_WIDTH / slot))
    labels = [(bins[index].name, LEFT + index * slot + slot / 2) for index in range(0, len(bins), every)]
    # The right edge would cut a label that begins too late.
    return tuple(label for label in labels if label is labels[0] or label[1] + 36 <= WIDTH)


def _step(top: int) -> int:
    """The distance of about four grid lines up to `top`, a round number."""
    raw = max(top / 4, 1)
    unit = 10 ** math.floor(math.log10(raw))
    return int(next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw))
