"""`inforce serve`: the application on granian, on a loopback address.

There is no authentication yet, so any other address is refused, and so is a Host header with any other name (a web
page could have its own name lead to 127.0.0.1). One process, one worker: questions are answered by its threads.
granian cuts slow and large headers by itself; `api.http.bodies` cuts slow and large bodies.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Final

from fastapi import FastAPI
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server

from api.app import create_app
from api.audits.service import AuditSettings
from api.http.middleware import LOOPBACK_NAMES
from api.service import Service
from ledger.errors import BadInput

HOST: Final = "127.0.0.1"
PORT: Final = 8000
HEADER_BYTES_MAX: Final = 65_536
HEADER_MS_MAX: Final = 10_000
CONNECTIONS_MAX: Final = 800
"""At once, those that nothing is asked on included: with granian's own 128, as many idle clients shut everybody out.
Streams and waiting questions take up to 384 of them (`api.event_stream`, `api.service`)."""
STOP_SECONDS_MAX: Final = 10
"""How long a request that is being answered may take to end when the server is told to stop."""

_log = logging.getLogger("inforce.api")


def serve(
    source: str,
    host: str = HOST,
    port: int = PORT,
    *,
    audits: AuditSettings | None = None,
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serves the ledger at the database URL `source` until SIGINT or SIGTERM, then ends what is being answered.

    `port` 0: any free one. `announce` gets the one line that says where the server listens, once it does; None: it is
    printed. Raises `BadInput` for an address that is not loopback or is taken, and what opening a ledger raises.
    """
    address = loopback(host)
    port = free_port(address, port)
    service = Service.open(source, audits=audits)
    try:
        shown = f"[{address}]" if ":" in address else address
        run_app(create_app(service, hosts=LOOPBACK_NAMES | {shown}), address, port, announce)
    finally:
        service.close()


def run_app(app: FastAPI, address: str, port: int, announce: Callable[[str], None] | None = None) -> None:
    """Serves an application as `serve` does, at an address and a port that are free."""
    with asyncio.Runner(loop_factory=_event_loop()) as runner:
        runner.run(_run(app, address, port, announce or partial(print, flush=True)))


def _event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed (it is made for no other systems than these); None: asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def loopback(host: str) -> str:
    """The address that `host` stands for. Raises `BadInput` unless it is one of this machine's own loopback."""
    if host == "localhost":
        return HOST
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if address is None or not address.is_loopback or getattr(address, "ipv4_mapped", None):
        raise BadInput(
            "without authentication, which is still to come, the server listens on this machine only: "
            "localhost, 127.0.0.1 or ::1"
        )
    return str(address)


def free_port(address: str, port: int) -> int:
    """`port`, or a free one for 0. Raises `BadInput` where it cannot be had.

    granian shares its port with whoever asks for sharing, another inforce too, so it is tried here without sharing.
    """
    if not 0 <= port <= 65_535:
        raise BadInput("a port is a number from 0 to 65535")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
            return int(probe.getsockname()[1])
    except OSError as error:
        why = "is taken by another program" if error.errno == 98 else f"cannot be had ({error.strerror})"
        raise BadInput(f"port {port} of {address} {why}; name another with --port") from None


async def _run(app: FastAPI, address: str, port: int, announce: Callable[[str], None]) -> None:
    server = Server(
        app,
        address=address,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        backlog=CONNECTIONS_MAX,
        backpressure=CONNECTIONS_MAX,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_MS_MAX, max_buffer_size=HEADER_BYTES_MAX),
        log_level=LogLevels.error,
    )
    server.workers_kill_timeout = STOP_SECONDS_MAX

    def stop() -> None:
        # They would not end by themselves.
        app.state.streams.end()
        server.stop()  # type: ignore[no-untyped-call]  # granian's is not annotated

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    serving = asyncio.create_task(server.serve())
    if await _listens(serving, address, port):
        shown = f"[{address}]" if ":" in address else address
        announce(f"inforce listens on http://{shown}:{port}")
    try:
        await serving
    except TimeoutError:
        _log.warning("a client took no answer for %s s after the stop and was cut off", STOP_SECONDS_MAX)
        # It would report what is cut off now as a failure of the application, with its traceback.
        logging.getLogger("_granian").disabled = True


async def _listens(serving: asyncio.Task[None], address: str, port: int) -> bool:
    """Waits until somebody can connect; granian does not say when. False: the server ended before."""
    while not serving.done():
        try:
            _, writer = await asyncio.open_connection(address, port)
        except OSError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return True
    return False
