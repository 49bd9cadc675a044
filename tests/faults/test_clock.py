"""The machine's clock steps back and forward under the real server.

Positions keep their order, recorded times only rise, and an answer for the same coordinates never changes. Far behind
the last event, nothing is recorded.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ledger.times import format_time, parse_time
from tests.faults.server import ServerProcess, assert_intact, run_server, training
from tests.support.ledgers import GENESIS
from tests.support.reference import Json

SECOND, HOUR, YEAR = 1_000_000, 3_600_000_000, 365 * 86_400_000_000

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
    receipts: list[Json] = []
    answers: list[tuple[str, object]] = []
    for by in (0, -30 * SECOND, 0, HOUR):
        offset.write_text(str(by))
        for server in servers:
            if by == HOUR and server is not servers[0]:
                continue
            for value in (True, False):
                receipts.append(_recorded(server, value))
                recorded_at = parse_time(receipts[-1]["recorded_at"])
                answers += [_past_answer(server, recorded_at + by_one) for by_one in (-1, 0)]
    recorded = [parse_time(receipt["recorded_at"]) for receipt in receipts]
    assert recorded == sorted(set(recorded))
    assert [receipt["position"] for receipt in receipts] == list(range(GENESIS + 1, GENESIS + 1 + len(receipts)))
    for path, values in answers:
        for server in servers:
            assert _values(server, path) == values, "an answer about the past has changed"
    assert_intact(database_url, GENESIS, receipts)


def test_a_clock_a_year_ahead_is_mended_and_nobody_records_behind_it(
    servers: tuple[ServerProcess, ...], offset: Path, database_url: str
) -> None:
    """Each further event would have a recorded_at of next year: an opt-out would not be in force until then."""
    receipts = [_recorded(servers[0], True)]
    offset.write_text(str(YEAR))
    receipts.append(_recorded(servers[0], False))
    offset.write_text("0")
    for server in servers:
        for _ in range(3):
            refused = server.submit(training("org:acme", True)).unavailable()
            assert refused["code"] == "clock_behind"
            assert refused["recorded_at"] == receipts[-1]["recorded_at"]
            assert abs(parse_time(refused["clock"]) - time.time_ns() // 1000) < HOUR
            assert server.ask("GET", "/readyz").unavailable()["code"] == "clock_behind"
        assert server.ask("GET", "/healthz").status == 200
        assert server.state("org:acme").body["position"] == receipts[-1]["position"]
        assert len([line for line in server.log if "clock_behind" in line]) == 1
    with run_server(database_url) as restarted:
        assert restarted.ask("GET", "/readyz").unavailable()["code"] == "clock_behind"
    assert_intact(database_url, GENESIS, receipts)
    # Where the clock comes back, recording goes on by itself.
    offset.write_text(str(YEAR))
    receipts.append(_recorded(servers[0], True))
    assert servers[0].ask("GET", "/readyz").status == 200


def _recorded(server: ServerProcess, value: bool) -> Json:
    """The receipt of a change, which an answer sees at once."""
    answer = server.submit(training("org:acme", value))
    assert answer.status == 201, answer
    receipt: Json = answer.body["receipts"][0]
    state = server.state("org:acme")
    assert state.body["position"] == receipt["position"]
    assert state.body["settings"]["training.opt_in"]["event_id"] == receipt["event_id"]
    return receipt


def _past_answer(server: ServerProcess, instant: int) -> tuple[str, object]:
    path = f"/v1/subjects/org:acme/state?at={format_time(instant)}&known_at=at"
    return path, _values(server, path)


def _values(server: ServerProcess, path: str) -> object:
    answer = server.ask("GET", path)
    assert answer.status == 200
    return answer.body["settings"].get("training.opt_in")
