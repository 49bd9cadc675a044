"""`bench memory`: the resident memory of a server that was asked about very many subjects at random.

Checks over HTTP, a thousand in a body, about any key, account or organization of a large ledger at any time; and about
one organization with a very long history. What counts is the most that was ever resident.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from random import Random
from typing import Any, Final

from ledger.append.submissions import parse_submissions
from ledger.clock import ManualClock
from ledger.opening import open_ledger
from ledger.times import DAY, SECOND, format_time
from projections.decisions.model import RequestRecord
from scripts.bench.kept import large_ledger, project
from scripts.bench.load import load, post, require
from scripts.bench.marks import judge
from scripts.bench.population import BEGIN
from scripts.bench.reporting import Column, Result, Table, number
from scripts.bench.requests import anybody, body
from scripts.bench.server import served
from scripts.bench.suites import Setting
from scripts.cli.files import progress

EVENTS: Final = 1_000_000
HISTORY: Final = 100_000
ASKS_MAX: Final = 300_000
BATCH: Final = 1000
LONG: Final = "long"
_SETTINGS: Final = ("training.opt_in", "storage.inputs_outputs", "caching.temporary", "passthrough.allowed")


def run(setting: Setting) -> Result:
    events = setting.events or (2000 if setting.quick else EVENTS)
    history = 2000 if setting.quick else HISTORY
    url, population = large_ledger(setting, events)
    project(url)
    rng = Random(1)  # noqa: S311 - the same work every time
    asks = min(population.subjects, ASKS_MAX)
    everybody = _served(url, "anybody, at random", (anybody(population, rng) for _ in range(asks)), asks)
    everybody["subjects"] = population.subjects
    long_url = setting.databases.url()
    _make_long(long_url, history)
    project(long_url)
    asks = min(history, 20_000)
    ends = BEGIN + history * SECOND
    long = _served(long_url, "one long history", (_of_long(rng.randrange(BEGIN, ends)) for _ in range(asks)), asks)
    long["subjects"] = 1
    columns = (
        Column("case", "asked about"),
        Column("subjects", "subjects", lambda subjects: f"{subjects:,}"),
        Column("checks", "checks", lambda checks: f"{checks:,}"),
        Column("idle_mb", "before, MB", number),
        Column("resident_mb", "after, MB", number),
        Column("peak_mb", "peak, MB", number),
        Column("per_second", "checks a second", number),
    )
    return Result(
        [Table("server, resident memory", columns, [everybody, long])],
        [
            judge("memory.subjects", everybody["peak_mb"], size=population.subjects),
            judge("memory.history", long["peak_mb"], size=history),
        ],
        ["memory of the server's own process, without a database server's"],
    )


def _served(url: str, case: str, records: Iterator[RequestRecord], asks: int) -> dict[str, Any]:
    with ExitStack() as stack:
        server = stack.enter_context(served(url))
        tell = stack.enter_context(progress(f"bench memory, {case}", asks))
        idle, _ = server.memory_mb()
        answers = load(server.port, 1, _bodies(records, tell))
        require(answers, 200)
        resident, peak = server.memory_mb()
    return {
        "case": case,
        "checks": asks,
        "idle_mb": round(idle, 1),
        "resident_mb": round(resident, 1),
        "peak_mb": round(peak, 1),
        "per_second": round(asks / answers.wall, 1),
    }


def _bodies(records: Iterator[RequestRecord], tell: Any) -> Iterator[bytes]:
    sent = 0
    batch: list[RequestRecord] = []
    for record in records:
        batch.append(record)
        if len(batch) == BATCH:
            yield post("/v1/checks", body(*batch))
            sent += len(batch)
            batch = []
            tell(sent, f"{sent:,}")
    if batch:
        yield post("/v1/checks", body(*batch))


def _of_long(at: int) -> RequestRecord:
    return RequestRecord(at=at, org_id=LONG, model_id="m0")


def _make_long(url: str, changes: int) -> None:
    """An organization whose four switches change in turns, one each second, announced a thousand at a time."""
    clock = ManualClock(BEGIN - DAY)
    with open_ledger(url, create=True, clock=clock) as ledger, progress("making a long history", changes) as tell:
        for start in range(0, changes, BATCH):
            clock.now_us = BEGIN + start * SECOND
            events = [
                {
                    "type": "setting.changed",
                    "subject": f"org:{LONG}",
                    "setting": _SETTINGS[number % len(_SETTINGS)],
                    "value": number // len(_SETTINGS) % 2 == 0,
                    "effective_from": format_time(BEGIN + (number + 1) * SECOND),
                }
                for number in range(start, start + BATCH)
            ]
            ledger.submit(parse_submissions({"events": events}), actor="bench")
            tell(start, "")
