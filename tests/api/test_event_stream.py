"""GET /v1/events/stream: every event once, in order, in its exact bytes, for as long as somebody listens."""

import asyncio
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
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psycopg
import pytest
from starlette.types import Message

from api import event_stream as streaming
from api import service
from api.app import create_app
from api.service import Service
from ledger.opening import open_ledger
from tests.api.client import GENESIS, changed
from tests.api.server_process import running, talk
from tests.support import ledgers

STREAM = "/v1/events/stream"


class Sent(NamedTuple):
    position: int
    data: bytes


class Listener:
    """One connection to the stream. `comments` counts the lines that are none of an event's."""

    def __init__(self, port: int, after: int | None = None, last_event_id: int | None = None) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=30)
        headers = {} if last_event_id is None else {"Last-Event-ID": str(last_event_id)}
        self._connection.request("GET", STREAM if after is None else f"{STREAM}?after={after}", headers=headers)
        self.answer = self._connection.getresponse()
        self.comments = 0

    def next(self) -> Sent | None:
        """The next event; None where the stream ends."""
        position: int | None = None
        data: bytes | None = None
        while line := self.answer.readline():
            if line == b"\n" and position is not None and data is not None:
                return Sent(position, data)
            name, _, value = line.rstrip(b"\n").partition(b": ")
            if name == b"id":
                position = int(value)
            elif name == b"data":
                assert data is None, "an event is one line"
                data = value
            else:
                assert name in (b"", b"retry"), line
                self.comments += 1
        return None

    def take(self, count: int) -> list[Sent]:
        taken = [self.next() for _ in range(count)]
        assert None not in taken
        return [sent for sent in taken if sent is not None]

    def close(self) -> None:
        self.answer.close()
        self._connection.close()


@contextmanager
def listening(port: int, after: int | None = None, last_event_id: int | None = None) -> Iterator[Listener]:
    listener = Listener(port, after, last_event_id)
    try:
        assert listener.answer.status == 200, listener.answer.read()
        yield listener
    finally:
        listener.close()


def submit(port: int, *subjects: str) -> int:
    """The position of the last event."""
    events = [changed(subject, "training.opt_in", True) for subject in subjects]
    status, _, body = talk(port, "POST", "/v1/events", json.dumps({"events": events}))
    assert status == 201, body
    position: int = json.loads(body)["position"]
    return position


def until(condition: Callable[[], Any], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


@pytest.fixture
def server(database_url: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """On each database."""
    with running(database_url) as served:
        yield served


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of a server on SQLite for the whole module, whose ledger stays as it began."""
    with running(f"sqlite:///{tmp_path_factory.mktemp('streamed')}/ledger.db") as (_, port):
        yield port


def test_every_event_comes_in_its_exact_bytes_and_then_whatever_is_recorded(
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
        # What another process records comes too.
        ledgers.submit(other, ledgers.change("org:c"))
        sent += listener.take(1)
        assert [one.position for one in sent] == list(range(1, GENESIS + 4))
        assert [one.data for one in sent] == [entry.leaf for entry in other.page(0)]


@pytest.mark.parametrize("after", [0, 1, GENESIS - 1, GENESIS, GENESIS + 1])
def test_it_begins_right_behind_the_position(tmp_path: Path, after: int) -> None:
    with running(f"sqlite:///{tmp_path}/ledger.db") as (_, port), listening(port, after) as listener:
        submit(port, "org:a", "org:b")
        wanted = list(range(after + 1, GENESIS + 3))
        assert [one.position for one in listener.take(len(wanted))] == wanted


@pytest.mark.parametrize("after", [None, 0, 3, GENESIS])
def test_the_last_event_id_wins_over_after(port: int, after: int | None) -> None:
    with listening(port, after, last_event_id=GENESIS - 2) as listener:
        assert [one.position for one in listener.take(2)] == [GENESIS - 1, GENESIS]


def test_an_empty_last_event_id_is_none(port: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
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
def test_what_cannot_be_read_is_a_problem(port: int, query: str, header: str | None) -> None:
    headers = {} if header is None else {"Last_Event_ID": header}
    status, answered, body = talk(port, "GET", STREAM + query, **headers)
    assert (status, answered["content-type"]) == (422, "application/problem+json")
    told = json.loads(body)
    assert told["code"] == "bad_parameter"
    assert told["errors"][0]["in"] == ("query" if header is None else "header")


def test_head_and_options_and_other_methods(port: int) -> None:
    status, headers, body = talk(port, "HEAD", STREAM)
    assert (status, body) == (200, b"")
    assert headers["content-type"].startswith("text/event-stream")
    assert "content-length" not in headers
    assert talk(port, "OPTIONS", STREAM)[1]["allow"] == "GET, HEAD, OPTIONS"
    status, headers, body = talk(port, "POST", STREAM, "{}")
    assert (status, headers["allow"], json.loads(body)["code"]) == (405, "GET, HEAD, OPTIONS", "method_not_allowed")


def test_comments_come_when_nothing_else_does(tmp_path: Path) -> None:
    before = "import api.event_stream\napi.event_stream.PING_S = 0.05\n"
    with running(f"sqlite:///{tmp_path}/ledger.db", before=before) as (_, port), listening(port, GENESIS) as listener:
        time.sleep(1)
        submit(port, "org:a")
        assert listener.take(1)[0].position == GENESIS + 1
        assert listener.comments > 8


def test_a_client_that_connects_again_and_again_gets_every_event_once(
    server: tuple[subprocess.Popen[str], int], database_url: str, record_property: Callable[[str, object], None]
) -> None:
    """Two servers record and a third connection follows, cut off at random: in the middle of an event, too."""
    seed = random.randrange(2**32)
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
def test_streams_end_cleanly_when_the_server_is_told_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    with running(f"sqlite:///{tmp_path}/ledger.db") as (process, port), ExitStack() as stack:
        listeners = [stack.enter_context(listening(port, GENESIS)) for _ in range(5)]
        began = time.monotonic()
        process.send_signal(number)
        assert [listener.next() for listener in listeners] == [None] * 5
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (0, "", "")
        assert time.monotonic() - began < 5


def test_a_client_that_takes_nothing_does_not_keep_the_server_from_stopping(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    fill(url, 20_000)
    before = "import api.server\napi.server.STOP_SECONDS_MAX = 1\n"
    with running(url, before=before) as (process, port), stalled(port):
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, "")
        assert err == "WARNING inforce.api a client read no response for 1 s after the stop and was cut off\n"


def fill(url: str, events: int) -> None:
    with open_ledger(url, create=True) as ledger:
        for batch in range(events // 1000):
            ledgers.submit(ledger, *(ledgers.change(f"org:{batch}.{number}") for number in range(1000)))


@contextmanager
def stalled(port: int) -> Iterator[socket.socket]:
    """A client that asks for the stream and reads nothing of it."""
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
        pytest.skip("only Linux tells which threads and files a process has")

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
            assert held()[0] <= before + service.READERS + 1, "one watches for all; readers begin when they are needed"
            assert talk(port, "GET", "/v1/catalog")[0] == 200
            if database_url.startswith("postgresql"):
                assert len(following(database_url)) == 1
        if database_url.startswith("postgresql"):
            until(lambda: not following(database_url))

    follow()
    # What once is begun stays: readers, and connections of the pool.
    with ThreadPoolExecutor(30) as pool:
        list(pool.map(lambda _: talk(port, "GET", "/v1/subjects/org:a/state"), range(300)))
    time.sleep(0.5)
    threads, files = held()
    for _ in range(3):
        follow()
    # A leak of 40 streams' would show; a reader or a connection more would be the pools'.
    until(lambda: held()[0] <= threads + 2)
    until(lambda: held()[1] <= files + 3)


def following(url: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as admin:
        return admin.execute(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'inforce follow'"
        ).fetchall()


def test_no_more_than_so_many_streams_are_open(tmp_path: Path) -> None:
    before = "import api.event_stream\napi.event_stream.OpenStreams.__init__.__defaults__ = (2,)\n"
    with running(f"sqlite:///{tmp_path}/ledger.db", before=before) as (_, port):
        with listening(port) as first, listening(port):
            status, headers, body = talk(port, "GET", STREAM)
            assert (status, json.loads(body)["code"]) == (503, "too_many_streams")
            assert int(headers["retry-after"]) > 0
            first.close()
            until(lambda: talk(port, "HEAD", STREAM)[0] == 200)
        until(lambda: talk(port, "HEAD", STREAM)[0] == 200)


def test_as_many_streams_as_there_may_be_leave_room_for_everybody_else(port: int) -> None:
    with ExitStack() as stack:
        for _ in range(streaming.STREAMS_MAX):
            stack.enter_context(listening(port, GENESIS))
        assert talk(port, "GET", STREAM)[0] == 503
        for path in ("/healthz", "/readyz", "/v1/catalog"):
            assert talk(port, "GET", path)[0] == 200
    until(lambda: talk(port, "HEAD", STREAM)[0] == 200)


class Client:
    """What a server would be to the application: takes as many messages as it is allowed to."""

    def __init__(self, takes: int) -> None:
        self.taken: list[Message] = []
        self.gone = asyncio.Event()
        self._takes = asyncio.Semaphore(takes)

    async def send(self, message: Message) -> None:
        await self._takes.acquire()
        self.taken.append(message)

    def allow(self, takes: int) -> None:
        for _ in range(takes):
            self._takes.release()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    def positions(self) -> list[int]:
        text = b"".join(message.get("body", b"") for message in self.taken).decode()
        return [int(line.removeprefix("id: ")) for line in text.splitlines() if line.startswith("id: ")]


@contextmanager
def served(url: str) -> Iterator[tuple[Service, Callable[[Client], Any]]]:
    opened = Service.open(url)
    app = create_app(opened)
    app.state.service = opened

    async def call(client: Client) -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "path": STREAM,
            "raw_path": STREAM.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [],
        }
        await app(scope, client.receive, client.send)

    try:
        yield opened, call
    finally:
        opened.close()


def test_nothing_is_read_that_the_client_does_not_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    fill(url, 3000)
    pages: list[int] = []
    with served(url) as (open_service, call):
        read = open_service.ledger.page

        def counted(after: int, limit: int) -> Any:
            pages.append(after)
            return read(after, limit)

        monkeypatch.setattr(open_service.ledger, "page", counted)

        async def follow() -> None:
            client = Client(takes=2)
            streamed = asyncio.create_task(call(client))
            for allowed in range(1, 6):
                await asyncio.sleep(0.1)
                # The answer's head and so many pages are taken; the one that waits to be taken is read.
                assert len(pages) == allowed + 1
                assert client.positions() == list(range(1, allowed * streaming.PAGE_EVENTS + 1))
                client.allow(1)
            client.gone.set()
            client.allow(100)
            await asyncio.wait_for(streamed, 5)

        asyncio.run(follow())


def test_all_who_wait_for_the_next_event_share_one_look_at_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[int] = []
    with served(f"sqlite:///{tmp_path}/ledger.db") as (open_service, call):
        read = open_service.ledger.page

        def counted(after: int, limit: int) -> Any:
            pages.append(after)
            return read(after, limit)

        monkeypatch.setattr(open_service.ledger, "page", counted)

        async def follow() -> None:
            clients = [Client(takes=1000) for _ in range(50)]
            streamed = [asyncio.create_task(call(client)) for client in clients]
            for number in range(1, 11):
                await asyncio.to_thread(ledgers.submit, open_service.ledger, ledgers.change())
                for client in clients:
                    while len(client.positions()) < GENESIS + number:
                        await asyncio.sleep(0.001)
            for client in clients:
                client.gone.set()
            await asyncio.wait_for(asyncio.gather(*streamed), 10)
            assert [client.positions() for client in clients] == [list(range(1, GENESIS + 11))] * 50

        asyncio.run(follow())
    assert len(pages) < 50, "once for all at the beginning and at each event, give or take"


def test_a_client_that_takes_nothing_for_long_loses_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "SEND_S_MAX", 0.1)
    monkeypatch.setattr(streaming, "LAST_SEND_S_MAX", 0.1)
    with served(f"sqlite:///{tmp_path}/ledger.db") as (open_service, call):
        began = time.monotonic()
        asyncio.run(call(Client(takes=1)))
        assert 0.1 < time.monotonic() - began < 5
        assert not open_service.ledger.follower._following


def test_a_ledger_that_does_not_answer_is_a_problem_first_and_a_pause_later(
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
        time.sleep(1)
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        with suppress(ConnectionError):
            until(lambda: talk(port, "GET", "/readyz")[0] == 200, 30)
        position = submit(port, "org:b")
        assert [one.position for one in listener.take(1)] == [position]
