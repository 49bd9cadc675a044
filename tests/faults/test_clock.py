"""The machine's clock steps back an hour and forward a year under the real server.

Positions keep their order, recorded times only rise, and an answer for the same coordinates never changes.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ledger.times import format_time, parse_time
from tests.faults.server import ServerProcess, assert_intact, run_server, training
from tests.support.ledgers import GENESIS

HOUR, YEAR = 3_600_000_000, 365 * 86_400_000_000

STEPPING = """
import time
from pathlib import Path

_time_ns = time.time_ns
time.time_ns = lambda: _time_ns() + 1000 * int(Path({offset!r}).read_text() or 0)
"""
"""Adds an offset (µs) to the clock of a process, from a file that the test writes."""


@pytest.fixture
def offset(tmp_path: Path) -> Path:
    path = tmp_path / "offset"
    path.write_text("0")
    return path


@pytest.fixture
def servers(database_url: str, offset: Path) -> Iterator[tuple[ServerProcess, ...]]:
    """A server whose clock steps; on PostgreSQL also a second one, whose clock is right."""
    with ExitStack() as stack:
        servers = [stack.enter_context(run_server(database_url, before=STEPPING.format(offset=str(offset))))]
        if database_url.startswith("postgresql:"):
            servers.append(stack.enter_context(run_server(database_url)))
        yield tuple(servers)


def test_a_clock_that_steps(servers: tuple[ServerProcess, ...], offset: Path, database_url: str) -> None:
    receipts = []
    answers = []
    for number, by in enumerate((0, -HOUR, 0, YEAR, 0)):
        offset.write_text(str(by))
        for server in servers:
            for value in (number % 2 == 0, number % 2 == 1):
                answer = server.submit(training("org:acme", value))
                assert answer.status == 201
                receipts.append(answer.body["receipts"][0])
                state = server.state("org:acme")
                assert state.body["position"] == receipts[-1]["position"]
                assert state.body["settings"]["training.opt_in"]["event_id"] == receipts[-1]["event_id"]
                recorded_at = parse_time(receipts[-1]["recorded_at"])
                answers += [_past_answer(server, recorded_at + by_one) for by_one in (-1, 0)]
    recorded = [parse_time(receipt["recorded_at"]) for receipt in receipts]
    assert recorded == sorted(set(recorded))
    assert [receipt["position"] for receipt in receipts] == list(range(GENESIS + 1, GENESIS + 1 + len(receipts)))
    # Events after the step of a year keep its time.
    assert recorded[-1] - recorded[0] >= YEAR
    for path, values in answers:
        for server in servers:
            assert _values(server, path) == values, "an answer about the past has changed"
    assert_intact(database_url, GENESIS, receipts)
    assert abs(parse_time(format_time(time.time_ns() // 1000)) - recorded[0]) < HOUR


def _past_answer(server: ServerProcess, instant: int) -> tuple[str, object]:
    path = f"/v1/subjects/org:acme/state?at={format_time(instant)}&known_at=at"
    return path, _values(server, path)


def _values(server: ServerProcess, path: str) -> object:
    answer = server.ask("GET", path)
    assert answer.status == 200
    return answer.body["settings"].get("training.opt_in")
