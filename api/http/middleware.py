"""Plain ASGI middleware around the application: everything that holds for requests on every path.

- the request's id: `X-Request-ID`, echoed if it is valid, else created; `traceparent` (W3C Trace Context level 1);
- HEAD as GET without the body; OPTIONS; the loopback host names; the headers that every response carries;
- the last resort: an unexpected error becomes a problem without its text. The log gets the error's type and place, not
  its message, which could hold the input.

Proved by tests/api/http/test_problems.py.
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

from api.http.problem_responses import problem_response
from api.http.problems import PROBLEM_CODES, error_location
from api.http.scope import HEAD_ONLY, REQUEST_ID, TRACE_ID, allowed_methods, log_label
from ledger.entropy import random_bytes

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")
_TRACEPARENT: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")

_log = logging.getLogger("inforce.api")


class RequestMiddleware:
    """`hosts`: the names that the Host header may hold; None: any."""

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None = None) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id, trace_id, hosts = _read_headers(scope)
        head_only = scope["method"] == "HEAD"
        # A copy, because granian reads the method of its own scope again when it sends the response.
        method = "GET" if head_only else scope["method"]
        scope = {**scope, REQUEST_ID: request_id, TRACE_ID: trace_id, HEAD_ONLY: head_only, "method": method}
        started = False

        async def send_on(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": _with_common_headers(message["headers"], request_id)}
            elif head_only and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            early = self._early_response(scope, hosts)
            await (self.app if early is None else early)(scope, receive, send_on)
        except ClientDisconnect:
            # The body is incomplete, so nothing was begun. granian reports malformed chunks as a disconnect too, and
            # the client that sent them waits for an answer.
            _log.info("%s: the body ended early", log_label(scope))
            if not started:
                detail = "the body ended early: its chunks are malformed (RFC 9112 section 7.1), or the client hung up"
                await problem_response(scope, "bad_request", detail)(scope, receive, send_on)
        except Exception as error:
            _log.critical("%s: unexpected %s", log_label(scope), error_location(error))
            if started:
                raise
            detail = "the server failed; its log has details under the request's id"
            await problem_response(scope, "internal_error", detail)(scope, receive, send_on)

    def _early_response(self, scope: Scope, hosts: list[str]) -> Response | None:
        """The response that needs no route; None: the application must answer."""
        if len(hosts) > 1:
            # RFC 9112 section 3.2: a proxy before this server may have looked at the other one.
            return problem_response(
                scope, "bad_request", f"a request has one Host field, and this one has {len(hosts)}"
            )
        host = hosts[0] if hosts else ""
        if self.hosts is not None and _without_port(host) not in self.hosts:
            detail = "this server serves localhost, 127.0.0.1 and [::1] only"
            return problem_response(scope, "host_not_served", detail)
        if scope["method"] != "OPTIONS":
            return None
        allowed = allowed_methods(scope)
        if not allowed:
            return problem_response(scope, "no_such_path", PROBLEM_CODES["no_such_path"].meaning)
        return Response(status_code=204, headers={"Allow": ", ".join(allowed)})


def _read_headers(scope: Scope) -> tuple[str, str | None, list[str]]:
    """(request id, trace id, the Host fields)."""
    request_id, trace_id, hosts = "", None, []
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            request_id = value.decode("ascii")
        elif name == b"traceparent" and (match := _TRACEPARENT.fullmatch(value)):
            trace_id = match[1].decode("ascii")
        elif name == b"host":
            hosts.append(value.decode("latin-1"))
    return request_id or random_bytes(16).hex(), trace_id, hosts


def _with_common_headers(headers: Iterable[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    """`headers`, with lower-case names, and those that every response carries."""
    # One pass over plain pairs, because every request pays for this.
    result: list[tuple[bytes, bytes]] = []
    has_cache_control = False
    for header in headers:
        name = header[0]
        if name == b"cache-control":
            has_cache_control = True
        elif name in _REPLACED:
            continue
        result.append(header)
    result.append((b"x-request-id", request_id.encode("ascii")))
    if not has_cache_control:
        result.append((b"cache-control", b"no-store"))
    result.append((b"x-content-type-options", b"nosniff"))
    return result


_REPLACED: Final = (b"x-request-id", b"x-content-type-options")


# Few names occur. The cache is small, because one name may be as long as all headers together.
@lru_cache(8)
def _without_port(host: str) -> str:
    return re.sub(r":\d*$", "", host).lower()
