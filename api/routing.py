"""How a route is declared, and the fast path to it.

An endpoint gets the bare request and returns the finished response, so a call costs what a plain Starlette route costs.
FastAPI's own reading and writing of bodies costs a third more, and would accept JSON that `strict_json` refuses.
FastAPI still writes the OpenAPI document from the declarations.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.parameters import Parameter
from api.http.problem_responses import MEDIA_TYPE
from api.http.problems import PROBLEM_CODES, RETRY_AFTER_SECONDS
from api.http.scope import CALLER
from api.responses import encode
from api.schemas.base import ref
from api.schemas.examples import RESPONSE_EXAMPLES
from api.schemas.responses import Problem
from api.service import Service
from projections.access.rights import Caller, Need

Endpoint = Callable[[Request], Awaitable[Response]]

JSON: Final = "application/json"
NOT_WRITABLE_PROBLEMS: Final = ("clock_behind", "ledger_went_back")
COMMON_PROBLEMS: Final = ("internal_error", "host_not_served", "server_busy")
LEDGER_PROBLEMS: Final = ("ledger_unavailable", "ledger_corrupt")
AT_LEAST_PROBLEMS: Final = ("bad_parameter", "position_not_reached", *LEDGER_PROBLEMS)
"""Problems of a route with the parameter `at_least`."""


class EncodedResponse(Response):
    """A response whose JSON is already encoded. Sends what `Response` sends, at a third of the cost."""

    media_type = JSON

    def __init__(self, body: bytes, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
        """`headers`: further ones, with lower-case names."""
        self.status_code = status
        self.background = None
        self.body = body
        self.raw_headers = [(b"content-length", b"%d" % len(body)), _CONTENT_TYPE, *headers]


_CONTENT_TYPE: Final = (b"content-type", JSON.encode())


class BareRoute(APIRoute):
    """Passes the request to the endpoint unchanged, through FastAPI's documented hook `get_route_handler`, once the
    gate has let it in: `need` is set by `RouteSpec.route`."""

    need: Need

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return cast(Callable[[Request], Coroutine[Any, Any, Response]], self.endpoint)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.methods is None or scope["method"] not in self.methods:
            # The base class answers 405.
            await super().handle(scope, receive, send)
            return
        _name_span(scope, self.path_format)
        # Skips the exit stacks of FastAPI's dependencies, and error handling that the application does anyway.
        if self.need is not Need.OPEN:
            await scope["app"].state.gate.enter(scope, self.need)
        response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


def _name_span(scope: Scope, route: str) -> None:
    """Names the span that FastAPI began for this request, if it did, as its own routes do."""
    telemetry = scope.get("fastapi.telemetry")
    if telemetry is not None:
        telemetry.route = route
        if telemetry.span is not None:
            telemetry.span.set_attribute("http.route", route)
            telemetry.span.update_name(f"{telemetry.span_method} {route}")


class ExactPathRouter:
    """Finds a route whose path has no parameters with one dict lookup. Passes every other request to `fallback`, which
    wraps the router."""

    def __init__(self, router: Router, fallback: ASGIApp) -> None:
        self._fallback = fallback
        self._routes = {
            (method, route.path): route
            for route in router.routes
            if isinstance(route, BareRoute) and not route.param_convertors
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None:
            await self._fallback(scope, receive, send)
            return
        scope["route"] = route
        await route.handle(scope, receive, send)


@dataclass(frozen=True, kw_only=True)
class RouteSpec:
    """The declaration of a route. The endpoint's docstring is its summary and description.

    `response_models`: the response is one of these; empty if it has no body. `request_models`: the JSON body is one of
    these; or `request_media_types`: the media types of a body in another format. `problems`: keys of `PROBLEM_CODES`.
    `need`: the right without which no request gets to the endpoint.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    need: Need
    endpoint: Endpoint
    tag: str
    response_models: tuple[type[BaseModel], ...]
    status: int = 200
    media_type: str = JSON
    headers: Mapping[str, Any] = field(default_factory=dict)
    parameters: tuple[Parameter, ...] = ()
    request_models: tuple[type[BaseModel], ...] = ()
    request_media_types: tuple[str, ...] = ()
    examples: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = LEDGER_PROBLEMS

    def models(self) -> tuple[type[BaseModel], ...]:
        """Every model that the OpenAPI document of this route refers to."""
        return (*self.request_models, *self.response_models, Problem)

    def route(self) -> BareRoute:
        summary, _, description = (self.endpoint.__doc__ or "").partition("\n")
        response = _response_json(self.response_models, self.media_type, self.headers)
        route = BareRoute(
            self.path,
            self.endpoint,
            methods=[self.method],
            status_code=self.status,
            tags=[self.tag],
            summary=summary.strip(),
            description=" ".join(description.split()),
            operation_id=getattr(self.endpoint, "__name__", "call"),
            response_model=None,
            response_class=Response,
            responses={self.status: response, **_problems_json(self._all_problems())},
            openapi_extra=self._extra(),
        )
        route.need = self.need
        return route

    def _all_problems(self) -> tuple[str, ...]:
        signing_in = ("not_signed_in", "rate_limited", "sign_in_unavailable", *LEDGER_PROBLEMS)
        by_need = {Need.OPEN: (), Need.SIGNED_IN: signing_in}
        access = by_need.get(self.need, ("forbidden", *signing_in))
        return tuple(dict.fromkeys((*self.problems, *access, *COMMON_PROBLEMS)))

    def _extra(self) -> dict[str, Any]:
        extra: dict[str, Any] = {"x-inforce-need": self.need.value}
        if self.need is not Need.OPEN:
            extra["security"] = [{"token": []}]
        if self.parameters:
            extra["parameters"] = [parameter.openapi() for parameter in self.parameters]
        content: dict[str, Any] = {media_type: {} for media_type in self.request_media_types}
        if self.request_models:
            content[JSON] = {"schema": _one_of(self.request_models), "examples": dict(self.examples)}
        if content:
            extra["requestBody"] = {"required": True, "content": content}
        return extra


def _one_of(models: tuple[type[BaseModel], ...]) -> dict[str, Any]:
    refs = [ref(model) for model in models]
    return refs[0] if len(refs) == 1 else {"oneOf": refs}


def _response_json(models: tuple[type[BaseModel], ...], media_type: str, headers: Mapping[str, Any]) -> dict[str, Any]:
    if not models:
        return {"description": "Done."}
    content: dict[str, Any] = {"schema": _one_of(models)}
    examples = {model.__name__: {"value": RESPONSE_EXAMPLES[model]} for model in models if model in RESPONSE_EXAMPLES}
    if examples:
        content["examples"] = examples
    response: dict[str, Any] = {"description": _first_line(models[0]), "content": {media_type: content}}
    if headers:
        response["headers"] = dict(headers)
    return response


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or model.__name__).partition("\n")[0]


def _problems_json(codes: Iterable[str]) -> dict[int | str, dict[str, Any]]:
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(PROBLEM_CODES[code].status, []).append(code)
    return {
        status: {
            "description": "; ".join(f"`{code}`: {PROBLEM_CODES[code].title}" for code in of_status),
            "content": {
                MEDIA_TYPE: {
                    "schema": ref(Problem),
                    "examples": {code: {"value": _problem_example(code)} for code in of_status},
                }
            },
            **_headers_json(of_status),
        }
        for status, of_status in sorted(by_status.items())
    }


def _problem_example(code: str) -> dict[str, Any]:
    kind = PROBLEM_CODES[code]
    return {
        "type": f"/problems/{code}",
        "title": kind.title,
        "status": kind.status,
        "detail": kind.meaning,
        "instance": "urn:inforce:request:4bf92f3577b34da6a3ce929d0e0e4736",
        "code": code,
    }


def _headers_json(codes: list[str]) -> dict[str, Any]:
    if not any(code in RETRY_AFTER_SECONDS for code in codes):
        return {}
    schema = {"type": "integer", "minimum": 0}
    headers = {"Retry-After": {"description": "Seconds to wait before the next attempt.", "schema": schema}}
    return {"headers": headers | (_RATE_LIMIT_HEADERS if "rate_limited" in codes else {})}


_RATE_LIMIT_HEADERS: Final = {
    "RateLimit-Policy": {
        "description": 'The limit: its name, requests (`q`) and window in seconds (`w`), as `"principal";q=600;w=60`.',
        "schema": {"type": "string"},
    },
    "RateLimit": {
        "description": 'What is left: requests (`r`), and seconds to the next window (`t`), as `"principal";r=9;t=60`. '
        "Answers other than 429 have both headers, too.",
        "schema": {"type": "string"},
    },
}


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def caller_of(request: Request) -> Caller:
    """The caller that the gate let in."""
    caller: Caller = request.scope[CALLER]
    return caller


async def still_admitted(request: Request, need: Need) -> Caller:
    """The caller, whose token still holds and has the right after its body arrived, however long that took. Raises
    `RequestRefused` and `LedgerUnavailable`."""
    caller: Caller = await request.app.state.gate.admit(request.scope, need, again=True)
    return caller


def json_response(value: Any) -> Response:
    return EncodedResponse(encode(value))


async def wait_for_position(request: Request, at_least: int) -> None:
    """Returns once the ledger has reached the position `at_least`. Raises `PositionNotReached`."""
    if at_least:
        await service_of(request).wait_for_position(at_least, request.receive)


async def answer_off_loop(request: Request, question: Callable[[], Any], at_least: int = 0) -> Response:
    """Runs `question`, which writes nothing, and encodes its result in a thread, once the ledger has reached the
    position `at_least`. The request's body, if there is one, must have been read before."""
    await wait_for_position(request, at_least)
    body = await service_of(request).ask(lambda: encode(question()))
    return EncodedResponse(body)
