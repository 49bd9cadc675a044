"""Attacks on a real server: its memory stays below twice that at rest and 128 MB, and others are served."""

import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.api.memory.served import MIB, Served, large_set, request, served
from tests.api.server_process import talk
from tests.support.waiting import until

HASTE = (
    "import api.http.sending, api.http.bodies, api.connections\n"
    "api.http.sending.SECONDS_MAX = api.http.bodies.SECONDS_MAX = 2.0\n"
    "api.connections.UNREAD_MS_MAX = 2000\n"
)
"""Before the server starts: deadlines that a test can wait for."""
Record = Callable[[str, object], None]


def fill(server: Served, events: int) -> None:
    """Records events of 60 KiB each."""
    value = large_set()
    for number in range(events):
        server.submit(
            {"type": "setting.changed", "subject": f"org:o{number}", "setting": "residency.regions", "value": value}
        )


def ended(connection: socket.socket) -> bool:
    """Whether the server has ended the connection, after reading what it sent before."""
    try:
        while connection.recv(MIB):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


LEGACY = "from ledger import catalog\ncatalog.SET_SIZE_MAX = 1000\ncatalog.VALUE_BYTES_MAX = 2**24\n"
"""Before the server starts: it records values as earlier versions did, which ledgers may hold."""


def test_answers_that_nobody_reads_are_few_and_end(tmp_path: Path, record_property: Record) -> None:
    with served(tmp_path, HASTE) as server:
        fill(server, 40)
        attack = request("GET", "/v1/events?limit=1000")
        with server.bounded_memory(record_property), server.connections(60, attack) as connections:
            until(lambda: server.ask("GET", "/healthz")[0] == 200)
            # A small answer needs none of the memory that the large ones hold.
            assert server.ask("POST", "/v1/checks", {"org_id": "acme"})[0] == 200
            until(lambda: server.unended() == 0)
            assert all(map(ended, connections))
        # The memory is free again: the same answer can be had.
        assert server.ask("GET", "/v1/events?limit=1000")[0] == 200


def test_a_small_answer_that_nobody_reads_ends_its_connection(tmp_path: Path) -> None:
    with served(tmp_path, HASTE) as server, server.connections(4) as connections:
        for connection in connections:
            connection.setblocking(False)
            # Requests of one connection until nothing more is taken: the answers fill its buffers.
            with suppress(BlockingIOError):
                for _ in range(20_000):
                    connection.send(request("GET", "/v1/catalog"))
            connection.settimeout(10)
        until(lambda: server.unended() == 0)
        assert all(map(ended, connections))


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HT", b"POST /v1/checks HTTP/1.1\r\nHost: localhost\r\nContent-"])
def test_idle_connections_leave_places_for_new_ones(tmp_path: Path, record_property: Record, sent: bytes) -> None:
    # Without the deadline of headers, only the end of idle connections makes room.
    patient = "import api.server; api.server.HEADER_MS_MAX = 300_000\n"
    with served(tmp_path, patient) as server, server.bounded_memory(record_property), server.connections(3000, sent):
        for path in ("/healthz", "/readyz", "/v1/catalog"):
            assert server.ask("GET", path)[0] == 200


def test_requests_at_once_leave_places_for_health_checks(tmp_path: Path, record_property: Record) -> None:
    with served(tmp_path) as server, server.bounded_memory(record_property):
        # Each waits for the rest of its body.
        waiting = request("POST", "/v1/checks", b"{", "Content-Length: 100")
        with server.connections(810, waiting) as connections:
            until(lambda: server.ask("GET", "/v1/catalog")[0] == 503)
            assert server.ask("GET", "/v1/catalog")[1]["code"] == "server_busy"
            assert server.ask("GET", "/healthz")[0] == 200
            assert server.ask("GET", "/readyz")[0] == 200
            refused = connections[-1].recv(65_536)
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 2\r\n" in refused
            # Those that found a place keep it.
            connections[0].sendall(b'"org_id":"acme"}' + b" " * 83)
            assert connections[0].recv(65_536).startswith(b"HTTP/1.1 200 ")
        until(lambda: server.ask("GET", "/v1/catalog")[0] == 200)


def test_unfinished_bodies_share_one_budget(tmp_path: Path, record_property: Record) -> None:
    with served(tmp_path, HASTE) as server, server.bounded_memory(record_property):
        size = 8 * MIB
        beginning = request("POST", "/v1/checks", b"{" + b" " * (size - 1000), f"Content-Length: {size}")
        answers = []
        with server.connections(60) as connections:
            for connection in connections:
                # The server answers and closes before it has read a body that it refuses.
                with suppress(ConnectionError):
                    connection.sendall(beginning)
            assert server.ask("POST", "/v1/checks", {"org_id": "acme"})[0] == 200
            assert server.ask("GET", "/healthz")[0] == 200
            for connection in connections:
                with suppress(ConnectionError):
                    answers.append(connection.recv(65_536).partition(b"\r\n")[0])
        assert {line.split()[1] for line in answers if line} <= {b"503", b"408"}
        assert any(b"408" in line for line in answers)
        # The deadline of the unfinished ones has freed their bytes.
        body = json.dumps({"requests": [{"org_id": "acme"}] * 10_000})
        assert server.ask("POST", "/v1/checks", json.loads(body))[0] == 200


def test_pages_of_large_events_end_early(tmp_path: Path, record_property: Record) -> None:
    with served(tmp_path, LEGACY) as server:
        value = large_set(1000, 900_000)
        for number in range(60):
            subject = f"org:o{max(number, 4)}"
            body = {"type": "setting.changed", "subject": subject, "setting": "residency.regions", "value": value}
            server.submit(body)
        with server.bounded_memory(record_property):
            for path in (
                "/v1/events?limit=1000",
                "/v1/events?limit=1000&subject=org:o4",
                "/v1/subjects/org:o4/history?limit=1000",
                "/v1/subjects/org:o4/timeline",
            ):
                status, page = server.ask("GET", path)
                assert (status, len(json.dumps(page)) < 4 * MIB) == (200, True)
                assert page["next_after"]


@pytest.mark.parametrize("size", [65_536, 900_000])
def test_a_batch_about_one_large_value_is_a_bounded_answer(tmp_path: Path, record_property: Record, size: int) -> None:
    with served(tmp_path, LEGACY) as server:
        value = large_set(256 if size == 65_536 else 1000, size)
        body = {"type": "setting.changed", "subject": "org:acme", "setting": "residency.regions", "value": value}
        server.submit(body)
        with server.bounded_memory(record_property):
            records = [{"request_id": f"r{number}", "org_id": "acme"} for number in range(1200)]
            answered = rounds = 0
            while answered < len(records):
                status, answer = server.ask("POST", "/v1/checks", {"requests": records[answered:]})
                assert status == 200
                ids = [decision["request_id"] for decision in answer["decisions"]]
                assert ids == [record["request_id"] for record in records[answered : answered + len(ids)]]
                (residency,) = [piece for piece in answer["evidence"] if piece["setting"] == "residency.regions"]
                assert residency["value"] == value
                assert answer.get("next_after", len(ids)) == len(ids)
                answered += len(ids)
                rounds += 1
                if rounds == 8:
                    break
            assert answered >= 8


BOMBS = {
    "empty records": b"{},",
    "empty lists": b"[],",
    "numbers": b"1,",
    "texts": b'"a",',
    "small records": b'{"org_id":"a"},',
    "records with escapes": rb'{"org_id":"\u0061"},',
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_body_of_many_values_is_refused_before_it_takes_memory(
    tmp_path: Path, record_property: Record, name: str
) -> None:
    unit = BOMBS[name]
    body = b'{"requests":[' + unit * ((8 * MIB - 100) // len(unit)) + unit.strip(b",") + b"]}"
    with served(tmp_path) as server, server.bounded_memory(record_property), ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: talk(server.port, "POST", "/v1/checks", body), range(4)))
        for status, _, text in answers:
            assert (status, json.loads(text)["code"]) in {(400, "bad_json"), (422, "bad_record"), (503, "server_busy")}
        assert {status for status, _, _ in answers} != {503}


def test_large_batches_at_once_are_bounded(tmp_path: Path, record_property: Record) -> None:
    records = [
        {"request_id": f"r{number}".ljust(240, "x"), "org_id": f"o{number}".ljust(200, "y"), "model_id": f"m{number}"}
        for number in range(10_000)
    ]
    body = json.dumps({"requests": records}).encode()
    with served(tmp_path) as server, server.bounded_memory(record_property), ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: talk(server.port, "POST", "/v1/checks", body), range(6)))
    assert {status for status, _, _ in answers} <= {200, 503}
    assert any(status == 200 for status, _, _ in answers)


def test_caches_count_the_bytes_of_values(tmp_path: Path, record_property: Record) -> None:
    small = "import projections.query.timeline_cache as s; s.MEMORY_MAX = 8_000_000\n"
    small += "import projections.query.query as q; q.Query.__init__.__kwdefaults__['memory_max'] = 8_000_000\n"
    with served(tmp_path, small) as server:
        fill(server, 600)
        with server.bounded_memory(record_property):
            for number in range(600):
                assert server.ask("POST", "/v1/checks", {"org_id": f"o{number}", "handling": {"region": "r"}})[0] == 200


def test_streams_that_nobody_reads_are_bounded_and_end(tmp_path: Path, record_property: Record) -> None:
    hasty = HASTE + "import api.event_stream; api.event_stream.SEND_S_MAX = 2.0\n"
    with served(tmp_path, hasty) as server:
        fill(server, 200)
        attack = request("GET", "/v1/events/stream?after=0")
        with server.bounded_memory(record_property), server.connections(128, attack) as connections:
            assert server.ask("GET", "/healthz")[0] == 200
            until(lambda: server.unended() == 0)
            assert all(map(ended, connections))
            # Their places are free again.
            with server.connections(1, attack) as others:
                assert others[0].recv(64).startswith(b"HTTP/1.1 200")
