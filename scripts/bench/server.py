"""The server process of a bench: the server of `inforce serve`, with two additions for measurements.

Run as `python -m scripts.bench.server URL [GROUP_MAX]`. GROUP_MAX limits how many submissions share a commit. Two
more routes answer a constant; production does not have them. The process ends when its standard input ends, so that it
cannot outlive a bench that was killed. Proved by tests/bench/test_ledgers.py.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from api.app import create_app
from api.network import HOST, NetworkSettings, plan
from api.server import free_port, run_app
from api.service import Service
from scripts.bench.processes import ENDING

CONSTANT: Final = "/bench/constant"
BARE: Final = "/bench/bare"
_CONTENT: Final = {"verdict": "allowed", "position": 42, "reasons": []}


async def constant() -> dict[str, Any]:
    return _CONTENT


async def bare(_request: Request) -> JSONResponse:
    return JSONResponse(_CONTENT)


def main(url: str, group_max: int | None) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    service = Service.open(url)
    if group_max is not None:
        service.ledger.writer.group_max = group_max
    try:
        listening = plan(NetworkSettings(signs_in=False))
        app = create_app(service, listening=listening, sign_in=False)
        app.add_api_route(CONSTANT, constant)
        app.router.routes.append(Route(BARE, bare))
        # First in the list, so that the router finds them at least as fast as the routes that they are compared with.
        app.router.routes[:0] = [app.router.routes.pop(), app.router.routes.pop()]
        threading.Thread(target=_end_with_input, daemon=True).start()
        run_app(app, listening, free_port(HOST, 0))
    finally:
        service.close()


def _end_with_input() -> None:
    # Not sys.stdin: this thread would hold its lock when the interpreter ends.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None)
