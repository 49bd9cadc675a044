"""How a call is declared: its path, what it takes and answers, and which problems it may answer with.

An endpoint gets the bare request and gives the finished response, so a call costs what a plain Starlette route costs
(FastAPI's own reading and writing of bodies costs a third more, and would forgive what `strict_json` does not), while
FastAPI still writes OpenAPI from the declaration.
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
from api.http.problems import MEDIA_TYPE, PROBLEM_CODES, RETRY_AFTER_SECONDS
from api.responses import encode
from api.schemas import RESPONSE_EXAMPLES, Problem, ref
from api.service import Service

Endpoint = Callable[[Request], Awaitable[Response]]

JSON: Final = "application/json"
COMMON_PROBLEMS: Final = ("internal_error", "host_not_served")
LEDGER_PROBLEMS: Final = ("ledger_unavailable", "ledger_corrupt")
AT_LEAST_PROBLEMS: Final = ("bad_parameter", "position_not_reached", *LEDGER_PROBLEMS)
"""Of a call that takes `at_least`."""


class EncodedResponse(Response):
    """JSON that is written already. The same as `Response` makes of it, at a third of the price."""

    media_type = JSON

    def __init__(self, body: bytes, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
        """`headers`: further ones, their names in lower case."""
        self.status_code = status
        self.background = None
        self.body = body
        self.raw_headers = [(b"content-length", b"%d" % len(body)), _CONTENT_TYPE, *headers]


_CONTENT_TYPE: Final = (b"content-type", JSON.encode())


class BareRoute(APIRoute):
    """Hands the request to the endpoint as it is: FastAPI's documented hook for that is `get_route_handler`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return cast(Callable[[Request], Coroutine[Any, Any, Response]], self.endpoint)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.methods is None or scope["method"] not in self.methods:
            # That says so.
            await super().handle(scope, receive, send)
            return
        # Without the stacks of contexts that FastAPI's dependencies close, and without catching errors here and again
        # around the router.
        response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


class ExactPathRouter:
    """Finds a call whose path has no parameters without asking one route after the other. Whatever else is asked for
    goes `otherwise`, which is around the router."""

    def __init__(self, router: Router, otherwise: ASGIApp) -> None:
        self._otherwise = otherwise
        self._plain = {
            (method, route.path): route
            for route in router.routes
            if isinstance(route, BareRoute) and not route.param_convertors
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._plain.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None:
            await self._otherwise(scope, receive, send)
            return
        scope["route"] = route
        await route.handle(scope, receive, send)


@dataclass(frozen=True, kw_only=True)
class RouteSpec:
    """A call as it is declared; its summary and description are the endpoint's docstring.

    `response_models`: the response is one of these; empty if it has no body. `request_models`: the JSON body is one of
    these; or `request_media_types`: the media types of a body in another format. `problems`: keys of `PROBLEM_CODES`.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
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

    def route(self) -> BareRoute:
        summary, _, description = (self.endpoint.__doc__ or "").partition("\n")
        json_response = _answer(self.response_models, self.media_type, self.headers)
        return BareRoute(
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
            responses={self.status: json_response, **_problems((*self.problems, *COMMON_PROBLEMS))},
            openapi_extra=self._extra(),
        )

    def _extra(self) -> dict[str, Any]:
        extra: dict[str, Any] = {}
        if self.parameters:
            extra["parameters"] = [parameter.openapi() for parameter in self.parameters]
        if self.request_models:
            content = {"schema": _one_of(self.request_models), "examples": dict(self.examples)}
            extra["requestBody"] = {"required": True, "content": {JSON: content}}
        elif self.request_media_types:
            extra["requestBody"] = {
                "required": True,
                "content": {media_type: {} for media_type in self.request_media_types},
            }
        return extra


def _one_of(models: tuple[type[BaseModel], ...]) -> dict[str, Any]:
    refs = [ref(model) for model in models]
    return refs[0] if len(refs) == 1 else {"oneOf": refs}


def _answer(models: tuple[type[BaseModel], ...], media_type: str, headers: Mapping[str, Any]) -> dict[str, Any]:
    if not models:
        return {"description": "Done."}
    content: dict[str, Any] = {"schema": _one_of(models)}
    examples = {model.__name__: {"value": RESPONSE_EXAMPLES[model]} for model in models if model in RESPONSE_EXAMPLES}
    if examples:
        content["examples"] = examples
    json_response: dict[str, Any] = {"description": _first_line(models[0]), "content": {media_type: content}}
    if headers:
        json_response["headers"] = dict(headers)
    return json_response


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or model.__name__).partition("\n")[0]


def _problems(codes: Iterable[str]) -> dict[int | str, dict[str, Any]]:
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
            **_retry_after(of_status),
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


def _retry_after(codes: list[str]) -> dict[str, Any]:
    if not any(code in RETRY_AFTER_SECONDS for code in codes):
        return {}
    schema = {"type": "integer", "minimum": 0}
    return {"headers": {"Retry-After": {"description": "Seconds to wait before the next attempt.", "schema": schema}}}


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def json_response(value: Any) -> Response:
    return EncodedResponse(encode(value))


async def wait_for_position(request: Request, at_least: int) -> None:
    """Returns once the ledger has reached the position `at_least`. Raises `PositionNotReached`."""
    if at_least:
        await service_of(request).wait_for_position(at_least, request.receive)


async def answer_off_loop(request: Request, question: Callable[[], Any], at_least: int = 0) -> Response:
    """The answer to a question that writes nothing, asked and written out off the event loop, and not before the
    ledger has reached the position `at_least`. The request's body, if it has one, was read before."""
    await wait_for_position(request, at_least)
    body = await service_of(request).ask(lambda: encode(question()))
    return EncodedResponse(body)
