"""Runs cases in alternation, so that each case and its baseline meet the same machine, and times them.

The first turn warms up and is not counted. Figures are medians with their spread, because a mean hides a turn in which
the machine did something else. Proved by tests/bench/test_measure.py.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter, process_time
from typing import Any, NamedTuple, TypeVar

from scripts.bench.report import Column, Table, number, ratio
from scripts.cli.files import progress

Name = TypeVar("Name")
Outcome = TypeVar("Outcome")


class Case(NamedTuple):
    """`run` does the work once on the value of `prepare`, which is not timed, and returns the number of units.

    `baseline` names the case to compare with. None: this case is a baseline.
    """

    name: str
    baseline: str | None
    run: Callable[[Any], int]
    prepare: Callable[[], Any] = lambda: None


class Spread(NamedTuple):
    """µs per unit."""

    median: float
    min: float
    max: float


class Measurement(NamedTuple):
    """`speed` and `cpu_speed` divide the baseline's median time by this case's: 1 is as fast, 0.5 half as fast.

    `cpu_us` counts this process only, without a database server.
    """

    case: str
    baseline: str | None
    units: int
    wall_us: Spread
    cpu_us: Spread
    per_second: float
    speed: float | None
    cpu_speed: float | None


def take_turns(title: str, cases: dict[Name, Callable[[int], Outcome]], turns: int) -> dict[Name, list[Outcome]]:
    """Runs every case `turns` times, after one turn that is not counted. A case gets the number of its turn, from 0."""
    outcomes: dict[Name, list[Outcome]] = {name: [] for name in cases}
    with progress(title, turns + 1) as tell:
        for turn in range(turns + 1):
            # Every second turn runs backwards, so that no case always follows the same other case.
            for name in cases if turn % 2 == 0 else reversed(cases):
                outcome = cases[name](turn)
                if turn > 0:
                    outcomes[name].append(outcome)
            tell(turn + 1, "")
    return outcomes


def measure(title: str, cases: Sequence[Case], turns: int) -> list[Measurement]:
    """Wall and processor time of each case per unit."""

    def timed(case: Case) -> Callable[[int], tuple[int, float, float]]:
        return lambda _turn: _timed(case)

    times = take_turns(title, {case.name: timed(case) for case in cases}, turns)
    wall = {name: _spread([1e6 * wall / units for units, wall, _ in each]) for name, each in times.items()}
    cpu = {name: _spread([1e6 * cpu / units for units, _, cpu in each]) for name, each in times.items()}
    return [
        Measurement(
            case=case.name,
            baseline=case.baseline,
            units=times[case.name][0][0],
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


def _spread(values: Sequence[float]) -> Spread:
    return Spread(*(round(value, 4) for value in (median(values), min(values), max(values))))


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest rank: the smallest value that at least `percent` of all values do not exceed."""
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]


def _speed(times: dict[str, Spread], case: Case) -> float | None:
    """None where the clock of the processor did not tick."""
    ours = times[case.name].median
    return None if case.baseline is None or not ours else round(times[case.baseline].median / ours, 4)


def by_case(measurements: Sequence[Measurement]) -> dict[str, Measurement]:
    return {measurement.case: measurement for measurement in measurements}


def case_table(title: str, unit: str, measurements: Sequence[Measurement]) -> Table:
    """One table of cases and their baselines."""
    columns = (
        Column("case", f"µs per {unit}"),
        Column("wall_us", "median", lambda wall: number(wall["median"])),
        Column("wall_us", "least–most", lambda wall: f"{number(wall['min'])}–{number(wall['max'])}"),
        Column("cpu_us", "CPU", lambda cpu: number(cpu["median"])),
        Column("per_second", "a second", number),
        Column("speed", "speed", ratio),
        Column("cpu_speed", "by CPU", number),
    )
    rows = [
        {**each._asdict(), "wall_us": each.wall_us._asdict(), "cpu_us": each.cpu_us._asdict()} for each in measurements
    ]
    return Table(title, columns, rows)
