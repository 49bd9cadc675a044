"""Ends connections that hold a place for nothing, so that a new one, such as a health check, always finds a place.

granian counts every open connection, closes one that sends no request for `api.server.HEADER_MS_MAX`, and has no limit
of time for an answer that is not read. So:

- beyond `CONNECTIONS_MAX` connections, those that wait for no answer are ended, the longest silent ones first. At most
  `REQUESTS_MAX` of them wait for an answer (`api.http.shared`), and granian accepts `ACCEPTED_MAX`;
- the kernel ends a connection whose client takes no byte of an answer for `UNREAD_MS_MAX` (Linux: TCP_USER_TIMEOUT,
  which accepted connections inherit from the listening socket).

The sockets belong to granian, so this module looks for them among the process's own file descriptors and works on
duplicates of them. Proved by tests/api/memory/.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Container, Iterator
from contextlib import suppress
from struct import Struct
from typing import Any, Final, NamedTuple

ACCEPTED_MAX: Final = 2048
CONNECTIONS_MAX: Final = 800
OTHER_FILES: Final = 256
"""File descriptors that are left to databases, logs and threads."""
UNREAD_MS_MAX: Final = 30_000
PERIOD_S: Final = 0.2
SILENT_MS_MIN: Final = 1000

_FILES: Final = "/dev/fd"
_TCP_INFO: Final = Struct("=8B13I")
_LAST_RECEIVED: Final = 8 + 11
"""Index of tcpi_last_data_recv: milliseconds since the client last sent something, or since it connected."""


class Places(NamedTuple):
    """`accepted`: connections that granian accepts. `connections`: beyond these, connections are ended that were idle
    for `SILENT_MS_MIN`; beyond `pressing` also others."""

    accepted: int
    connections: int
    pressing: int


def find_places() -> Places:
    """Raises the process's limit of open files if it is too low for `ACCEPTED_MAX` connections, as far as it may."""
    files = _files_max(ACCEPTED_MAX + OTHER_FILES)
    accepted = max(min(ACCEPTED_MAX, files - OTHER_FILES), 64)
    return Places(accepted, min(CONNECTIONS_MAX, accepted // 2), accepted * 3 // 4)


def _files_max(wanted: int) -> int:
    try:
        import resource
    except ImportError:  # Not on Windows.
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return wanted if soft == resource.RLIM_INFINITY else soft


def end_unread_answers(port: int) -> None:
    """From now on the kernel ends connections to `port` whose client reads nothing. Call it once the server listens."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is None:
        return
    for listener in _sockets(port):
        if listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            listener.setsockopt(socket.IPPROTO_TCP, option, UNREAD_MS_MAX)


async def end_idle_connections(port: int, places: Places, busy: Container[Any]) -> None:
    """Never returns. `busy`: (host, port) of the clients that wait for an answer."""
    while True:
        await asyncio.sleep(PERIOD_S)
        with suppress(OSError):
            if len(os.listdir(_FILES)) > places.connections:
                _end_idle(port, places, busy)


def _end_idle(port: int, places: Places, busy: Container[Any]) -> None:
    count = 0
    idle: list[tuple[int, socket.socket]] = []
    for connection in _sockets(port):
        with suppress(OSError):
            client = connection.getpeername()[:2]
            count += 1
            if client not in busy:
                idle.append((_silent_ms(connection), connection.dup()))
    idle.sort(key=lambda row: -row[0])
    for silent_ms, connection in idle:
        # The request of a client that was silent for less may be on its way to the event loop.
        if count > places.pressing or (count > places.connections and silent_ms >= SILENT_MS_MIN):
            count -= 1
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        connection.close()


def _silent_ms(connection: socket.socket) -> int:
    option = getattr(socket, "TCP_INFO", None)
    if option is None:
        return 0
    info = connection.getsockopt(socket.IPPROTO_TCP, option, _TCP_INFO.size)
    return int(_TCP_INFO.unpack(info)[_LAST_RECEIVED])


def _sockets(port: int) -> Iterator[socket.socket]:
    """Duplicates of this process's sockets of the local port `port`, each closed after its turn."""
    for name in os.listdir(_FILES):
        with suppress(OSError):
            number = int(name)
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            duplicate = os.dup(number)
            try:
                candidate = socket.socket(fileno=duplicate)
            except OSError:
                os.close(duplicate)
                continue
            with candidate:
                if candidate.family in (socket.AF_INET, socket.AF_INET6) and candidate.getsockname()[1] == port:
                    yield candidate
