"""`bench growth`: a check in a small ledger and in a large one, and of a subject that nobody asked about before.

Warm: the same few keys are asked about again and again, at other moments of a past day in each turn and by turns in
every ledger, each question timed by itself.

Cold: the ledger is opened anew with empty caches, and each question is about another organization (one subject), or
another key (which leads to a project and an organization: three); catalog and models are warm.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from random import Random
from statistics import median
from time import perf_counter_ns
from typing import Any, Final

from ledger.opening import open_ledger
from projections.decisions.model import RequestRecord
from projections.query.query import Query
from scripts.bench.kept import large_ledger, project
from scripts.bench.marks import judge
from scripts.bench.measuring import percentile
from scripts.bench.population import Population
from scripts.bench.reporting import Column, Result, Table, number
from scripts.bench.requests import YEAR, by_key, each_key, of_orgs
from scripts.bench.suites import Setting
from scripts.cli.files import progress

SMALL: Final = 10_000
MIDDLE: Final = 1_000_000
KEYS: Final = 90
"""Asked about warm: fewer than a ledger of the smallest size has."""


def run(setting: Setting) -> Result:
    small = 1000 if setting.quick else SMALL
    largest = setting.events or (2000 if setting.quick else MIDDLE)
    sizes = sorted({small, *([MIDDLE] if largest > MIDDLE else []), largest})
    checks, subjects = (50, 20) if setting.quick else (2000, 500)
    ledgers: dict[str, Population] = {}
    for size in sizes:
        url, ledgers_population = large_ledger(setting, size)
        ledgers[url] = ledgers_population
        project(url)
    warm = _warm(setting, ledgers, checks)
    for row in warm[1:]:
        row["times"] = round(row["p50_us"] / warm[0]["p50_us"], 4)
    rng = Random(2)  # noqa: S311 - the same work every time
    cold = [row for url, population in ledgers.items() for row in _cold(url, population, subjects, rng)]
    coldest = next(row for row in reversed(cold) if row["subjects"] == 1)
    judged = [judge("growth.warm", warm[-1]["times"], size=largest)]
    if setting.databases.kind == "sqlite":
        note = f"at {coldest['events']:,} events; p99 {number(coldest['p99_us'] / 1000)} ms"
        judged.append(judge("growth.cold", coldest["p50_us"] / 1000, note=note))
    times = Column("times", "times", lambda value: "baseline" if value is None else number(value))
    return Result(
        [
            Table("warm, µs a check", (*_COLUMNS, times), warm),
            Table("cold, µs a check", (*_COLUMNS, Column("subjects", "subjects", str)), cold),
        ],
        judged,
        ["times: p50, of that in the smallest ledger"],
    )


_COLUMNS: Final = (
    Column("events", "events", lambda events: f"{events:,}"),
    Column("p50_us", "p50", number),
    Column("p99_us", "p99", number),
    Column("asked", "asked", lambda asked: f"{asked:,}"),
)


def _warm(setting: Setting, ledgers: dict[str, Population], checks: int) -> list[dict[str, Any]]:
    rng = Random(1)  # noqa: S311 - the same work every time
    queries = {url: Query(setting.stack.enter_context(open_ledger(url))) for url in ledgers}
    families = range(min(KEYS, *(population.families for population in ledgers.values())))
    for query in queries.values():
        query.check_all(each_key(families, rng))
    turns: dict[str, list[list[int]]] = {url: [] for url in ledgers}
    with progress("bench growth", setting.turns + 1) as tell:
        for turn in range(setting.turns + 1):
            # The same keys and times everywhere, so that only the ledger around them is larger.
            records = by_key(families, checks, rng)
            for url, query in queries.items() if turn % 2 == 0 else reversed(queries.items()):
                taken = _timed(query, records)
                if turn > 0:
                    turns[url].append(taken)
            tell(turn + 1, "")
    return [
        {
            "events": population.events,
            "p50_us": round(median(percentile(taken, 50) for taken in turns[url]) / 1000, 4),
            "p99_us": round(median(percentile(taken, 99) for taken in turns[url]) / 1000, 4),
            "asked": checks,
            "times": None,
        }
        for url, population in ledgers.items()
    ]


def _cold(url: str, population: Population, count: int, rng: Random) -> list[dict[str, Any]]:
    rows = []
    for subjects in (1, 3):
        with open_ledger(url) as ledger:
            query = Query(ledger)
            families = rng.sample(range(1, population.families), min(count, population.families - 1))
            if subjects == 1:
                records = of_orgs([2 * family for family in families], rng)
            else:
                records = [by_key([family], 1, rng, YEAR)[0] for family in families]
            # What every question shares is not cold: the catalog and the models.
            query.check_all([record._replace(key_id="k0", org_id=None) for record in records])
            taken = _timed(query, records)
        rows.append(
            {
                "events": population.events,
                "subjects": subjects,
                "p50_us": round(percentile(taken, 50) / 1000, 4),
                "p99_us": round(percentile(taken, 99) / 1000, 4),
                "asked": len(taken),
            }
        )
    return rows


def _timed(query: Query, records: Sequence[RequestRecord]) -> list[int]:
    """ns for each."""
    gc.collect()
    taken = []
    for record in records:
        began = perf_counter_ns()
        query.check(record)
        taken.append(perf_counter_ns() - began)
    return taken
