"""What a suite found, for people and for programs: tables, marks, and what it was measured on."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NamedTuple

from scripts.bench.marks import Judged, shown
from scripts.cli.output import Columns, print_line, print_table

PACKAGES: Final = (
    "inforce",
    "eventsourcing",
    "msgspec",
    "granian",
    "fastapi",
    "starlette",
    "psycopg",
    "cedarpy",
    "casbin",
    "UnleashClient",
    "openfeature-sdk",
)


def number(value: Any) -> str:
    return "" if value is None else shown(value)


def plain(value: Any) -> str:
    return "" if value is None else str(value)


class Column(NamedTuple):
    """`key`: of the row; `text`: how its value is shown."""

    key: str
    heading: str
    text: Callable[[Any], str] = plain


class Table(NamedTuple):
    title: str
    columns: tuple[Column, ...]
    rows: Sequence[dict[str, Any]]


class Result(NamedTuple):
    """`notes`: what a reader of the figures has to know, a sentence each."""

    tables: Sequence[Table]
    judged: Sequence[Judged]
    notes: Sequence[str] = ()


class Report(NamedTuple):
    suite: str
    about: str
    database: str
    turns: int
    quick: bool
    result: Result


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
    return {
        "suite": report.suite,
        "about": report.about,
        "database": report.database,
        "machine": machine(),
        "versions": versions(),
        "turns": report.turns,
        "quick": report.quick,
        "tables": [{"title": table.title, "rows": list(table.rows)} for table in report.result.tables],
        "marks": [_judged_json(one) for one in report.result.judged],
        "notes": list(report.result.notes),
    }


def _judged_json(judged: Judged) -> dict[str, Any]:
    mark = judged.mark
    return {
        "mark": judged.key,
        "about": mark.about,
        "bound": mark.bound,
        "limit": mark.limit,
        "unit": mark.unit,
        "figure": judged.figure,
        "met": judged.met,
        "note": judged.note,
    }


def show(report: Report) -> None:
    here = machine()
    print_line(f"bench {report.suite}: {report.about}", "bold")
    print_line(f"{report.database}; {report.turns} turns of each, in turns, after one to warm up")
    print_line(f"{here['cpu']}, {here['cores']} cores, load {(here['load'] or ['?'])[0]}")
    print_line(", ".join(f"{name} {number_}" for name, number_ in versions().items()))
    for table in report.result.tables:
        print_line()
        _show_table(table)
    if report.result.judged:
        print_line()
        columns: Columns = {
            "mark": lambda one: one.mark.about,
            "asked": lambda one: one.mark.wanted,
            "measured": lambda one: one.measured,
            "met": lambda one: {True: "yes", False: "NO", None: "?"}[one.met],
        }
        print_table(columns, report.result.judged)
    print_line()
    for judged in report.result.judged:
        if judged.note:
            print_line(f"{judged.mark.about}: {judged.note}")
    for note in report.result.notes:
        print_line(note)
    if report.quick:
        print_line("--quick: these figures mean little")


def _show_table(table: Table) -> None:
    columns: Columns = {column.heading: _reader(column) for column in table.columns}
    # Figures stand one below the other by their last digit.
    widths = [max((len(of(row)) for row in table.rows), default=0) for of in map(_reader, table.columns)]
    padded: Columns = {
        heading: _padded(of, width) if index else of  # the first column holds words
        for index, ((heading, of), width) in enumerate(zip(columns.items(), widths, strict=True))
    }
    print_table(padded, table.rows, table.title)


def _reader(column: Column) -> Callable[[Any], str]:
    return lambda row: column.text(row[column.key])


def _padded(of: Callable[[Any], object], width: int) -> Callable[[Any], str]:
    return lambda row: f"{of(row):>{width}}"
