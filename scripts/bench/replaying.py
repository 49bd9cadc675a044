"""`bench replay`: reading the whole ledger and rebuilding from it, beside a raw cursor over the same rows.

A replay reads as a projection does that is made anew: plain rows, and of each leaf what it says to the fold. The feed
gives entries in pages. A rebuild is `inforce rebuild` in a process of its own with as many more as it starts by itself:
it folds everything beside the live timelines, compares the two and takes their place.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from ledger.opening import open_ledger
from ledger.recorders.sqlite import SQLiteLedgerRecorder
from ledger.recorders.sqlite_schema import COLUMNS
from ledger.store import PAGE_MAX, Ledger
from projections.temporal.changes import read_entry
from projections.timelines.rebuild.fold_range import READ_EVENTS
from projections.timelines.rebuild.rebuild import WORKERS_EVENTS_MIN
from projections.timelines.rebuild.workers import usual_processes
from scripts.bench import measuring
from scripts.bench.child import spent
from scripts.bench.kept import large_ledger, project
from scripts.bench.marks import judge
from scripts.bench.measuring import Case
from scripts.bench.reporting import Column, Result, Table, number
from scripts.bench.suites import Setting
from scripts.cli.files import progress

EVENTS: Final = 1_000_000
READ_EVENTS_MAX: Final = 1_000_000
"""So many are read by each case of a turn: a cost per event needs no more."""

CURSOR: Final = "raw cursor, same rows"
FEED: Final = "feed"
READ: Final = "replay: rows, and what they say"


class _Rebuild(NamedTuple):
    """`processes`: that read and fold, beside the one that writes if there are several. `cpu_s`: of all of them.
    `memory_gb`: the sum of the most that each had resident, in 10⁹ bytes."""

    events: int
    processes: int
    wall_s: float
    cpu_s: float
    memory_gb: float


def run(setting: Setting) -> Result:
    events = setting.events or (2000 if setting.quick else EVENTS)
    url, _population = large_ledger(setting, events)
    with open_ledger(url) as ledger:
        count = min(ledger.head().position, READ_EVENTS_MAX)
        cases = [
            Case(CURSOR, None, lambda _: _raw(ledger, count)),
            Case(FEED, CURSOR, lambda _: _feed(ledger, count)),
            Case(READ, CURSOR, lambda _: _read(ledger, count)),
        ]
        with progress("bench replay, reading", setting.turns + 1) as tell:
            measured = measuring.measure(cases, setting.turns, lambda done: tell(done, ""))
    project(url)
    rebuilt = _rebuild(url)
    cursor_us = measuring.by_case(measured)[CURSOR].cpu_us.median
    read_speed = measuring.by_case(measured)[READ].cpu_speed
    return Result(
        [
            measuring.table(f"reading the first {count:,} events", "event", measured),
            _rebuild_table(rebuilt, cursor_us),
        ],
        [
            judge("replay.read", read_speed or 0.0),
            judge("rebuild.wall", rebuilt.wall_s, size=rebuilt.events),
            judge("rebuild.memory", rebuilt.memory_gb, size=rebuilt.events),
        ],
        ["processor time and memory are those of the processes that read or rebuild, without a database server's"],
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
        Column("processes", "processes", str),
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


def _feed(ledger: Ledger, count: int) -> int:
    after = 0
    while page := ledger.page(after, PAGE_MAX, count):
        after = page[-1].position
    return after


def _read(ledger: Ledger, count: int) -> int:
    told = ledger.recorder.events_in_range
    rows = 0
    for after in range(0, count, READ_EVENTS):
        for position, _subject, version, leaf in told(after, min(after + READ_EVENTS, count)):
            read_entry(position, version, leaf)
            rows += 1
    return rows


def _rebuild(url: str) -> _Rebuild:
    """Raises `LedgerUnavailable` where it fails, or finds live timelines that differ."""
    cost = spent("scripts.main", ["rebuild", "--db", url, "--format", "json"])
    events = msgspec.json.decode(cost.said)["events"]
    processes = usual_processes() if events >= WORKERS_EVENTS_MIN else 1
    return _Rebuild(events, processes, cost.wall_s, cost.cpu_s, cost.memory_gb)
