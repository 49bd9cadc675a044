"""Measurements beside a baseline: in one process, one after the other in turns, so that both meet the same machine.

Wall and processor time per unit; the first turn of everything warms up and is not counted. Medians with their spread,
because a mean hides the turn in which the machine did something else.
"""

from __future__ import annotations

import gc
import os
import platform
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any, Final, NamedTuple

from scripts.bench.scratch import Scratch
from scripts.output import Columns, print_line, print_table

PACKAGES: Final = ("inforce", "eventsourcing", "pydantic", "msgspec", "psycopg")


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
    """`ratio`: median wall time over the baseline's; `cpu_us`: of this process, so without a database server's."""

    case: str
    baseline: str | None
    units: int
    wall_us: Spread
    cpu_us: Spread
    per_second: float
    ratio: float | None


class Bench(NamedTuple):
    """`cases(databases, stack, quick)`: what it opens is closed by `stack`; `quick` means little work."""

    name: str
    about: str
    unit: str
    cases: Callable[[Scratch, ExitStack, bool], list[Case]]


class Report(NamedTuple):
    bench: Bench
    database: str
    repetitions: int
    measured: list[Measured]


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
    wall = {name: median(wall / units for units, wall, _ in taken) for name, taken in turns.items()}
    return [
        Measured(
            case=case.name,
            baseline=case.baseline,
            units=turns[case.name][0][0],
            wall_us=_spread([wall / units for units, wall, _ in turns[case.name]]),
            cpu_us=_spread([cpu / units for units, _, cpu in turns[case.name]]),
            per_second=round(1 / wall[case.name], 1),
            ratio=None if case.baseline is None else round(wall[case.name] / wall[case.baseline], 3),
        )
        for case in cases
    ]


def _timed(case: Case) -> tuple[int, float, float]:
    prepared = case.prepare()
    gc.collect()
    wall, cpu = perf_counter(), process_time()
    units = case.run(prepared)
    return units, perf_counter() - wall, process_time() - cpu


def _spread(seconds: list[float]) -> Spread:
    return Spread(*(round(1e6 * s, 3) for s in (median(seconds), min(seconds), max(seconds))))


def _short(us: float) -> str:
    return f"{us:,.2f}" if us < 100 else f"{us:,.0f}"


def machine() -> dict[str, Any]:
    return {
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def document(report: Report) -> dict[str, Any]:
    measured = [
        one._asdict() | {"wall_us": one.wall_us._asdict(), "cpu_us": one.cpu_us._asdict()} for one in report.measured
    ]
    return {
        "bench": report.bench.name,
        "about": report.bench.about,
        "unit": report.bench.unit,
        "database": report.database,
        "machine": machine(),
        "versions": versions(),
        "repetitions": report.repetitions,
        "warm_up": 1,
        "measured": measured,
    }


def show(report: Report) -> None:
    here = machine()
    unit = report.bench.unit
    print_line(f"bench {report.bench.name}: {report.bench.about}", "bold")
    print_line(f"{report.database}; {report.repetitions} turns of each, in turns, after one to warm up")
    print_line(f"{here['cpu']}, {here['cores']} cores, load {(here['load'] or ['?'])[0]}")
    print_line(", ".join(f"{name} {number}" for name, number in versions().items()))
    print_line()
    columns: Columns = {
        f"µs per {unit}": lambda one: one.case,
        "median": lambda one: f"{_short(one.wall_us.median):>7}",
        "least–most": lambda one: f"{_short(one.wall_us.min)}–{_short(one.wall_us.max)}",
        "CPU": lambda one: f"{_short(one.cpu_us.median):>7}",
        "a second": lambda one: f"{one.per_second:>9,.0f}",
        "ratio": lambda one: "baseline" if one.ratio is None else f"{one.ratio:>8,.2f}",
    }
    names = [one.case for one in report.measured if one.baseline is None]
    for name in names:
        print_table(columns, [one for one in report.measured if name in (one.case, one.baseline)])
        print_line()
    print_line("ratio: median wall time over that of the baseline of the same table")
