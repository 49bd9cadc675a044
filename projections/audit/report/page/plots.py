"""The geometry of the page's plots: bins, scales and rectangles. The templates in `templates/plots/` draw them as SVG.

Proved by tests/audit/report/test_page.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final, Literal, NamedTuple

from projections.audit.report.formats import EPOCH, day_text

WIDTH: Final = 960
HEIGHT: Final = 220
LEFT: Final = 56
"""The space for the numbers beside the grid."""
_TOP: Final = 14
_BOTTOM: Final = 28
_BASE: Final = HEIGHT - _BOTTOM
_GRID_HEIGHT: Final = _BASE - _TOP
_HEIGHT_MIN: Final = 1.5
"""A flatter rectangle is invisible."""
_LABEL_WIDTH: Final = 96
BARS_MAX: Final = 130
"""A chart of more days has a bar for each week; of more weeks, for each month; of more months, for each year."""

Unit = Literal["day", "week", "month", "year"]


class TimeBin(NamedTuple):
    """The counts of the days in [start, end), one count a verdict. Days count from 1970-01-01 UTC."""

    name: str
    start: int
    end: int
    counts: tuple[int, ...]


class Segment(NamedTuple):
    """A rectangle of a horizontal bar."""

    verdict: str
    x: float
    width: float


class StackedBar(NamedTuple):
    """A horizontal bar with its segments from left to right. width: where the last one ends."""

    segments: tuple[Segment, ...]
    width: float


class GridLine(NamedTuple):
    value: int
    y: float


class Block(NamedTuple):
    """A rectangle of a column."""

    verdict: str
    requests: int
    y: float
    height: float


class ChartColumn(NamedTuple):
    """A column with its blocks from bottom to top."""

    name: str
    x: float
    blocks: tuple[Block, ...]


class TimeLabel(NamedTuple):
    text: str
    x: float


class ColumnChart(NamedTuple):
    """A column for each bin that has counts. first, last: the names of the outer bins; most: the greatest total of a
    column, in the bin named `busiest`."""

    unit: Unit
    first: str
    last: str
    busiest: str
    most: int
    verdicts: tuple[str, ...]
    column_width: float
    grid: tuple[GridLine, ...]
    columns: tuple[ChartColumn, ...]
    labels: tuple[TimeLabel, ...]
    left: int = LEFT
    width: int = WIDTH
    height: int = HEIGHT


def stacked_bar(counts: Sequence[tuple[str, int]], whole: int, length: int, least: float) -> StackedBar:
    """A bar of (verdict, count), on which `whole` has `length`. Segments narrower than `least` become that wide, so
    the bar can become a little longer."""
    x, segments = 0.0, []
    for verdict, count in counts:
        if count:
            width = max(length * count / max(whole, 1), least)
            segments.append(Segment(verdict, x, width))
            x += width
    return StackedBar(tuple(segments), x)


def column_chart(days: Sequence[tuple[int, Sequence[int]]], verdicts: Sequence[str]) -> ColumnChart:
    """(day, counts by verdict) in the order of days, at least one."""
    unit, bins = time_bins(days)
    most = max(bins, key=lambda one: sum(one.counts))
    step = _step(sum(most.counts))
    ceiling = max(step * math.ceil(sum(most.counts) / step), step)
    slot = (WIDTH - LEFT) / len(bins)
    gap = min(slot * 0.2, 4)
    columns = (
        ChartColumn(one.name, LEFT + index * slot + gap / 2, _blocks(verdicts, one.counts, ceiling))
        for index, one in enumerate(bins)
    )
    return ColumnChart(
        unit=unit,
        first=bins[0].name,
        last=bins[-1].name,
        busiest=most.name,
        most=sum(most.counts),
        verdicts=tuple(verdicts),
        column_width=slot - gap,
        grid=tuple(
            GridLine(value, _TOP + _GRID_HEIGHT * (1 - value / ceiling)) for value in range(0, ceiling + 1, step)
        ),
        columns=tuple(column for column in columns if column.blocks),
        labels=_labels(bins, slot),
    )


def time_bins(days: Sequence[tuple[int, Sequence[int]]]) -> tuple[Unit, tuple[TimeBin, ...]]:
    """(day, counts) in the order of days, at least one, summed in bins of one unit without gaps."""
    first, last = days[0][0], days[-1][0]
    unit = _unit(last - first + 1)
    starts = _starts(unit, first, last)
    ends = [*starts[1:], last + 1]
    sums = [[0] * len(days[0][1]) for _ in starts]
    index = 0
    for day, counts in days:
        while ends[index] <= day:
            index += 1
        for place, count in enumerate(counts):
            sums[index][place] += count
    bins = zip(starts, ends, sums, strict=True)
    return unit, tuple(TimeBin(_name(unit, start), start, end, tuple(counts)) for start, end, counts in bins)


def _unit(days: int) -> Unit:
    if days <= BARS_MAX:
        return "day"
    if days <= 7 * BARS_MAX:
        return "week"
    return "month" if days <= 30 * BARS_MAX else "year"


def _starts(unit: Unit, first: int, last: int) -> list[int]:
    if unit == "day":
        return list(range(first, last + 1))
    if unit == "week":
        # Weeks begin on Mondays; 1970-01-01 was a Thursday.
        return list(range(first - (first + 3) % 7, last + 1, 7))
    at, end = _date(first).replace(day=1), _date(last)
    if unit == "year":
        at = at.replace(month=1)
    starts = []
    while at <= end:
        starts.append((at - EPOCH).days)
        year, month = (at.year, at.month + 1) if unit == "month" and at.month < 12 else (at.year + 1, 1)
        if year > date.max.year:
            break
        at = date(year, month, 1)
    return starts


def _date(day: int) -> date:
    return EPOCH + timedelta(days=day)


def _name(unit: Unit, start: int) -> str:
    text = day_text(start)
    return {"day": text, "week": text, "month": text[:7], "year": text[:4]}[unit]


def _blocks(verdicts: Sequence[str], counts: Sequence[int], ceiling: int) -> tuple[Block, ...]:
    y = float(_BASE)
    blocks = []
    for verdict, count in zip(verdicts, counts, strict=True):
        if count:
            height = max(_GRID_HEIGHT * count / ceiling, _HEIGHT_MIN)
            y -= height
            blocks.append(Block(verdict, count, y, height))
    return tuple(blocks)


def _labels(bins: Sequence[TimeBin], slot: float) -> tuple[TimeLabel, ...]:
    every = max(1, math.ceil(_LABEL_WIDTH / slot))
    labels = (TimeLabel(bins[index].name, LEFT + index * slot + slot / 2) for index in range(0, len(bins), every))
    # The right edge would cut a label that begins too late.
    return tuple(label for index, label in enumerate(labels) if not index or label.x + 36 <= WIDTH)


def _step(top: int) -> int:
    """The distance of grid lines, so that a round number apart about four of them reach `top`."""
    raw = max(top / 4, 1)
    unit = 10 ** math.floor(math.log10(raw))
    return int(next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw))
