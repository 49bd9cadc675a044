"""GET /v1/events/stream sends every event once, in order, in its exact bytes, for as long as the client listens."""

import json
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from api import event_stream, service
from ledger.opening import open_ledger
from tests.api.client import GENESIS
from tests.api.server_process import new_ledger, running, talk
from tests.api.stream_client import STREAM, Sent, fill, listening, submit
from tests.support import ledgers
from tests.support.waiting import GIVE_UP_S, until


@pytest.fixture
def server(database_url: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server on each database."""
    with running(database_url) as served:
        yield served


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of one SQLite server for the whole module. Its ledger never changes."""
    with running(f"sqlite:///{tmp_path_factory.mktemp('streamed')}/ledger.db") as (_, port):
        yield port


def test_the_stream_sends_every_event_in_its_exact_bytes_and_then_new_events(
    server: tuple[subprocess.Popen[str], int], database_url: str
) -> None:
    port = server[1]
    with listening(port) as listener, open_ledger(database_url) as other:
        assert listener.answer.getheader("content-type", "").startswith("text/event-stream")
        assert listener.answer.getheader("cache-control") == "no-store"
        assert listener.answer.getheader("content-length") is None
        sent = listener.take(GENESIS)
        submit(port, "org:a", "org:b")
        sent += listener.take(2)
        # Events of another process are sent too.
        ledgers.submit(other, ledgers.change("org:c"))
        sent += listener.take(1)
        assert [one.position for one in sent] == list(range(1, GENESIS + 4))
        assert [one.data for one in sent] == [entry.leaf for entry in other.page(0)]


@pytest.mark.parametrize("after", [0, 1, GENESIS - 1, GENESIS])
def test_the_stream_begins_right_after_the_position(tmp_path: Path, after: int) -> None:
    with running(f"sqlite:///{tmp_path}/ledger.db") as (_, port), listening(port, after) as listener:
        submit(port, "org:a", "org:b")
        expected = list(range(after + 1, GENESIS + 3))
        assert [one.position for one in listener.take(len(expected))] == expected


@pytest.mark.parametrize("after", [None, 0, 3, GENESIS])
def test_the_last_event_id_wins_over_after(port: int, after: int | None) -> None:
    with listening(port, after, last_event_id=GENESIS - 2) as listener:
        assert [one.position for one in listener.take(2)] == [GENESIS - 1, GENESIS]


def test_an_empty_last_event_id_is_ignored(port: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=GIVE_UP_S)
    connection.request("GET", f"{STREAM}?after={GENESIS - 1}", headers={"Last-Event-ID": ""})
    answer = connection.getresponse()
    lines = [answer.readline() for _ in range(4)]
    assert lines[3] == f"id: {GENESIS}\n".encode()
    connection.close()


@pytest.mark.parametrize(
    ("query", "header"),
    [
        ("?after=x", None),
        ("?after=-1", None),
        ("?nope=1", None),
        ("?limit=3", None),
        ("", "x"),
        ("", "-1"),
        ("", "1 2"),
    ],
)
def test_an_unreadable_parameter_is_a_problem(port: int, query: str, header: str | None) -> None:
    headers = {} if header is None else {"Last_Event_ID": header}
    status, answered, body = talk(port, "GET", STREAM + query, **headers)
    assert (status, answered["content-type"]) == (422, "application/problem+json")
    problem = json.loads(body)
    assert problem["code"] == "bad_parameter"
    assert problem["errors"][0]["in"] == ("query" if header is None else "header")


@pytest.mark.parametrize(("query", "header"), [(f"?after={GENESIS + 1}", None), ("", str(GENESIS + 1))])
def test_a_position_beyond_the_head_is_a_problem(port: int, query: str, header: str | None) -> None:
    headers = {} if header is None else {"Last_Event_ID": header}
    status, _, body = talk(port, "GET", STREAM + query, **headers)
    assert (status, json.loads(body)["code"], json.loads(body)["head"]) == (409, "ahead_of_ledger", GENESIS)


def test_head_and_options_and_other_methods(port: int) -> None:
    status, headers, body = talk(port, "HEAD", STREAM)
    assert (status, body) == (200, b"")
    assert headers["content-type"].startswith("text/event-stream")
    assert "content-length" not in headers
    assert talk(port, "OPTIONS", STREAM)[1]["allow"] == "GET, HEAD, OPTIONS"
    status, headers, body = talk(port, "POST", STREAM, "{}")
    assert (status, headers["allow"], json.loads(body)["code"]) == (405, "GET, HEAD, OPTIONS", "method_not_allowed")


def test_the_stream_sends_comments_while_there_are_no_events(tmp_path: Path) -> None:
    before = "import api.event_stream\napi.event_stream.PING_S = 0.05\n"
    with running(f"sqlite:///{tmp_path}/ledger.db", before=before) as (_, port), listening(port, GENESIS) as listener:
        listener.wait_for_comments(8)
        submit(port, "org:a")
        assert listener.take(1)[0].position == GENESIS + 1


def test_a_client_that_reconnects_again_and_again_gets_every_event_once(
    server: tuple[subprocess.Popen[str], int],
    database_url: str,
    record_property: Callable[[str, object], None],
    request: pytest.FixtureRequest,
) -> None:
    """Two servers record while a client follows and disconnects at random, even in the middle of an event."""
    seed = random.randrange(2**32) if request.config.getoption("--search") else 1
    chance = random.Random(seed)
    batches = 60
    received: list[Sent] = []
    with running(database_url) as (_, other_port), ExitStack() as ending:

        def record(port: int, name: str) -> None:
            for number in range(batches):
                submit(port, *(f"org:{name}.{number}.{n}" for n in range(1 + number % 3)))

        writers = [
            threading.Thread(target=record, args=(port, name)) for port, name in ((server[1], "a"), (other_port, "b"))
        ]
        for writer in writers:
            writer.start()
            ending.callback(writer.join)
        last = GENESIS + 2 * sum(1 + number % 3 for number in range(batches))
        connections = 0
        while not received or received[-1].position < last:
            connections += 1
            port = server[1] if chance.random() < 0.5 else other_port
            with listening(port, 0, received[-1].position if received else None) as listener:
                received += listener.take(
                    min(chance.randrange(0, 40), last - (received[-1].position if received else 0))
                )
                if chance.random() < 0.5:
                    listener.answer.read1(chance.randrange(1, 500)) if received and received[
                        -1
                    ].position < last else None
    assert [one.position for one in received] == list(range(1, last + 1)), f"seed {seed}"
    with open_ledger(database_url) as ledger:
        leaves: list[bytes] = []
        while page := ledger.page(len(leaves)):
            leaves += [entry.leaf for entry in page]
    assert [one.data for one in received] == leaves, f"seed {seed}"
    name = database_url.partition(":")[0]
    record_property(
        "figure", f"stream on {name}: {last} events over {connections} connections, each once (seed {seed})"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_streams_end_cleanly_when_the_server_stops(tmp_path: Path, number: signal.Signals) -> None:
    with running(new_ledger(tmp_path)) as (process, port), ExitStack() as stack:
        listeners = [stack.enter_context(listening(port, GENESIS)) for _ in range(5)]
        process.send_signal(number)
        assert [listener.next() for listener in listeners] == [None] * 5
        out, err = process.communicate(timeout=GIVE_UP_S)
        # A client that has to be cut off would be on standard error.
        assert (process.returncode, out, err) == (0, "", "")


SAYS_WHEN_A_CLIENT_TAKES_NO_MORE = """
import asyncio, pathlib
import api.server
from api import event_stream

api.server.STOP_SECONDS_MAX = 1

async def send_and_tell(send, block, send_block=event_stream._send):
    told = asyncio.get_running_loop().call_later(0.5, pathlib.Path({file!r}).touch)
    try:
        await send_block(send, block)
    finally:
        told.cancel()

event_stream._send = send_and_tell
"""
"""Before the server starts: it makes a file once a block has waited for its client."""


def test_a_client_that_reads_nothing_does_not_keep_the_server_from_stopping(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    fill(url, 20_000)
    full = tmp_path / "full"
    before = SAYS_WHEN_A_CLIENT_TAKES_NO_MORE.format(file=str(full))
    with running(url, before=before) as (process, port), stalled(port):
        until(full.exists)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=GIVE_UP_S)
        assert (process.returncode, out) == (0, "")
        assert err == "WARNING inforce.api a client read no response for 1 s after the stop and was cut off\n"


@contextmanager
def stalled(port: int) -> Iterator[socket.socket]:
    """A client that requests the stream and reads nothing."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.sendall(f"GET {STREAM} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        yield client


def test_clients_that_come_and_go_leave_nothing_behind(
    server: tuple[subprocess.Popen[str], int], database_url: str
) -> None:
    process, port = server
    folder = Path(f"/proc/{process.pid}")
    if not folder.exists():
        pytest.skip("only Linux lists the threads and files of a process")

    def held() -> tuple[int, int]:
        return len(list((folder / "task").iterdir())), len(list((folder / "fd").iterdir()))

    for number in range(8):
        submit(port, f"org:{number}")
        talk(port, "GET", "/v1/events")
    before, _ = held()

    def follow() -> None:
        with ExitStack() as stack:
            listeners = [stack.enter_context(listening(port, GENESIS)) for _ in range(40)]
            position = submit(port, "org:a")
            for listener in listeners:
                assert listener.take(position - GENESIS)[-1].position == position
            assert held()[0] <= before + service.READERS + 1, (
                "one thread watches for all streams; readers start when needed"
            )
            assert talk(port, "GET", "/v1/catalog")[0] == 200
            if database_url.startswith("postgresql"):
                assert len(following(database_url)) == 1
        if database_url.startswith("postgresql"):
            until(lambda: not following(database_url))

    follow()
    # Start all readers and all connections of the pool, which then stay.
    with ThreadPoolExecutor(30) as pool:
        list(pool.map(lambda _: talk(port, "GET", "/v1/subjects/org:a/state"), range(300)))
    time.sleep(0.5)
    threads, files = held()
    for _ in range(3):
        follow()
    # A leak of 40 streams would exceed the margin; one more reader or connection is within it.
    until(lambda: held()[0] <= threads + 2)
    until(lambda: held()[1] <= files + 3)


def following(url: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as admin:
        return admin.execute(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'inforce follow'"
        ).fetchall()


def test_the_number_of_open_streams_is_limited(tmp_path: Path) -> None:
    before = "import api.event_stream\napi.event_stream.OpenStreams.__init__.__defaults__ = (2,)\n"
    with running(f"sqlite:///{tmp_path}/ledger.db", before=before) as (_, port):
        with listening(port) as first, listening(port):
            status, headers, body = talk(port, "GET", STREAM)
            assert (status, json.loads(body)["code"]) == (503, "too_many_streams")
            assert int(headers["retry-after"]) > 0
            first.close()
            until(lambda: talk(port, "HEAD", STREAM)[0] == 200)
        until(lambda: talk(port, "HEAD", STREAM)[0] == 200)


def test_the_largest_number_of_streams_leaves_connections_for_other_clients(port: int) -> None:
    with ExitStack() as stack:
        for _ in range(event_stream.STREAMS_MAX):
            stack.enter_context(listening(port, GENESIS))
        assert talk(port, "GET", STREAM)[0] == 503
        for path in ("/healthz", "/readyz", "/v1/catalog"):
            assert talk(port, "GET", path)[0] == 200
    until(lambda: talk(port, "HEAD", STREAM)[0] == 200)


def test_an_unavailable_ledger_is_a_problem_for_a_new_stream_and_a_pause_for_an_open_one(
    postgres_url: str, postgres_server_url: str
) -> None:
    name = urlsplit(postgres_url).path.removeprefix("/")
    before = "import api.event_stream\napi.event_stream.PING_S = 0.1\n"
    with (
        psycopg.connect(postgres_server_url, autocommit=True) as admin,
        running(postgres_url, before=before) as (_, port),
        listening(port, GENESIS) as listener,
    ):
        submit(port, "org:a")
        assert listener.take(1)[0].position == GENESIS + 1
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        status, headers, body = talk(port, "GET", STREAM)
        assert (status, json.loads(body)["code"]) == (503, "ledger_unavailable")
        assert int(headers["retry-after"]) > 0
        assert name not in body.decode()
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        with suppress(ConnectionError):
            until(lambda: talk(port, "GET", "/readyz")[0] == 200)
        position = submit(port, "org:b")
        assert [one.position for one in listener.take(1)] == [position]
