"""The keys that the request middleware adds to the ASGI scope, and functions that read the scope."""

from __future__ import annotations

from typing import Final

from starlette.types import Scope

REQUEST_ID: Final = "inforce.request_id"
TRACE_ID: Final = "inforce.trace_id"
HEAD_ONLY: Final = "inforce.head"
"""Key of a bool: the client wants the head of the response only."""
HELD_BODY: Final = "inforce.held_body"
"""Key of the `HeldBody` of the request."""


def request_id_of(scope: Scope) -> str:
    """The request's id: the client's own if it is valid, else one that the middleware created."""
    return str(scope.get(REQUEST_ID, "none"))


def log_label(scope: Scope) -> str:
    """Method, route template and ids of the request, for the log. Never the path itself: it holds subjects."""
    route = scope.get("route")
    call = f"{scope.get('method', '?')} {getattr(route, 'path_format', 'no route')}"
    trace_id = scope.get(TRACE_ID)
    return f"{call} request={request_id_of(scope)}" + (f" trace={trace_id}" if trace_id else "")


def allowed_methods(scope: Scope) -> list[str]:
    """Every method of the path, over all its routes; empty for an unknown path. A single route knows only its own."""
    methods: set[str] = set()
    for route in scope["app"].routes:
        if route.path_regex.match(scope["path"]):
            methods |= route.methods or set()
    if "GET" in methods:
        methods.add("HEAD")
    return sorted(methods | {"OPTIONS"}) if methods else []
