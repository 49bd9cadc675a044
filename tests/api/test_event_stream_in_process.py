"""Event streams without a server in between: the test decides when the client takes the next message."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from api import event_stream
from api.app import create_app
from api.gate import Gate
from api.service import Service
from ledger.diagnosis import acknowledge_head
from tests.api.client import GENESIS
from tests.api.stream_client import STREAM, fill
from tests.support import ledgers
from tests.support.going_back import delete_tail
from tests.support.ledgers import OPERATOR
from tests.support.waiting import GIVE_UP_S


class Client:
    """Stands for the server: takes as many messages from the application as the test allows."""

    def __init__(self, takes: int) -> None:
        self.events: list[Message] = []
        self.gone = asyncio.Event()
        self._takes = asyncio.Semaphore(takes)

    async def send(self, message: Message) -> None:
        await self._takes.acquire()
        self.events.append(message)

    def allow(self, takes: int) -> None:
        for _ in range(takes):
            self._takes.release()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    def positions(self) -> list[int]:
        text = b"".join(message.get("body", b"") for message in self.events).decode()
        return [int(line.removeprefix("id: ")) for line in text.splitlines() if line.startswith("id: ")]


@contextmanager
def served(url: str) -> Iterator[tuple[Service, Callable[[Client], Any]]]:
    opened = Service.open(url)
    app = create_app(opened, sign_in=False)
    # Without its lifespan, which TestClient would run.
    app.state.service = opened
    app.state.gate = Gate(None, opened.ask, app.state.metrics.add_sign_in)

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


def test_the_stream_reads_no_faster_than_its_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    fill(url, 3000)
    pages: list[int] = []
    with served(url) as (open_service, call):
        read = open_service.ledger.page

        def counted(after: int, limit: int, **bounds: int) -> Any:
            pages.append(after)
            return read(after, limit, **bounds)

        monkeypatch.setattr(open_service.ledger, "page", counted)

        async def follow() -> None:
            client = Client(takes=2)
            streamed = asyncio.create_task(call(client))
            for allowed in range(1, 6):
                await asyncio.sleep(0.1)
                # The client has the headers and `allowed` pages; one more page is read and waits to be sent.
                assert len(pages) == allowed + 1
                assert client.positions() == list(range(1, allowed * event_stream.PAGE_EVENTS + 1))
                client.allow(1)
            client.gone.set()
            client.allow(100)
            await asyncio.wait_for(streamed, 5)

        asyncio.run(follow())


def test_streams_that_wait_for_the_next_event_share_one_read_of_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[int] = []
    with served(f"sqlite:///{tmp_path}/ledger.db") as (open_service, call):
        read = open_service.ledger.page

        def counted(after: int, limit: int, **bounds: int) -> Any:
            pages.append(after)
            return read(after, limit, **bounds)

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
            await asyncio.wait_for(asyncio.gather(*streamed), GIVE_UP_S)
            assert [client.positions() for client in clients] == [list(range(1, GENESIS + 11))] * 50

        asyncio.run(follow())
    assert len(pages) < 50, "about one read for all streams at the beginning and at each event"


def test_a_client_that_reads_nothing_for_long_is_disconnected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "SEND_S_MAX", 0.1)
    monkeypatch.setattr(event_stream, "LAST_SEND_S_MAX", 0.1)
    with served(f"sqlite:///{tmp_path}/ledger.db") as (open_service, call):
        began = time.monotonic()
        asyncio.run(asyncio.wait_for(call(Client(takes=1)), GIVE_UP_S))
        assert time.monotonic() - began > 0.1
        assert not open_service.ledger.follower._watchers


@pytest.mark.parametrize("regrown", [False, True])
def test_a_stream_ends_when_the_ledger_went_back_behind_what_it_sent(
    database_url: str, regrown: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With an end the client asks again, and gets 409; without one it would miss what takes the lost positions."""
    monkeypatch.setattr(event_stream, "PING_S", 0.05)
    ledger, clock = ledgers.open_with_clock(database_url, time.time_ns() // 1000)
    with ledger:
        for _ in range(3):
            ledgers.submit(ledger, ledgers.change())
    sent = list(range(1, GENESIS + 4))

    async def follow(service: Service, call: Callable[[Client], Any]) -> Client:
        client = Client(takes=1000)
        following = asyncio.create_task(call(client))
        async with asyncio.timeout(GIVE_UP_S):
            while client.positions() != sent:
                await asyncio.sleep(0.01)
            if regrown:
                # As if it happened between two reads of the stream: other events stand at its position, and behind it.
                read, pause = service.ask, asyncio.Event()

                async def paused(question: Callable[[], Any]) -> Any:
                    await pause.wait()
                    return await read(question)

                monkeypatch.setattr(service, "ask", paused)
                await asyncio.to_thread(lose_and_regrow, database_url, clock.now_us)
                pause.set()
            else:
                await asyncio.to_thread(delete_tail, database_url, GENESIS + 1)
            await following
        return client

    with served(database_url) as (service, call):
        client = asyncio.run(follow(service, call))
    assert client.positions() == sent
    assert client.events[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert any("ended: ahead_of_ledger" in record.message for record in caplog.records)


def lose_and_regrow(url: str, now: int) -> None:
    delete_tail(url, GENESIS + 1)
    operator, _ = ledgers.open_with_clock(url, now)
    with operator:
        acknowledge_head(operator, "the tail is lost", OPERATOR)
        ledgers.submit(operator, ledgers.change("org:other"))
        assert operator.head().position == GENESIS + 4
