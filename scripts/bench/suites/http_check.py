"""`bench http-check`: the cost of a check over HTTP, beside a constant JSON route of the same application.

The figure is the server's processor time, because that is the scarce resource; another process sends the load. Both
routes pass the same server and middleware. One returns a constant dict, as FastAPI routes do. The other parses a
record, resolves its key, decides about a past time and responds with full evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from random import Random
from statistics import median
from typing import Any, Final, NamedTuple

import msgspec

from ledger.errors import LedgerUnavailable
from scripts.bench.http_load import get, post, require_status, send_load
from scripts.bench.ledgers import generate_ledger
from scripts.bench.marks import judge
from scripts.bench.measure import take_turns
from scripts.bench.population import subjects_for
from scripts.bench.processes import Server, serve
from scripts.bench.report import Column, SuiteResult, Table, number
from scripts.bench.requests import check_body, records_of_keys, warm_up_records
from scripts.bench.server import BARE, CONSTANT
from scripts.bench.suite import SuiteContext

CONNECTIONS: Final = (1, 16)
BATCH: Final = 1000
SECONDS: Final = 3.0
PATH: Final = "/v1/checks"

CHECK: Final = "POST /v1/checks, one record"
CONSTANT_ROUTE: Final = "constant, FastAPI route"
BARE_ROUTE: Final = "constant, bare Starlette route"
MANY: Final = f"POST /v1/checks, {BATCH} records"

RouteCase = tuple[str, int]
"""Route, and number of connections."""


class _RouteTurn(NamedTuple):
    """µs for each record."""

    cpu: float
    wall: float
    answered: int


def run(context: SuiteContext) -> SuiteResult:
    events, seconds = (1000, 0.3) if context.quick else (50_000, SECONDS)
    url = context.databases.url()
    population = generate_ledger(url, subjects_for(events))
    rng = Random(1)  # noqa: S311 - the same work every time
    keys = range(population.families)
    warm_up = warm_up_records(keys, rng)
    batches = [check_body(*records_of_keys(keys, BATCH, rng)) for _ in range(2 if context.quick else 20)]
    singles = [check_body(record) for record in records_of_keys(keys, 500 if context.quick else 20_000, rng)]
    server = context.stack.enter_context(serve(url))
    _warm_up(server, [check_body(*warm_up[start : start + BATCH]) for start in range(0, len(warm_up), BATCH)])
    turns = take_turns("bench http-check", _cases(server, singles, batches, seconds), context.turns)
    rows = {case: _row(*case, each) for case, each in turns.items()}
    for (route, connections), row in rows.items():
        if route in (CHECK, BARE_ROUTE):
            row["times"] = round(row["cpu_us"] / rows[CONSTANT_ROUTE, connections]["cpu_us"], 4)
    batch = rows[MANY, 1]
    return SuiteResult(
        [Table("server, µs for each answer", _COLUMNS, list(rows.values()))],
        [
            judge("http-check.one", rows[CHECK, 1]["times"]),
            judge("http-check.many", rows[CHECK, 16]["times"]),
            judge("http-check.batch", batch["cpu_us"], note=f"wall time is {number(batch['wall_us'])} µs"),
        ],
        ["times: server CPU, relative to the constant FastAPI route with as many connections"],
    )


_COLUMNS: Final = (
    Column("case", "route"),
    Column("connections", "connections"),
    Column("cpu_us", "server CPU", number),
    Column("wall_us", "wall", number),
    Column("per_second", "a second", number),
    Column("times", "times", number),
)


def _cases(
    server: Server, singles: Sequence[bytes], batches: Sequence[bytes], seconds: float
) -> dict[RouteCase, Callable[[int], _RouteTurn]]:
    def case(requests: Sequence[bytes], connections: int, records: int = 1) -> Callable[[int], _RouteTurn]:
        endless = cycle(requests)
        return lambda _turn: _request(server, endless, connections, records, seconds)

    checks = [post(PATH, single) for single in singles]
    routes = {CONSTANT_ROUTE: [get(CONSTANT)], BARE_ROUTE: [get(BARE)], CHECK: checks}
    return {
        **{(route, count): case(requests, count) for count in CONNECTIONS for route, requests in routes.items()},
        (MANY, 1): case([post(PATH, batch) for batch in batches], 1, BATCH),
    }


def _warm_up(server: Server, bodies: list[bytes]) -> None:
    load = send_load(server.port, 1, [post(PATH, body) for body in bodies])
    require_status(load, 200)
    decisions = msgspec.json.decode(load.last)["decisions"]
    if not all("evidence" in decision for decision in decisions):
        raise LedgerUnavailable("the server under measurement answers checks without evidence")


def _request(server: Server, requests: Iterator[bytes], connections: int, records: int, seconds: float) -> _RouteTurn:
    before = server.cpu_seconds()
    load = send_load(server.port, connections, requests, seconds=seconds)
    cpu = server.cpu_seconds() - before
    require_status(load, 200)
    answered = len(load.seconds) * records
    return _RouteTurn(1e6 * cpu / answered, 1e6 * load.wall / answered, answered)


def _row(route: str, connections: int, turns: list[_RouteTurn]) -> dict[str, Any]:
    wall = median(turn.wall for turn in turns)
    return {
        "case": route,
        "connections": connections,
        "cpu_us": round(median(turn.cpu for turn in turns), 4),
        "wall_us": round(wall, 4),
        "per_second": round(1e6 / wall, 1),
        "times": None,
        "turns": [turn._asdict() for turn in turns],
    }
