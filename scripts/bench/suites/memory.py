"""`bench memory`: the resident memory of a server under checks of very many subjects.

Checks go over HTTP, a thousand in a body: first about random keys, accounts and organizations of a large ledger at
random times, then about one organization with a very long history. The figure is the peak.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from random import Random
from typing import Any, Final

from ledger.append.submissions import parse_submissions
from ledger.clock import ManualClock
from ledger.opening import open_ledger
from ledger.times import DAY, SECOND, format_time
from projections.decisions.model import RequestRecord
from scripts.bench.http_load import post, require_status, send_load
from scripts.bench.ledgers import large_ledger, project
from scripts.bench.marks import judge
from scripts.bench.population import ACTOR, BEGIN, ORG_SETTINGS, setting_change
from scripts.bench.processes import serve
from scripts.bench.report import Column, SuiteResult, Table, count, number
from scripts.bench.requests import check_body, random_record
from scripts.bench.suite import SuiteContext
from scripts.cli.files import progress

EVENTS: Final = 1_000_000
HISTORY: Final = 100_000
CHECKS_MAX: Final = 300_000
HISTORY_CHECKS_MAX: Final = 20_000
BATCH: Final = 1000
LONG: Final = "long"


def run(context: SuiteContext) -> SuiteResult:
    history = 2000 if context.quick else HISTORY
    url, population = large_ledger(context, context.events or (2000 if context.quick else EVENTS))
    project(url)
    rng = Random(1)  # noqa: S311 - the same work every time
    checks = min(population.subjects, CHECKS_MAX)
    records = (random_record(population, rng) for _ in range(checks))
    many = _row(url, "anybody, at random", population.subjects, records, checks)
    long_url = context.databases.url()
    _generate_long_history(long_url, history)
    project(long_url)
    checks = min(history, HISTORY_CHECKS_MAX)
    end = BEGIN + history * SECOND
    records = (RequestRecord(at=rng.randrange(BEGIN, end), org_id=LONG, model_id="m0") for _ in range(checks))
    long = _row(long_url, "one long history", 1, records, checks)
    columns = (
        Column("case", "checks about"),
        Column("subjects", "subjects", count),
        Column("checks", "checks", count),
        Column("idle_mb", "before, MB", number),
        Column("resident_mb", "after, MB", number),
        Column("peak_mb", "peak, MB", number),
        Column("per_second", "checks a second", number),
    )
    return SuiteResult(
        [Table("server, resident memory", columns, [many, long])],
        [
            judge("memory.subjects", many["peak_mb"], size=population.subjects),
            judge("memory.history", long["peak_mb"], size=history),
        ],
        ["memory of the inforce server's process, without a database server"],
    )


def _row(url: str, case: str, subjects: int, records: Iterator[RequestRecord], checks: int) -> dict[str, Any]:
    with serve(url) as server, progress(f"bench memory, {case}", checks) as tell:
        idle, _ = server.memory_mb()
        load = send_load(server.port, 1, _requests(records, tell))
        require_status(load, 200)
        resident, peak = server.memory_mb()
    return {
        "case": case,
        "checks": checks,
        "idle_mb": round(idle, 1),
        "resident_mb": round(resident, 1),
        "peak_mb": round(peak, 1),
        "per_second": round(checks / load.wall, 1),
        "subjects": subjects,
    }


def _requests(records: Iterator[RequestRecord], tell: Callable[[int, str], None]) -> Iterator[bytes]:
    sent = 0
    while batch := list(islice(records, BATCH)):
        yield post("/v1/checks", check_body(*batch))
        sent += len(batch)
        tell(sent, f"{sent:,}")


def _generate_long_history(url: str, changes: int) -> None:
    """An organization whose four switches change in rotation, one each second; a submission has a thousand changes."""
    clock = ManualClock(BEGIN - DAY)
    with open_ledger(url, create=True, clock=clock) as ledger, progress("generating a long history", changes) as tell:
        for start in range(0, changes, BATCH):
            clock.now_us = BEGIN + start * SECOND
            events = [
                {
                    **setting_change(
                        f"org:{LONG}",
                        ORG_SETTINGS[number % len(ORG_SETTINGS)],
                        number // len(ORG_SETTINGS) % 2 == 0,
                    ),
                    "effective_from": format_time(BEGIN + (number + 1) * SECOND),
                }
                for number in range(start, start + BATCH)
            ]
            ledger.submit(parse_submissions({"events": events}), actor=ACTOR)
            tell(start, "")
