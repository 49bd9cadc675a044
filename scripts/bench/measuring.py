"""Cases measured in turns, so that what is compared meets the same machine.

Wall and processor time per unit; the first turn of everything warms up and is not counted. Medians with their spread,
because a mean hides the turn in which the machine did something else.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter, process_time
from typing import Any, NamedTuple

from scripts.bench.reporting import Column, Table, number


def _nothing() -> None:
    return None


class Case(NamedTuple):
    """`run` does the work once on what `prepare` made, which is not measured, and says how many units that was.

    baseline: the name of the case that this one is compared with; None: it is one.
    """

    name: str
    baseline: str | None
    run: Callable[[Any], int]
    prepare: Callable[[], Any] = _nothing


class Spread(NamedTuple):
    """µs per unit."""

    median: float
    min: float
    max: float


class Measured(NamedTuple):
    """`speed`, `cpu_speed`: the baseline's median time over this one's, so 1 is as fast and 0.5 half as fast.

    `cpu_us`: of this process, so without a database server's.
    """

    case: str
    baseline: str | None
    units: int
    wall_us: Spread
    cpu_us: Spread
    per_second: float
    speed: float | None
    cpu_speed: float | None


def measure(cases: Sequence[Case], repetitions: int, told: Callable[[int], None] | None = None) -> list[Measured]:
    """`told` is told the turns that are done, of `repetitions` + 1."""
    turns: dict[str, list[tuple[int, float, float]]] = {case.name: [] for case in cases}
    for turn in range(repetitions + 1):
        # To and fro, so that none always runs in the wake of the same other.
        for case in cases if turn % 2 == 0 else reversed(cases):
            taken = _timed(case)
            if turn > 0:
                turns[case.name].append(taken)
        if told is not None:
            told(turn + 1)
    wall = {name: spread([1e6 * wall / units for units, wall, _ in taken]) for name, taken in turns.items()}
    cpu = {name: spread([1e6 * cpu / units for units, _, cpu in taken]) for name, taken in turns.items()}
    return [
        Measured(
            case=case.name,
            baseline=case.baseline,
            units=turns[case.name][0][0],
            wall_us=wall[case.name],
            cpu_us=cpu[case.name],
            per_second=round(1e6 / wall[case.name].median, 1),
            speed=_speed(wall, case),
            cpu_speed=_speed(cpu, case),
        )
        for case in cases
    ]


def _timed(case: Case) -> tuple[int, float, float]:
    prepared = case.prepare()
    gc.collect()
    wall, cpu = perf_counter(), process_time()
    units = case.run(prepared)
    return units, perf_counter() - wall, process_time() - cpu


def spread(values: Sequence[float]) -> Spread:
    return Spread(*(round(value, 4) for value in (median(values), min(values), max(values))))


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest rank: the smallest value that at least `percent` of all values do not exceed."""
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]


def _speed(times: dict[str, Spread], case: Case) -> float | None:
    if case.baseline is None:
        return None
    # A clock of the processor that did not tick says nothing.
    ours = times[case.name].median
    return round(times[case.baseline].median / ours, 4) if ours else None


def by_case(measured: Sequence[Measured]) -> dict[str, Measured]:
    return {one.case: one for one in measured}


def table(title: str, unit: str, measured: Sequence[Measured]) -> Table:
    """One table: cases and their baselines."""
    return Table(
        title,
        (
            Column("case", f"µs per {unit}"),
            Column("wall_us", "median", lambda wall: number(wall["median"])),
            Column("wall_us", "least–most", lambda wall: f"{number(wall['min'])}–{number(wall['max'])}"),
            Column("cpu_us", "CPU", lambda cpu: number(cpu["median"])),
            Column("per_second", "a second", number),
            Column("speed", "speed", lambda speed: "baseline" if speed is None else number(speed)),
            Column("cpu_speed", "by CPU", lambda speed: "" if speed is None else number(speed)),
        ),
        [one._asdict() | {"wall_us": one.wall_us._asdict(), "cpu_us": one.cpu_us._asdict()} for one in measured],
    )
