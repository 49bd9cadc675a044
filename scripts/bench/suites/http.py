"""`bench http`: 64 submitters at once; each waits for its receipt before it sends the next event.

Two servers run over two databases of one kind. One is the normal server, in which submissions that arrive together
share a commit. The other limits a group to one submission, so that each has its own commit. Both commit durably.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from statistics import median
from typing import Any, Final, NamedTuple

import msgspec

from scripts.bench.http_load import post, require_status, send_load
from scripts.bench.marks import judge
from scripts.bench.measure import percentile, take_turns
from scripts.bench.population import setting_change
from scripts.bench.processes import serve
from scripts.bench.report import Column, SuiteResult, Table, number, ratio
from scripts.bench.suite import SuiteContext

SUBMITTERS: Final = 64
SUBJECTS: Final = 10_000
SECONDS: Final = 5.0

GROUPED: Final = "group commit"
ALONE: Final = "one commit per event"


class _SubmitTurn(NamedTuple):
    per_second: float
    p50_ms: float
    p99_ms: float


def run(context: SuiteContext) -> SuiteResult:
    seconds = 0.3 if context.quick else SECONDS
    submissions = _submissions()

    def case(group_max: int | None) -> Callable[[int], _SubmitTurn]:
        server = context.stack.enter_context(serve(context.databases.url(), group_max))
        return lambda _turn: _submit(server.port, submissions, seconds)

    turns = take_turns("bench http", {GROUPED: case(None), ALONE: case(1)}, context.turns)
    rows = [_row(name, each) for name, each in turns.items()]
    grouped, alone = rows
    gain = grouped["per_second"] / alone["per_second"]
    grouped["times"] = round(gain, 3)
    columns = (
        Column("case", f"{SUBMITTERS} submitters"),
        Column("per_second", "events a second", number),
        Column("p50_ms", "p50 ms", number),
        Column("p99_ms", "p99 ms", number),
        Column("tail", "p99 / p50", number),
        Column("times", "times", ratio),
    )
    return SuiteResult(
        [Table("one event each, over HTTP", columns, rows)],
        [judge(f"http.{context.databases.kind}", gain), judge("http.tail", grouped["tail"])],
        ["the submitters share the machine with the server"],
    )


def _submissions() -> Iterator[bytes]:
    rng = Random(1)  # noqa: S311 - the same work every time
    while True:
        change = setting_change(f"org:o{rng.randrange(SUBJECTS)}", "training.opt_in", rng.random() < 0.5)
        yield post("/v1/events", msgspec.json.encode(change))


def _submit(port: int, submissions: Iterator[bytes], seconds: float) -> _SubmitTurn:
    load = send_load(port, SUBMITTERS, submissions, seconds=seconds)
    require_status(load, 201)
    latencies = load.seconds
    return _SubmitTurn(len(latencies) / load.wall, 1e3 * percentile(latencies, 50), 1e3 * percentile(latencies, 99))


def _row(name: str, turns: list[_SubmitTurn]) -> dict[str, Any]:
    return {
        "case": name,
        "per_second": round(median(turn.per_second for turn in turns), 1),
        "p50_ms": round(median(turn.p50_ms for turn in turns), 4),
        "p99_ms": round(median(turn.p99_ms for turn in turns), 4),
        "tail": round(median(turn.p99_ms / turn.p50_ms for turn in turns), 4),
        "times": None,
        "turns": [turn._asdict() for turn in turns],
    }
