"""`bench replay`: reading the whole ledger and rebuilding from it, beside a raw cursor over the same rows.

The feed gives entries in pages; what a projector reads of an entry is what it says to the fold. A rebuild is `inforce
rebuild` in a process of its own: it folds everything beside the live timelines, compares the two and takes their place.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final, NamedTuple

import msgspec

from ledger.errors import LedgerUnavailable
from ledger.opening import open_ledger
from ledger.recorders.sqlite import SQLiteLedgerRecorder
from ledger.recorders.sqlite_schema import COLUMNS
from ledger.store import PAGE_MAX, Ledger
from projections.changes import read_assertion
from projections.runner import Runner
from projections.timelines import open_timelines
from scripts.bench import measuring
from scripts.bench.kept import large_ledger
from scripts.bench.marks import judge
from scripts.bench.measuring import Case
from scripts.bench.reporting import Column, Result, Table, number
from scripts.bench.server import module_environment
from scripts.bench.suites import Setting
from scripts.files import progress

EVENTS: Final = 1_000_000
READ_EVENTS_MAX: Final = 1_000_000
"""So many are read by each case of a turn: a cost per event needs no more."""

CURSOR: Final = "raw cursor, same rows"
FEED: Final = "feed"
READ: Final = "feed, and what a projector reads"


class _Rebuild(NamedTuple):
    events: int
    wall_s: float
    cpu_s: float
    memory_gb: float
    """The most that was resident, in 10⁹ bytes."""


def run(setting: Setting) -> Result:
    events = setting.events or (2000 if setting.quick else EVENTS)
    url, _population = large_ledger(setting, events)
    with open_ledger(url) as ledger:
        count = min(ledger.head().position, READ_EVENTS_MAX)
        cases = [
            Case(CURSOR, None, lambda _: _raw(ledger, count)),
            Case(FEED, CURSOR, lambda _: _feed(ledger, count, lambda entry: entry)),
            Case(READ, CURSOR, lambda _: _feed(ledger, count, lambda entry: read_assertion(entry.leaf))),
        ]
        with progress("bench replay, reading", setting.turns + 1) as tell:
            measured = measuring.measure(cases, setting.turns, lambda done: tell(done, ""))
        with progress("bench replay, first projection", ledger.head().position):
            Runner(ledger, open_timelines(ledger)).catch_up()
    rebuilt = _rebuild(url)
    cursor_us = measuring.by_case(measured)[CURSOR].cpu_us.median
    read_speed = measuring.by_case(measured)[READ].cpu_speed
    return Result(
        [
            measuring.table(f"reading the first {count:,} events", "event", measured),
            _rebuild_table(rebuilt, cursor_us),
        ],
        [
            judge("replay.feed", read_speed or 0.0),
            judge("rebuild.wall", rebuilt.wall_s, size=rebuilt.events),
            judge("rebuild.memory", rebuilt.memory_gb, size=rebuilt.events),
        ],
        ["processor time and memory are those of the process that reads or rebuilds, without a database server's"],
    )


def _rebuild_table(rebuilt: _Rebuild, cursor_us: float) -> Table:
    cpu_us = 1e6 * rebuilt.cpu_s / rebuilt.events
    row = {
        "case": "inforce rebuild",
        **rebuilt._asdict(),
        "per_second": rebuilt.events / rebuilt.wall_s,
        "cpu_us": cpu_us,
        "cpu_speed": cursor_us / cpu_us if cpu_us else None,
    }
    columns = (
        Column("case", "fold, compare, swap"),
        Column("events", "events", lambda events: f"{events:,}"),
        Column("wall_s", "wall s", number),
        Column("cpu_s", "CPU s", number),
        Column("memory_gb", "peak GB", number),
        Column("per_second", "events a second", number),
        Column("cpu_us", "CPU µs an event", number),
        Column("cpu_speed", "by CPU", number),
    )
    return Table("rebuilding all of them", columns, [row])


def _raw(ledger: Ledger, count: int) -> int:
    embedded = isinstance(ledger.recorder, SQLiteLedgerRecorder)
    table = "events" if embedded else "inforce.events"
    rows = 0
    with ledger.recorder.transaction(commit=False) as cursor:
        # Plain tuples, the cheapest that the driver gives.
        cursor.row_factory = None if embedded else cursor.row_factory
        cursor.execute(f"SELECT {COLUMNS} FROM {table} WHERE position <= {count} ORDER BY position")  # noqa: S608 - ours
        for _row in cursor:
            rows += 1
    return rows


def _feed(ledger: Ledger, count: int, read: Callable[[Any], object]) -> int:
    after = 0
    while page := ledger.page(after, PAGE_MAX, count):
        for entry in page:
            read(entry)
        after = page[-1].position
    return after


def _rebuild(url: str) -> _Rebuild:
    """Raises `LedgerUnavailable` where it fails, or finds live timelines that differ."""
    began = perf_counter()
    process = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "scripts.main", "rebuild", "--db", url, "--format", "json"],
        stdout=subprocess.PIPE,
        env=module_environment(),
    )
    try:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        wall = perf_counter() - began
        # The child has been waited for, with what it used, behind Popen's back.
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        if process.returncode is None:
            process.terminate()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
    if process.returncode != 0:
        raise LedgerUnavailable(f"inforce rebuild ended with {process.returncode}; what it said is above")
    rebuilt = msgspec.json.decode(said)
    kib = 1 if sys.platform == "darwin" else 1024
    return _Rebuild(rebuilt["events"], wall, used.ru_utime + used.ru_stime, used.ru_maxrss * kib / 1e9)
