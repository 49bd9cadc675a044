"""The real server over a real socket: its addresses, its refusals, and its stop."""

import json
import signal
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from api.network import NetworkSettings
from api.server import ServerSettings, free_port, serve
from ledger.errors import BadInput, LedgerUnavailable
from tests.api.client import GENESIS, changed
from tests.api.server_process import new_ledger, running, talk
from tests.support.waiting import GIVE_UP_S, until

CHANGE = changed("model:deepseek-ai/DeepSeek-V3", "model.hosting", "hosted")

WITHOUT_SIGN_IN = ServerSettings(network=NetworkSettings(signs_in=False))


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with running(f"sqlite:///{tmp_path_factory.mktemp('served')}/ledger.db") as (_, port):
        yield port


def test_the_main_calls_over_a_socket(port: int) -> None:
    status, headers, body = talk(port, "POST", "/v1/events", json.dumps(CHANGE), Idempotency_Key='"k"')
    assert (status, json.loads(body)["position"]) == (201, GENESIS + 1)
    for spelling in ("model:deepseek-ai/DeepSeek-V3", "model%3Adeepseek-ai%2FDeepSeek-V3"):
        status, _, body = talk(port, "GET", f"/v1/subjects/{spelling}/state?setting=model.hosting")
        assert (status, json.loads(body)["settings"]["model.hosting"]["value"]) == (200, "hosted")
    status, _, leaf = talk(port, "GET", headers["location"])
    _, _, feed = talk(port, "GET", f"/v1/events?after={GENESIS}")
    assert leaf in feed
    record = {"org_id": "acme", "model_id": "deepseek-ai/DeepSeek-V3"}
    status, _, body = talk(port, "POST", "/v1/checks", json.dumps(record))
    assert (status, json.loads(body)["verdict"]) == (200, "allowed")


def test_head_and_options_over_a_socket(port: int) -> None:
    at = "?at=2026-01-01T00:00:00Z&known_at=2026-01-01T00:00:00Z"
    status, headers, body = talk(port, "HEAD", f"/v1/catalog{at}")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) == len(talk(port, "GET", f"/v1/catalog{at}")[2])
    status, headers, body = talk(port, "OPTIONS", "/v1/events")
    assert (status, headers["allow"], body) == (204, "GET, HEAD, OPTIONS, POST", b"")


def test_a_body_that_is_too_large_gets_its_answer(port: int) -> None:
    for size in (1_048_577, 20_000_000):
        status, headers, body = talk(port, "POST", "/v1/events", b"x" * size)
        assert (status, json.loads(body)["code"]) == (413, "body_too_large")
    status, headers, body = talk(port, "POST", "/v1/events", (b"x" * 65_536 for _ in range(20)))
    assert (status, headers["content-type"]) == (413, "application/problem+json")
    assert json.loads(body)["code"] == "body_too_large"


@pytest.mark.parametrize("path", ["/%ff%00", "/v1/subjects/%ff/state", "/v1/events/%00", "/v1/events?after=%ff"])
def test_odd_paths_over_a_socket(port: int, path: str) -> None:
    status, headers, _ = talk(port, "GET", path)
    assert status in (404, 422)
    assert headers["content-type"] == "application/problem+json"


def test_another_host_name_is_refused_over_a_socket(port: int) -> None:
    status, _, body = talk(port, "GET", "/v1/catalog", Host="rebound.example")
    assert (status, json.loads(body)["code"]) == (421, "host_not_served")


def raw(port: int, request: bytes) -> bytes:
    """Sends bytes that http.client would not send, and returns the first part of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=GIVE_UP_S) as connection:
        connection.sendall(request)
        return connection.recv(65_536)


@pytest.mark.parametrize("path", ["/v1/checks", "/v1/events", "/v1/audits"])
@pytest.mark.parametrize("chunks", [b"zz\r\n{}\r\n0\r\n\r\n", b"2\r\n{}XX0\r\n\r\n", b"ffffffffffffffffff\r\n{}\r\n"])
def test_malformed_chunks_get_a_problem_document(port: int, path: str, chunks: bytes) -> None:
    head = (
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    answer = raw(port, head % path.encode() + chunks)
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "bad_request"


def test_a_client_that_resets_the_connection_within_its_body_is_no_failure_of_the_server(tmp_path: Path) -> None:
    with running(new_ledger(tmp_path)) as (process, port):
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port), timeout=GIVE_UP_S) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.sendall(b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n")
                connection.sendall(b"Content-Type: application/json\r\n\r\n{")
        assert talk(port, "GET", "/healthz")[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=GIVE_UP_S) == ("", "")


@pytest.mark.parametrize("hosts", [("localhost", "rebound.example"), ("rebound.example", "localhost"), ("::1", "::1")])
def test_two_host_fields_are_refused(port: int, hosts: tuple[str, str]) -> None:
    fields = "".join(f"Host: {host}\r\n" for host in hosts)
    answer = raw(port, f"GET /v1/catalog HTTP/1.1\r\n{fields}\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "bad_request"


@pytest.mark.parametrize(("host", "status"), [("rebound.example", b"421"), ("localhost", b"200")])
def test_a_host_in_the_target_counts_without_a_host_field(port: int, host: str, status: bytes) -> None:
    answer = raw(port, f"GET http://{host}/v1/catalog HTTP/1.1\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 " + status), answer


def test_many_callers_at_once(port: int) -> None:
    def one(number: int) -> int:
        if number % 4:
            return talk(port, "POST", "/v1/checks", json.dumps({"org_id": f"o{number}"}))[0]
        return talk(port, "POST", "/v1/events", json.dumps(changed(f"org:o{number}", "training.opt_in", True)))[0]

    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(one, range(80)))
    assert statuses == [200 if number % 4 else 201 for number in range(80)]
    positions = [
        event["data"]["position"] for event in json.loads(talk(port, "GET", "/v1/events?limit=1000")[2])["events"]
    ]
    assert positions == list(range(1, len(positions) + 1))


DECIDES_WHEN_TOLD = """
import pathlib, time
import api.routes.checks as checks

def decide(*arguments, decide=checks.decide):
    pathlib.Path({running!r}).touch()
    while not pathlib.Path({go_on!r}).exists():
        time.sleep(0.005)
    return decide(*arguments)

checks.decide = decide
"""
"""Before the server starts: a check says that it runs, and ends once a file exists."""


def is_refused(port: int) -> bool:
    """Whether nobody listens any more."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=GIVE_UP_S).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_server_stops_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    with running(new_ledger(tmp_path)) as (process, port):
        assert talk(port, "POST", "/v1/events", json.dumps(CHANGE))[0] == 201
        process.send_signal(number)
        out, err = process.communicate(timeout=GIVE_UP_S)
        assert (process.returncode, out, err) == (0, "", "")


def test_a_running_request_is_answered_before_the_server_stops(tmp_path: Path) -> None:
    path = "/v1/checks?known_at=2020-01-01T00:00:00Z"
    body = json.dumps({"requests": [{"org_id": f"o{number}", "model_id": "m"} for number in range(2500)]})
    running_file, go_on = tmp_path / "running", tmp_path / "go-on"
    before = DECIDES_WHEN_TOLD.format(running=str(running_file), go_on=str(go_on))
    with running(new_ledger(tmp_path), before=before) as (process, port), ThreadPoolExecutor(1) as pool:
        answer = pool.submit(talk, port, "POST", path, body)
        until(running_file.exists)
        process.send_signal(signal.SIGTERM)
        until(lambda: is_refused(port))
        assert process.poll() is None, "the server did not wait for its answer"
        go_on.touch()
        status, _, decisions = answer.result(GIVE_UP_S)
        assert (status, len(json.loads(decisions)["decisions"])) == (200, 2500)
        out, err = process.communicate(timeout=GIVE_UP_S)
        assert (process.returncode, out, err) == (0, "", "")


def test_a_body_that_does_not_arrive_is_given_up(tmp_path: Path) -> None:
    before = "import api.http.bodies; api.http.bodies.SECONDS_MAX = 0.5\n"
    with (
        running(f"sqlite:///{tmp_path}/ledger.db", before=before) as (_, port),
        socket.create_connection(("127.0.0.1", port), timeout=GIVE_UP_S) as slow,
    ):
        slow.sendall(
            b"POST /v1/checks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        assert slow.recv(65_536).startswith(b"HTTP/1.1 408 ")


def test_a_port_in_use_is_one_clear_line(port: int, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"port {port} of 127.0.0.1 is in use"):
        serve(f"sqlite:///{tmp_path}/ledger.db", port=port)
    assert not (tmp_path / "ledger.db").exists()


def test_a_file_that_is_no_ledger_is_reported_before_the_server_listens(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("some text" * 100)
    announcements: list[str] = []
    with pytest.raises(LedgerUnavailable):
        serve(f"sqlite:///{tmp_path}/notes.txt", port=0, announce=announcements.append)
    assert announcements == []


@pytest.mark.parametrize(
    "host",
    [
        ".".join("0000"),
        "::",
        "192.168.1.10",
        "10.0.0.1",
        "example.com",
        "",
        "127.0.0.1.evil.example",
        "::ffff:127.0.0.1",
    ],
)
def test_any_address_but_loopback_is_refused(host: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"without authentication|IP address of this machine"):
        serve(f"sqlite:///{tmp_path}/ledger.db", host, settings=WITHOUT_SIGN_IN)
    assert not (tmp_path / "ledger.db").exists()


@pytest.mark.parametrize("port", [-1, 65_536])
def test_an_invalid_port_is_refused(port: int) -> None:
    with pytest.raises(BadInput, match="from 0 to 65535"):
        free_port("127.0.0.1", port)


def test_the_server_listens_on_ipv6(tmp_path: Path) -> None:
    try:
        free_port("::1", 0)
    except BadInput:
        pytest.skip("this machine has no IPv6 loopback")
    with running(f"sqlite:///{tmp_path}/ledger.db", "::1") as (_, port):
        assert talk(port, "GET", "/healthz", host="::1")[0] == 200


def test_half_a_header_does_not_block_the_server(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=GIVE_UP_S) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        assert talk(port, "GET", "/healthz")[0] == 200
