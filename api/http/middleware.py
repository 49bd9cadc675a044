"""What holds for every request, whatever its path: plain ASGI around the application.

The request's id (`X-Request-ID`, echoed when it is sane, else made up) and trace (`traceparent`, W3C Trace Context
level 1); HEAD as GET without the body; OPTIONS; the loopback names; headers that every answer carries; and the last
resort: an unexpected error becomes a problem without its text, and the log gets its type and place, not its message,
which could hold the input.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.places import error_location
from api.http.problems import HEAD, REQUEST_ID, TRACE_ID, allowed_methods, problem, where
from ledger.entropy import fresh

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")
_TRACEPARENT: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")

_log = logging.getLogger("inforce.api")


class RequestMiddleware:
    """`hosts`: the names in the Host header that are answered; None: any."""

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None = None) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id, trace_id, host = _read_headers(scope)
        head = scope["method"] == "HEAD"
        # A copy: the server looks at its own scope's method again when the answer goes out.
        method = "GET" if head else scope["method"]
        scope = {**scope, REQUEST_ID: request_id, TRACE_ID: trace_id, HEAD: head, "method": method}
        started = False

        async def send_on(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": _with_ours(message["headers"], request_id)}
            elif head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            early = self._early(scope, host)
            await (self.app if early is None else early)(scope, receive, send_on)
        except ClientDisconnect:
            # Before the body was all there, so nothing was begun, and nobody is left to be answered.
            _log.info("%s: the caller hung up", where(scope))
        except Exception as error:
            _log.critical("%s: unexpected %s", where(scope), error_location(error))
            if started:
                raise
            detail = "the server failed; its log says more under the request's id"
            await problem(scope, "internal_error", detail)(scope, receive, send_on)

    def _early(self, scope: Scope, host: str) -> Response | None:
        if self.hosts is not None and _without_port(host) not in self.hosts:
            return problem(scope, "host_not_served", "this server answers to localhost, 127.0.0.1 and [::1] only")
        if scope["method"] != "OPTIONS":
            return None
        allowed = allowed_methods(scope)
        if not allowed:
            return problem(scope, "no_such_path", "no call has this path; GET /openapi.json lists them all")
        return Response(status_code=204, headers={"Allow": ", ".join(allowed)})


def _read_headers(scope: Scope) -> tuple[str, str | None, str]:
    request_id, trace_id, host = "", None, ""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            request_id = value.decode("ascii")
        elif name == b"traceparent" and (match := _TRACEPARENT.fullmatch(value)):
            trace_id = match[1].decode("ascii")
        elif name == b"host":
            host = value.decode("latin-1")
    return request_id or fresh(16).hex(), trace_id, host


def _with_ours(headers: Iterable[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    """`headers`, whose names are in lower case, with those that every answer carries."""
    # Every request pays for this, so it is one pass over plain pairs.
    found: list[tuple[bytes, bytes]] = []
    cached = False
    for header in headers:
        name = header[0]
        if name == b"cache-control":
            cached = True
        elif name in _OURS:
            continue
        found.append(header)
    found.append((b"x-request-id", request_id.encode("ascii")))
    if not cached:
        found.append((b"cache-control", b"no-store"))
    found.append((b"x-content-type-options", b"nosniff"))
    return found


_OURS: Final = (b"x-request-id", b"x-content-type-options")


# A server is asked for by a few names. Small, because a name may take all that headers may.
@lru_cache(8)
def _without_port(host: str) -> str:
    return re.sub(r":\d*$", "", host).lower()
