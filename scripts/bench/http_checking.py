"""`bench http-check`: what a check costs the server, beside a constant JSON route of the same application.

Processor time of the server, because that is what runs out; the load comes from another process. Both routes go through
the same server, the same door and the same middle; one answers a constant dict, as FastAPI routes do, the other reads a
record, follows its key, decides about a past moment and answers with full evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from random import Random
from statistics import median
from typing import Any, Final, NamedTuple

import msgspec

from ledger.errors import LedgerUnavailable
from scripts.bench.load import get, load, post, require
from scripts.bench.making import make
from scripts.bench.marks import judge
from scripts.bench.population import subjects_for
from scripts.bench.reporting import Column, Result, Table, number
from scripts.bench.requests import body, by_key, each_key
from scripts.bench.server import Server, served
from scripts.bench.serving import BARE, CONSTANT
from scripts.bench.suites import Setting
from scripts.cli.files import progress

CONNECTIONS: Final = (1, 16)
BATCH: Final = 1000
SECONDS: Final = 3.0
PATH: Final = "/v1/checks"

CHECK: Final = "POST /v1/checks, one record"
CONSTANT_ROUTE: Final = "constant, FastAPI route"
BARE_ROUTE: Final = "constant, bare Starlette route"
MANY: Final = f"POST /v1/checks, {BATCH} records"


class _Work(NamedTuple):
    name: str
    requests: Iterator[bytes]
    connections: int
    each: int
    """Answers in one answer."""


class _Turn(NamedTuple):
    """µs for each."""

    cpu: float
    wall: float
    answered: int


def run(setting: Setting) -> Result:
    events, seconds = (1000, 0.3) if setting.quick else (50_000, SECONDS)
    url = setting.databases.url()
    population = make(url, subjects_for(events), lambda _made: None)
    rng = Random(1)  # noqa: S311 - the same work every time
    keys = range(population.families)
    warming = each_key(keys, rng)
    batches = [body(*by_key(keys, BATCH, rng)) for _ in range(2 if setting.quick else 20)]
    singles = [body(record) for record in by_key(keys, 500 if setting.quick else 20_000, rng)]
    server = setting.stack.enter_context(served(url))
    _warm(server, [body(*warming[start : start + BATCH]) for start in range(0, len(warming), BATCH)])
    work = _work(singles, batches)
    turns: dict[tuple[str, int], list[_Turn]] = {(one.name, one.connections): [] for one in work}
    with progress("bench http-check", setting.turns + 1) as tell:
        for turn in range(setting.turns + 1):
            for one in work if turn % 2 == 0 else reversed(work):
                measured = _turn(server, one, seconds)
                if turn > 0:
                    turns[one.name, one.connections].append(measured)
            tell(turn + 1, "")
    rows = {place: _row(*place, taken) for place, taken in turns.items()}
    for (name, connections), row in rows.items():
        if name in (CHECK, BARE_ROUTE):
            row["times"] = round(row["cpu_us"] / rows[CONSTANT_ROUTE, connections]["cpu_us"], 4)
    batch = rows[MANY, 1]
    return Result(
        [Table("server, µs for each answer", _COLUMNS, list(rows.values()))],
        [
            judge("http-check.one", rows[CHECK, 1]["times"]),
            judge("http-check.many", rows[CHECK, 16]["times"]),
            judge(
                "http-check.batch", batch["cpu_us"], note=f"server CPU; with all waiting {number(batch['wall_us'])} µs"
            ),
        ],
        ["times: server CPU, of the constant FastAPI route with as many connections"],
    )


_COLUMNS: Final = (
    Column("case", "route"),
    Column("connections", "connections", str),
    Column("cpu_us", "server CPU", number),
    Column("wall_us", "wall", number),
    Column("per_second", "a second", number),
    Column("times", "times", number),
)


def _work(singles: Sequence[bytes], batches: Sequence[bytes]) -> list[_Work]:
    checks = [post(PATH, single) for single in singles]
    work = [
        _Work(name, cycle(requests), connections, 1)
        for connections in CONNECTIONS
        for name, requests in (
            (CONSTANT_ROUTE, [get(CONSTANT)]),
            (BARE_ROUTE, [get(BARE)]),
            (CHECK, checks),
        )
    ]
    return [*work, _Work(MANY, cycle([post(PATH, batch) for batch in batches]), 1, BATCH)]


def _warm(server: Server, bodies: list[bytes]) -> None:
    answers = load(server.port, 1, [post(PATH, one) for one in bodies])
    require(answers, 200)
    decisions = msgspec.json.decode(answers.last)["decisions"]
    if not all("evidence" in decision for decision in decisions):
        raise LedgerUnavailable("the server that was measured answers checks without evidence")


def _turn(server: Server, work: _Work, seconds: float) -> _Turn:
    before = server.cpu_seconds()
    answers = load(server.port, work.connections, work.requests, seconds=seconds)
    cpu = server.cpu_seconds() - before
    require(answers, 200)
    count = len(answers.seconds) * work.each
    return _Turn(1e6 * cpu / count, 1e6 * answers.wall / count, count)


def _row(name: str, connections: int, turns: list[_Turn]) -> dict[str, Any]:
    wall = median(turn.wall for turn in turns)
    return {
        "case": name,
        "connections": connections,
        "cpu_us": round(median(turn.cpu for turn in turns), 4),
        "wall_us": round(wall, 4),
        "per_second": round(1e6 / wall, 1),
        "times": None,
        "turns": [turn._asdict() for turn in turns],
    }
