"""Plain ASGI middleware around the application: everything that holds for requests on every path.

- the request's id: `X-Request-ID`, echoed if it is valid, else created; `traceparent` (W3C Trace Context level 1);
- HEAD as GET without the body; OPTIONS; the host names; security headers (sent by `api.http.sending`);
- the bounds of `api.http.shared`: places for requests, memory for bodies and answers (sent by `api.http.sending`);
- the last resort: an unexpected error becomes a problem without its text. The log gets the error's type and place, not
  its message, which could hold the input.

Proved by tests/api/http/test_problems.py.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from time import perf_counter
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.problem_responses import problem_response
from api.http.problems import PROBLEM_CODES, error_location
from api.http.scope import ANSWER_HEADERS, HEAD_ONLY, HELD_BODY, REQUEST_ID, TRACE_ID, allowed_methods, log_label
from api.http.sending import HSTS, SECURITY_HEADERS, AnswerNotTaken, NoRoomForAnswer, ResponseSender
from api.http.shared import HeldBody, SharedResources
from ledger.entropy import random_bytes

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
PROBES: Final = ("/healthz", "/readyz")

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")
_TRACEPARENT: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")

Observer = Callable[[Scope, int, float], None]
"""Gets a request's scope, the status of its answer (0: no answer was begun) and the seconds that it took."""

_log = logging.getLogger("inforce.api")


class RequestMiddleware:
    """`hosts`: the names that the Host header may hold; None: any. `shared`: of all requests of the process.
    `observers`: called after each request. `is_https`: whether callers use TLS. `is_local`: whether only this machine
    reaches the server; else health checks may call it by any name, as those do that know its address only."""

    def __init__(
        self,
        app: ASGIApp,
        hosts: Collection[str] | None = None,
        shared: SharedResources | None = None,
        observers: Sequence[Observer] = (),
        *,
        is_https: bool = False,
        is_local: bool = True,
    ) -> None:
        self.app = app
        self.observers = observers
        self.hosts = hosts
        self.shared = shared or SharedResources()
        self.is_local = is_local
        self.security_headers = (*SECURITY_HEADERS, HSTS) if is_https else SECURITY_HEADERS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = perf_counter()
        request_id, trace_id, hosts = _read_headers(scope)
        head_only = scope["method"] == "HEAD"
        # A copy, because granian reads the method of its own scope again when it sends the response.
        method = "GET" if head_only else scope["method"]
        held_body = HeldBody(self.shared.bodies)
        answer_headers: list[tuple[bytes, bytes]] = []
        scope = {
            **scope,
            REQUEST_ID: request_id,
            TRACE_ID: trace_id,
            HEAD_ONLY: head_only,
            HELD_BODY: held_body,
            ANSWER_HEADERS: answer_headers,
            "method": method,
        }
        sender = ResponseSender(
            send,
            request_id,
            held_body,
            self.shared.answers,
            head_only=head_only,
            security_headers=self.security_headers,
            answer_headers=answer_headers,
        )
        clients, client = self.shared.clients, scope.get("client")
        try:
            early = self._early_response(scope, hosts)
            clients.add(client)
            await (self.app if early is None else early)(scope, receive, sender.send)
        except NoRoomForAnswer:
            detail = "answers that their clients have not read yet hold all memory that answers may have"
            await problem_response(scope, "server_busy", detail)(scope, receive, sender.send)
        except AnswerNotTaken:
            _log.info("%s: ended, because the client did not read the answer in time", log_label(scope))
        except ClientDisconnect:
            # The body is incomplete, so nothing was begun. granian reports malformed chunks as a disconnect too, and
            # the client that sent them waits for an answer.
            _log.info("%s: the body ended early", log_label(scope))
            if not sender.started:
                detail = "the body ended early: its chunks are malformed (RFC 9112 section 7.1), or the client hung up"
                await problem_response(scope, "bad_request", detail)(scope, receive, sender.send)
        except Exception as error:
            _log.critical("%s: unexpected %s", log_label(scope), error_location(error))
            if sender.started:
                raise
            detail = "the server failed; its log has details under the request's id"
            await problem_response(scope, "internal_error", detail)(scope, receive, sender.send)
        finally:
            clients.discard(client)
            held_body.release()
            for observe in self.observers:
                observe(scope, sender.status, perf_counter() - began)

    def _early_response(self, scope: Scope, hosts: list[str]) -> Response | None:
        """The response that needs no route; None: the application must answer."""
        if not self.shared.has_place(scope["path"]):
            detail = f"the server answers {self.shared.requests_max} requests, which is the limit"
            return problem_response(scope, "server_busy", detail)
        if len(hosts) > 1:
            # RFC 9112 section 3.2: a proxy before this server may have looked at the other one.
            return problem_response(
                scope, "bad_request", f"a request has one Host field, and this one has {len(hosts)}"
            )
        host = hosts[0] if hosts else ""
        if (
            self.hosts is not None
            and _without_port(host) not in self.hosts
            and (self.is_local or scope["path"] not in PROBES)
        ):
            detail = "this server serves localhost, 127.0.0.1 and [::1] only"
            if not self.is_local:
                detail = "this server serves the host names of public_url and allowed_hosts, and this is another one"
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


# Few names occur. The cache is small, because one name may be as long as all headers together.
@lru_cache(8)
def _without_port(host: str) -> str:
    return re.sub(r":\d*$", "", host).lower()
