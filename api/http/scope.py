"""The keys that the request middleware adds to the ASGI scope, and functions that read the scope."""

from __future__ import annotations

from typing import Final

from starlette.types import Scope

REQUEST_ID: Final = "inforce.request_id"
TRACE_ID: Final = "inforce.trace_id"
HEAD_ONLY: Final = "inforce.head"
"""Key of a bool: the client wants the head of the response only."""
CALLER: Final = "inforce.caller"
"""Key of the `Caller` of the request, once the gate has let it in."""
HELD_BODY: Final = "inforce.held_body"
"""Key of the `HeldBody` of the request."""
ANSWER_HEADERS: Final = "inforce.answer_headers"
"""Key of a list of headers, with lower-case names, that the answer gets, a problem too."""
PROBLEM: Final = "inforce.problem"
"""Key of the code of the problem that the request was answered with, if it was."""
NO_ROUTE: Final = "no route"
KNOWN_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"))


def request_id_of(scope: Scope) -> str:
    """The request's id: the client's own if it is valid, else one that the middleware created."""
    return str(scope.get(REQUEST_ID, "none"))


class RequestLabel(str):
    """Method, route template and ids of a request as one text, and each of them for a log in JSON."""

    method: str
    route: str
    request_id: str
    trace_id: str | None

    @property
    def call(self) -> str:
        return f"{self.method} {self.route}"


def log_label(scope: Scope) -> RequestLabel:
    """Names the request in the log. Never by its path or an invented method: these hold what the client likes."""
    method = scope.get("method", "?")
    method = "HEAD" if scope.get(HEAD_ONLY) else method if method in KNOWN_METHODS else "?"
    route, request_id = route_template(scope), request_id_of(scope)
    trace_id = scope.get(TRACE_ID)
    label = RequestLabel(f"{method} {route} request={request_id}" + (f" trace={trace_id}" if trace_id else ""))
    label.method, label.route, label.request_id, label.trace_id = method, route, request_id, trace_id
    return label


def route_template(scope: Scope) -> str:
    """The route's path with the names of its parameters, never the path itself: it holds subjects."""
    return str(getattr(scope.get("route"), "path_format", NO_ROUTE))


def allowed_methods(scope: Scope) -> list[str]:
    """Every method of the path, over all its routes; empty for an unknown path. A single route knows only its own."""
    methods: set[str] = set()
    for route in scope["app"].routes:
        if route.path_regex.match(scope["path"]):
            methods |= route.methods or set()
    if "GET" in methods:
        methods.add("HEAD")
    return sorted(methods | {"OPTIONS"}) if methods else []
