"""`inforce serve`: the application on granian, at an address and with the TLS that `api.network` allows.

One process with one worker, whose threads answer the questions.
granian limits slow and large headers; `api.http.bodies` limits slow and large bodies, `api.http.sending` and
`api.connections` answers that are not read, and `api.http.shared` the number of requests and their memory.
Proved by tests/api/test_server.py.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server

from api.app import Application, create_app
from api.audits.service import AuditSettings
from api.connections import end_idle_connections, end_unread_answers, find_places
from api.first_token import WITHOUT_SIGN_IN, first_lines
from api.http.logs import GRANIAN_LOGGERS, LogSettings, catch_stray_errors, logging_to_stderr
from api.network import Listening, NetworkSettings, plan
from api.readiness import ReadyBounds
from api.service import CLOCK_BOUNDS, READY_BOUNDS, ClockBounds, Service
from api.sign_in import SIGN_IN_SETTINGS, SignInSettings
from api.tracing import tracer_provider
from ledger.errors import BadInput
from ledger.transparency.note import SigningKey

PORT: Final = 8000
HEADER_BYTES_MAX: Final = 65_536
HEADER_MS_MAX: Final = 10_000
STOP_SECONDS_MAX: Final = 10
"""How long running requests may take to end once the server stops."""

_log = logging.getLogger("inforce.api")


class ServerSettings(NamedTuple):
    """`signing_keys`: sign the log's checkpoints; none: there is no log."""

    audits: AuditSettings = AuditSettings()
    clock_bounds: ClockBounds = CLOCK_BOUNDS
    ready_bounds: ReadyBounds = READY_BOUNDS
    logs: LogSettings = LogSettings()
    network: NetworkSettings = NetworkSettings()
    tracing: bool = False
    """Whether spans of requests are sent by OTLP."""
    signing_keys: Sequence[SigningKey] = ()
    sign_in: SignInSettings = SIGN_IN_SETTINGS


SERVER_SETTINGS: Final = ServerSettings()


def serve(
    source: str,
    host: str | None = None,
    port: int = PORT,
    *,
    settings: ServerSettings = SERVER_SETTINGS,
    must_exist: bool = False,
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serves the ledger at the database URL `source` until SIGINT or SIGTERM, then finishes the running requests.

    `host`: instead of that of the settings. `port` 0: any free port. `must_exist`: no ledger is created. `announce`
    gets the lines about the server's address, once it listens, and about signing in; None: they are printed. Raises
    `BadInput` for an address, a port or a file that cannot be used, and the errors of opening a ledger.
    """
    with logging_to_stderr(settings.logs):
        network = settings.network if host is None else settings.network._replace(host=host)
        listening = plan(network)
        port = free_port(listening.address, port)
        provider = tracer_provider() if settings.tracing else None
        service = Service.open(
            source,
            audits=settings.audits,
            must_exist=must_exist,
            clock_bounds=settings.clock_bounds,
            ready_bounds=settings.ready_bounds,
            signing_keys=settings.signing_keys,
        )
        try:
            signs_in = network.signs_in
            lines = first_lines(service, bool(settings.sign_in.issuers)) if signs_in else [WITHOUT_SIGN_IN]
            app = create_app(
                service,
                listening=listening,
                access_log=settings.logs.access,
                sign_in=signs_in,
                sign_in_settings=settings.sign_in,
                tracing=provider,
            )
            run_app(app, listening, port, announce, lines)
        finally:
            service.close()
            if provider is not None:
                provider.shutdown()


def run_app(
    app: Application,
    listening: Listening,
    port: int,
    announce: Callable[[str], None] | None = None,
    lines: Sequence[str] = (),
) -> None:
    """Serves an application as `serve` does, at a free address and port. `lines`: announced behind the address."""
    with asyncio.Runner(loop_factory=_event_loop()) as runner:
        runner.run(_run(app, listening, port, announce or partial(print, flush=True), lines))


def _event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's event loop if it is installed, which depends on the system; None: asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def free_port(address: str, port: int) -> int:
    """`port`, or a free port for 0. Raises `BadInput` if the port cannot be used.

    granian shares its port with other processes that allow it, such as another inforce, so this binds it without
    sharing first.
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
        why = "is in use by another program" if error.errno == 98 else f"cannot be used ({error.strerror})"
        raise BadInput(f"port {port} of {address} {why}; choose another with --port") from None


async def _run(
    app: Application, listening: Listening, port: int, announce: Callable[[str], None], lines: Sequence[str]
) -> None:
    places = find_places()
    address = listening.address
    cert, key = listening.tls or (None, None)
    server = Server(
        app,
        address=address,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        backlog=places.accepted,
        backpressure=places.accepted,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_MS_MAX, max_buffer_size=HEADER_BYTES_MAX),
        log_level=LogLevels.error,
        log_dictconfig=GRANIAN_LOGGERS,
        ssl_cert=cert,
        ssl_key=key,
    )
    server.workers_kill_timeout = STOP_SECONDS_MAX

    def stop() -> None:
        # Streams do not end by themselves, and granian would wait for them.
        app.state.streams.end()
        server.stop()  # type: ignore[no-untyped-call]  # granian's is not annotated

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    catch_stray_errors(loop)
    serving = asyncio.create_task(server.serve())
    if await _listens(serving, address, port):
        end_unread_answers(port)
        tidying = asyncio.create_task(end_idle_connections(port, places, app.shared.clients))
        serving.add_done_callback(lambda _: tidying.cancel())
        for line in (f"inforce listens on {listening.url(port)}", *lines):
            announce(line)
    try:
        await serving
    except TimeoutError:
        _log.warning("a client read no response for %s s after the stop and was cut off", STOP_SECONDS_MAX)
        # granian would now report the cut connections as failures of the application, each with a traceback.
        logging.getLogger("_granian").disabled = True


async def _listens(serving: asyncio.Task[None], address: str, port: int) -> bool:
    """Waits until a connection succeeds, because granian does not report when it listens. False: the server ended
    before."""
    while not serving.done():
        try:
            _, writer = await asyncio.open_connection(address, port)
        except OSError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return True
    return False
