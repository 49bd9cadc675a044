"""The result of a suite, for people and for programs: tables, marks, and the machine of the run."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NamedTuple

from scripts.bench.marks import JudgedMark
from scripts.cli.output import Columns, print_line, print_table

_PACKAGES: Final = (
    *("inforce", "eventsourcing", "msgspec", "granian", "fastapi", "starlette", "psycopg"),
    *("cedarpy", "casbin", "UnleashClient", "openfeature-sdk"),
)


def number(figure: float | None) -> str:
    """Three significant digits, or all digits from a thousand on."""
    if figure is None:
        return ""
    if figure >= 1000:
        return f"{figure:,.0f}"
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.1f}" if figure >= 10 else f"{figure:.2f}"


def ratio(figure: float | None) -> str:
    """None: the row is what others are compared with."""
    return "baseline" if figure is None else number(figure)


def count(value: int) -> str:
    return f"{value:,}"


class Column(NamedTuple):
    """`text` turns the row's value of `key` into text."""

    key: str
    heading: str
    text: Callable[[Any], str] = str

    def cell(self, row: dict[str, Any]) -> str:
        return self.text(row[self.key])


class Table(NamedTuple):
    title: str
    columns: tuple[Column, ...]
    rows: Sequence[dict[str, Any]]


class SuiteResult(NamedTuple):
    """`notes` explain the figures, a sentence each."""

    tables: Sequence[Table]
    judged: Sequence[JudgedMark]
    notes: Sequence[str] = ()


class SuiteReport(NamedTuple):
    suite: str
    about: str
    database: str
    turns: int
    quick: bool
    result: SuiteResult


def _machine() -> dict[str, Any]:
    return {
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()}",
    }


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def document(report: SuiteReport) -> dict[str, Any]:
    """The report as `--format json` prints it."""
    return {
        "suite": report.suite,
        "about": report.about,
        "database": report.database,
        "machine": _machine(),
        "versions": _versions(),
        "turns": report.turns,
        "quick": report.quick,
        "tables": [{"title": table.title, "rows": list(table.rows)} for table in report.result.tables],
        "marks": [judged.document() for judged in report.result.judged],
        "notes": list(report.result.notes),
    }


_MARK_COLUMNS: Final[Columns] = {
    "mark": lambda judged: judged.mark.about,
    "target": lambda judged: f"{judged.mark.bound} {judged.mark.limit:g} {judged.mark.unit}".rstrip(),
    "measured": lambda judged: f"{number(judged.figure)} {judged.mark.unit}".rstrip(),
    "met": lambda judged: {True: "yes", False: "NO", None: "?"}[judged.met],
}


def show(report: SuiteReport) -> None:
    """Prints the report for people."""
    machine = _machine()
    print_line(f"bench {report.suite}: {report.about}", "bold")
    print_line(f"{report.database}; {report.turns} turns of each case, in alternation, after one turn to warm up")
    print_line(f"{machine['cpu']}, {machine['cores']} cores, load {(machine['load'] or ['?'])[0]}")
    print_line(", ".join(f"{package} {release}" for package, release in _versions().items()))
    for table in report.result.tables:
        print_line()
        _show_table(table)
    if report.result.judged:
        print_line()
        print_table(_MARK_COLUMNS, report.result.judged)
    print_line()
    for judged in report.result.judged:
        if judged.note:
            print_line(f"{judged.mark.about}: {judged.note}")
    for note in report.result.notes:
        print_line(note)
    if report.quick:
        print_line("--quick: these figures mean little")


def _show_table(table: Table) -> None:
    first, *figures = table.columns
    columns: Columns = {first.heading: first.cell, **{column.heading: _aligned(column, table) for column in figures}}
    print_table(columns, table.rows, table.title)


def _aligned(column: Column, table: Table) -> Callable[[Any], str]:
    """Pads figures on the left, so that their last digits stand below each other."""
    width = max((len(column.cell(row)) for row in table.rows), default=0)
    return lambda row: f"{column.cell(row):>{width}}"
