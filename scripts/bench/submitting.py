"""`bench http`: 64 submitters at once, each waiting for its receipt before it sends the next.

The same server twice, over two databases of one kind: once as it is served, where submissions that arrive together
share a commit, and once with one commit for each, by the limit of the size of a group. Durable commits on both.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from statistics import median
from typing import Any, Final, NamedTuple

import msgspec

from scripts.bench.load import Answers, load, post, require
from scripts.bench.marks import judge
from scripts.bench.measuring import percentile
from scripts.bench.reporting import Column, Result, Table, number
from scripts.bench.server import Server, served
from scripts.bench.suites import Setting
from scripts.cli.files import progress

SUBMITTERS: Final = 64
SUBJECTS: Final = 10_000
SECONDS: Final = 5.0

GROUPED: Final = "group commit"
ALONE: Final = "one commit per event"


class _Turn(NamedTuple):
    per_second: float
    p50_ms: float
    p99_ms: float


def run(setting: Setting) -> Result:
    seconds = 0.3 if setting.quick else SECONDS
    kinds = {GROUPED: None, ALONE: 1}
    servers = {
        name: setting.stack.enter_context(served(setting.databases.url(), group)) for name, group in kinds.items()
    }
    requests = _submissions()
    turns: dict[str, list[_Turn]] = {name: [] for name in kinds}
    with progress("bench http", setting.turns + 1) as tell:
        for turn in range(setting.turns + 1):
            for name in kinds if turn % 2 == 0 else reversed(list(kinds)):
                measured = _turn(servers[name], requests, seconds)
                if turn > 0:
                    turns[name].append(measured)
            tell(turn + 1, "")
    rows = [_row(name, taken) for name, taken in turns.items()]
    grouped, alone = rows
    ratio = grouped["per_second"] / alone["per_second"]
    grouped["times"] = round(ratio, 3)
    columns = (
        Column("case", f"{SUBMITTERS} submitters"),
        Column("per_second", "events a second", number),
        Column("p50_ms", "p50 ms", number),
        Column("p99_ms", "p99 ms", number),
        Column("tail", "p99 / p50", number),
        Column("times", "times", lambda times: "baseline" if times is None else number(times)),
    )
    return Result(
        [Table("one event each, over HTTP", columns, rows)],
        [judge(f"http.{setting.databases.kind}", ratio), judge("http.tail", grouped["tail"])],
        ["the submitters share the machine with the server"],
    )


def _submissions() -> Iterator[bytes]:
    rng = Random(1)  # noqa: S311 - the same work every time
    while True:
        change = {
            "type": "setting.changed",
            "subject": f"org:o{rng.randrange(SUBJECTS)}",
            "setting": "training.opt_in",
            "value": rng.random() < 0.5,
        }
        yield post("/v1/events", msgspec.json.encode(change))


def _turn(server: Server, requests: Iterator[bytes], seconds: float) -> _Turn:
    answers: Answers = load(server.port, SUBMITTERS, requests, seconds=seconds)
    require(answers, 201)
    taken = answers.seconds
    return _Turn(len(taken) / answers.wall, 1e3 * percentile(taken, 50), 1e3 * percentile(taken, 99))


def _row(name: str, turns: list[_Turn]) -> dict[str, Any]:
    return {
        "case": name,
        "per_second": round(median(turn.per_second for turn in turns), 1),
        "p50_ms": round(median(turn.p50_ms for turn in turns), 4),
        "p99_ms": round(median(turn.p99_ms for turn in turns), 4),
        "tail": round(median(turn.p99_ms / turn.p50_ms for turn in turns), 4),
        "times": None,
        "turns": [turn._asdict() for turn in turns],
    }
