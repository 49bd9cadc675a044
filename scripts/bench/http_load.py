"""Sends load to a server over keep-alive connections, each with one request under way at a time.

Bare sockets, because on a machine with few cores the cost of an HTTP client would be measured with the server.
"""

from __future__ import annotations

import selectors
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from time import perf_counter
from typing import Final, NamedTuple

from api.network import HOST
from ledger.errors import LedgerUnavailable

_HEAD_END: Final = b"\r\n\r\n"
_SILENCE_SECONDS_MAX: Final = 60.0
_CHUNK: Final = 1 << 18


class LoadResult(NamedTuple):
    """`seconds`: of each request, from sending it to the last byte of its response. `wall`: of the whole load."""

    seconds: list[float]
    wall: float
    statuses: Counter[int]
    last: bytes
    """The body of the last response."""


class _Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=_SILENCE_SECONDS_MAX)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = bytearray()
        self.sent_at = 0.0
        self.length: int | None = None

    def send(self, request: bytes) -> None:
        self.received.clear()
        self.length = None
        self.sent_at = perf_counter()
        self.socket.sendall(request)

    def receive(self) -> bool:
        """Reads the available bytes. True at the end of the response. Raises `LedgerUnavailable`."""
        chunk = self.socket.recv(_CHUNK)
        if not chunk:
            raise LedgerUnavailable("the server under measurement closed a connection")
        self.received += chunk
        if self.length is None:
            end = self.received.find(_HEAD_END)
            if end < 0:
                return False
            self.length = end + len(_HEAD_END) + _content_length(bytes(self.received[:end]))
        return len(self.received) >= self.length

    @property
    def status(self) -> int:
        return int(self.received[9:12])

    @property
    def body(self) -> bytes:
        return bytes(self.received.partition(_HEAD_END)[2])


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise LedgerUnavailable("the server under measurement sent a response without Content-Length")


def post(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + _HEAD_END + body


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}".encode() + _HEAD_END


def send_load(port: int, connections: int, requests: Iterable[bytes], *, seconds: float | None = None) -> LoadResult:
    """Sends each request as soon as one of `connections` is free, until `requests` end or `seconds` have passed.

    Waits for the responses that are then under way. Raises `LedgerUnavailable` if the server is silent for a minute.
    """
    waiting = iter(requests)
    latencies: list[float] = []
    statuses: Counter[int] = Counter()
    last = b""
    with selectors.DefaultSelector() as selector:
        open_ = [_Connection(port) for _ in range(connections)]
        try:
            began = perf_counter()
            until = None if seconds is None else began + seconds
            busy = 0
            for connection in open_:
                selector.register(connection.socket, selectors.EVENT_READ, connection)
                busy += _send_next(connection, waiting)
            ended = began
            while busy:
                ready = selector.select(_SILENCE_SECONDS_MAX)
                if not ready:
                    raise LedgerUnavailable("the server under measurement has not responded for a minute")
                for key, _ in ready:
                    connection = key.data
                    if not connection.receive():
                        continue
                    ended = perf_counter()
                    latencies.append(ended - connection.sent_at)
                    statuses[connection.status] += 1
                    last = connection.body
                    if (until is not None and ended >= until) or not _send_next(connection, waiting):
                        busy -= 1
            return LoadResult(latencies, ended - began, statuses, last)
        finally:
            for connection in open_:
                connection.socket.close()


def _send_next(connection: _Connection, waiting: Iterator[bytes]) -> bool:
    request = next(waiting, None)
    if request is not None:
        connection.send(request)
    return request is not None


def require_status(load: LoadResult, status: int) -> None:
    """Raises `LedgerUnavailable` unless every response had this status: other responses cost something else."""
    if set(load.statuses) != {status}:
        counts = ", ".join(f"{count} times {other}" for other, count in sorted(load.statuses.items()))
        raise LedgerUnavailable(f"the server should respond with {status} and responded with {counts or 'nothing'}")
