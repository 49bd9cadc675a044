"""The server process of a bench: the server of `inforce serve`, with what only a measurement wants.

`python -m scripts.bench.serving URL [GROUP]`. GROUP: the most submissions that share a commit. Beside the API there are
two routes that answer a constant, which production has not. Ends when its standard input does, so that it cannot
outlive whoever started it.
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
from api.http.middleware import LOOPBACK_NAMES
from api.server import HOST, free_port, run_app
from api.service import Service
from scripts.bench.server import ENDING

CONSTANT: Final = "/bench/constant"
BARE: Final = "/bench/bare"
_ANSWER: Final = {"verdict": "allowed", "position": 42, "reasons": []}


async def constant() -> dict[str, Any]:
    return _ANSWER


async def bare(_request: Request) -> JSONResponse:
    return JSONResponse(_ANSWER)


def main(url: str, group: int | None) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    service = Service.open(url)
    if group is not None:
        service.ledger.writer.group_max = group
    try:
        app = create_app(service, hosts=LOOPBACK_NAMES)
        app.add_api_route(CONSTANT, constant)
        app.router.routes.append(Route(BARE, bare))
        # In front, so that finding them costs no more than finding what they are compared with.
        app.router.routes[:0] = [app.router.routes.pop(), app.router.routes.pop()]
        threading.Thread(target=_end_with_input, daemon=True).start()
        run_app(app, HOST, free_port(HOST, 0))
    finally:
        service.close()


def _end_with_input() -> None:
    # Not through sys.stdin, whose lock a thread that still reads would take into the end of the interpreter.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None)
