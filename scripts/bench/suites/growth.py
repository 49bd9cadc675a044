"""`bench growth`: a check in a small ledger and in a large one, warm and cold.

Warm: the checks repeat a few keys, at other moments of a past day in each turn, and the ledgers alternate. Each check
is timed by itself.

Cold: the ledger is opened again with empty caches. Each check is about another organization (one subject), or another
key (three subjects: it leads to a project and an organization). Catalog and models are warm.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from random import Random
from statistics import median
from time import perf_counter_ns
from typing import Any, Final

from ledger.opening import open_ledger
from projections.decisions.model import RequestRecord
from projections.query.query import Query
from scripts.bench.ledgers import large_ledger, project
from scripts.bench.marks import judge
from scripts.bench.measure import percentile, take_turns
from scripts.bench.population import Population
from scripts.bench.report import Column, SuiteResult, Table, count, number, ratio
from scripts.bench.requests import YEAR, records_of_keys, records_of_orgs, warm_up_records
from scripts.bench.suite import SuiteContext

SMALL: Final = 10_000
MIDDLE: Final = 1_000_000
KEYS: Final = 90
"""Warm keys: fewer than a ledger of the smallest size has."""


def run(context: SuiteContext) -> SuiteResult:
    small = 1000 if context.quick else SMALL
    largest = context.events or (2000 if context.quick else MIDDLE)
    sizes = sorted({small, *([MIDDLE] if largest > MIDDLE else []), largest})
    checks, subjects = (50, 20) if context.quick else (2000, 500)
    ledgers = dict(large_ledger(context, size) for size in sizes)
    for url in ledgers:
        project(url)
    warm = _warm_rows(context, ledgers, checks)
    for row in warm[1:]:
        row["times"] = round(row["p50_us"] / warm[0]["p50_us"], 4)
    rng = Random(2)  # noqa: S311 - the same work every time
    cold = [row for url, population in ledgers.items() for row in _cold_rows(url, population, subjects, rng)]
    coldest = next(row for row in reversed(cold) if row["subjects"] == 1)
    judged = [judge("growth.warm", warm[-1]["times"], size=largest)]
    if context.databases.kind == "sqlite":
        note = f"at {coldest['events']:,} events; p99 {number(coldest['p99_us'] / 1000)} ms"
        judged.append(judge("growth.cold", coldest["p50_us"] / 1000, note=note))
    return SuiteResult(
        [
            Table("warm, µs a check", (*_COLUMNS, Column("times", "times", ratio)), warm),
            Table("cold, µs a check", (*_COLUMNS, Column("subjects", "subjects")), cold),
        ],
        judged,
        ["times: p50, relative to the smallest ledger"],
    )


_COLUMNS: Final = (
    Column("events", "events", count),
    Column("p50_us", "p50", number),
    Column("p99_us", "p99", number),
    Column("asked", "checks", count),
)


def _warm_rows(context: SuiteContext, ledgers: dict[str, Population], checks: int) -> list[dict[str, Any]]:
    rng = Random(1)  # noqa: S311 - the same work every time
    queries = {url: Query(context.stack.enter_context(open_ledger(url))) for url in ledgers}
    families = range(min(KEYS, *(population.families for population in ledgers.values())))
    for query in queries.values():
        query.check_all(warm_up_records(families, rng))
    # The same keys and times in every ledger, so that only the size of the ledger differs.
    records = [records_of_keys(families, checks, rng) for _ in range(context.turns + 1)]

    def case(query: Query) -> Callable[[int], list[int]]:
        return lambda turn: _times_ns(query, records[turn])

    turns = take_turns("bench growth", {url: case(query) for url, query in queries.items()}, context.turns)
    return [{**_row(population, turns[url], checks), "times": None} for url, population in ledgers.items()]


def _cold_rows(url: str, population: Population, count: int, rng: Random) -> list[dict[str, Any]]:
    rows = []
    for subjects in (1, 3):
        with open_ledger(url) as ledger:
            query = Query(ledger)
            families = rng.sample(range(1, population.families), min(count, population.families - 1))
            if subjects == 1:
                records = records_of_orgs([2 * family for family in families], rng)
            else:
                records = [records_of_keys([family], 1, rng, YEAR)[0] for family in families]
            # Warms the parts that all checks share: the catalog and the models.
            query.check_all([record._replace(key_id="k0", org_id=None) for record in records])
            times = _times_ns(query, records)
        rows.append({**_row(population, [times], len(times)), "subjects": subjects})
    return rows


def _row(population: Population, turns: Sequence[list[int]], checks: int) -> dict[str, Any]:
    p50, p99 = (median(percentile(times, percent) for times in turns) / 1000 for percent in (50, 99))
    return {"events": population.events, "p50_us": round(p50, 4), "p99_us": round(p99, 4), "asked": checks}


def _times_ns(query: Query, records: Sequence[RequestRecord]) -> list[int]:
    gc.collect()
    times = []
    for record in records:
        began = perf_counter_ns()
        query.check(record)
        times.append(perf_counter_ns() - began)
    return times
