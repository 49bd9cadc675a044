"""`bench replay`: reading the whole ledger and rebuilding from it, beside a raw cursor over the same rows.

A replay reads as a projector does that starts from nothing: plain rows, and the change in each leaf. The feed returns
entries in pages. A rebuild is `inforce rebuild` in its own process, with as many worker processes as it starts itself:
it folds all events beside the live timelines, compares the two and replaces the live ones.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ledger.opening import open_ledger
from ledger.reader import PAGE_MAX
from ledger.recorders.common import COLUMNS
from ledger.store import Ledger
from projections.temporal.changes import read_entry
from projections.timelines.rebuild.fold_range import READ_EVENTS
from projections.timelines.rebuild.rebuild import WORKERS_EVENTS_MIN
from projections.timelines.rebuild.workers import usual_processes
from scripts.bench.ledgers import large_ledger, project
from scripts.bench.marks import judge
from scripts.bench.measure import Case, by_case, case_table, measure
from scripts.bench.processes import ProgramCost, run_program
from scripts.bench.report import Column, SuiteResult, Table, count, number
from scripts.bench.suite import SuiteContext

EVENTS: Final = 1_000_000
READ_EVENTS_MAX: Final = 1_000_000
"""A case of a turn reads no more: the cost per event does not change."""

CURSOR: Final = "raw cursor, same rows"
FEED: Final = "feed"
READ: Final = "replay: rows and their changes"


def run(context: SuiteContext) -> SuiteResult:
    url, _population = large_ledger(context, context.events or (2000 if context.quick else EVENTS))
    with open_ledger(url) as ledger:
        events = min(ledger.head().position, READ_EVENTS_MAX)
        cases = [
            Case(CURSOR, None, lambda _: _read_raw(ledger, events)),
            Case(FEED, CURSOR, lambda _: _read_feed(ledger, events)),
            Case(READ, CURSOR, lambda _: _read_changes(ledger, events)),
        ]
        measurements = measure("bench replay, reading", cases, context.turns)
    project(url)
    # Fails if the live timelines differ.
    cost = run_program("scripts.main", ["rebuild", "--db", url, "--format", "json"])
    rebuilt = msgspec.json.decode(cost.output)["events"]
    cursor_us = by_case(measurements)[CURSOR].cpu_us.median
    return SuiteResult(
        [
            case_table(f"reading the first {events:,} events", "event", measurements),
            _rebuild_table(rebuilt, cost, cursor_us),
        ],
        [
            judge("replay.read", by_case(measurements)[READ].cpu_speed or 0.0),
            judge("rebuild.wall", cost.wall_s, size=rebuilt),
            judge("rebuild.memory", cost.memory_gb, size=rebuilt),
        ],
        ["processor time and memory count the reading and rebuilding processes, without a database server"],
    )


def _rebuild_table(events: int, cost: ProgramCost, cursor_us: float) -> Table:
    cpu_us = 1e6 * cost.cpu_s / events
    row = {
        "case": "inforce rebuild",
        "events": events,
        # With several, one more process writes.
        "processes": usual_processes() if events >= WORKERS_EVENTS_MIN else 1,
        "wall_s": cost.wall_s,
        "cpu_s": cost.cpu_s,
        "memory_gb": cost.memory_gb,
        "per_second": events / cost.wall_s,
        "cpu_us": cpu_us,
        "cpu_speed": cursor_us / cpu_us if cpu_us else None,
    }
    columns = (
        Column("case", "fold, compare, swap"),
        Column("events", "events", count),
        Column("processes", "processes"),
        Column("wall_s", "wall s", number),
        Column("cpu_s", "CPU s", number),
        Column("memory_gb", "peak GB", number),
        Column("per_second", "events a second", number),
        Column("cpu_us", "CPU µs an event", number),
        Column("cpu_speed", "by CPU", number),
    )
    return Table("rebuilding all of them", columns, [row])


def _read_raw(ledger: Ledger, events: int) -> int:
    table = ledger.recorder.events_table
    rows = 0
    with ledger.recorder.transaction(commit=False) as cursor:
        cursor.execute(f"SELECT {COLUMNS} FROM {table} WHERE position <= {events} ORDER BY position")  # noqa: S608 - ours
        for _row in cursor:
            rows += 1
    return rows


def _read_feed(ledger: Ledger, events: int) -> int:
    after = 0
    while page := ledger.page(after, PAGE_MAX, events):
        after = page[-1].position
    return after


def _read_changes(ledger: Ledger, events: int) -> int:
    rows = 0
    for after in range(0, events, READ_EVENTS):
        raw_events = ledger.recorder.events_in_range(after, min(after + READ_EVENTS, events))
        for position, _subject, version, leaf, _recorded_at in raw_events:
            read_entry(position, version, leaf)
            rows += 1
    return rows
