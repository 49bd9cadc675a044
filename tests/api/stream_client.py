"""A client of GET /v1/events/stream, and helpers for its tests."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import NamedTuple

from ledger.opening import open_ledger
from tests.api.client import changed
from tests.api.server_process import talk
from tests.support import ledgers
from tests.support.waiting import GIVE_UP_S

STREAM = "/v1/events/stream"


class Sent(NamedTuple):
    position: int
    data: bytes


class Listener:
    """One connection to the stream. `comments` counts the lines that belong to no event."""

    def __init__(self, port: int, after: int | None = None, last_event_id: int | None = None) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=GIVE_UP_S)
        headers = {} if last_event_id is None else {"Last-Event-ID": str(last_event_id)}
        self._connection.request("GET", STREAM if after is None else f"{STREAM}?after={after}", headers=headers)
        self.answer = self._connection.getresponse()
        self.comments = 0

    def next(self) -> Sent | None:
        """The next event; None if the stream ended."""
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

    def wait_for_comments(self, count: int) -> None:
        """Reads until so many lines that belong to no event have come. No event may come before them."""
        while self.comments < count:
            assert self.answer.readline().rstrip(b"\n").partition(b": ")[0] in (b"", b"retry")
            self.comments += 1

    def take(self, count: int) -> list[Sent]:
        events = [self.next() for _ in range(count)]
        assert None not in events
        return [sent for sent in events if sent is not None]

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
    """Returns the position of the last event."""
    events = [changed(subject, "training.opt_in", True) for subject in subjects]
    status, _, body = talk(port, "POST", "/v1/events", json.dumps({"events": events}))
    assert status == 201, body
    position: int = json.loads(body)["position"]
    return position


def fill(url: str, events: int) -> None:
    with open_ledger(url, create=True) as ledger:
        for batch in range(events // 1000):
            ledgers.submit(ledger, *(ledgers.change(f"org:{batch}.{number}") for number in range(1000)))
