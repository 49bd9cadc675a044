"""How a call is declared: its path, what it takes and answers, and which problems it may answer with.

An endpoint gets the bare request and gives the finished response, so a call costs what a plain Starlette route costs
(FastAPI's own reading and writing of bodies costs a third more, and would forgive what `strict_json` does not), while
FastAPI still writes OpenAPI from the declaration.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final, cast

from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from api.answers import encode
from api.parameters import Parameter
from api.problems import KINDS, MEDIA_TYPE, RETRY_AFTER_SECONDS
from api.schemas import ANSWER_EXAMPLES, Problem, ref
from api.service import Service

Endpoint = Callable[[Request], Awaitable[Response]]

JSON: Final = "application/json"
ALWAYS: Final = ("internal_error", "host_not_served")
ASKS_LEDGER: Final = ("ledger_unavailable", "ledger_corrupt")


class BareRoute(APIRoute):
    """Hands the request to the endpoint as it is: FastAPI's documented hook for that is `get_route_handler`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return cast(Callable[[Request], Coroutine[Any, Any, Response]], self.endpoint)


def call(
    method: str,
    path: str,
    endpoint: Endpoint,
    *,
    tag: str,
    answers: Iterable[type[BaseModel]],
    status: int = 200,
    media_type: str = JSON,
    parameters: Iterable[Parameter] = (),
    takes: Iterable[type[BaseModel]] = (),
    examples: dict[str, Any] | None = None,
    problems: Iterable[str] = ASKS_LEDGER,
    headers: dict[str, Any] | None = None,
) -> BareRoute:
    """A route; its summary and description are the endpoint's docstring."""
    summary, _, description = (endpoint.__doc__ or "").partition("\n")
    extra: dict[str, Any] = {}
    shown = [parameter.openapi() for parameter in parameters]
    if shown:
        extra["parameters"] = shown
    sent = [ref(model) for model in takes]
    if sent:
        content = {"schema": sent[0] if len(sent) == 1 else {"oneOf": sent}, "examples": examples or {}}
        extra["requestBody"] = {"required": True, "content": {JSON: content}}
    responses: dict[int | str, dict[str, Any]] = {status: _answer(tuple(answers), media_type, headers)}
    responses |= _problems((*problems, *ALWAYS))
    return BareRoute(
        path,
        endpoint,
        methods=[method],
        status_code=status,
        tags=[tag],
        summary=summary.strip(),
        description=" ".join(description.split()),
        operation_id=getattr(endpoint, "__name__", "call"),
        response_model=None,
        response_class=Response,
        responses=responses,
        openapi_extra=extra,
    )


def _answer(models: tuple[type[BaseModel], ...], media_type: str, headers: dict[str, Any] | None) -> dict[str, Any]:
    refs = [ref(model) for model in models]
    content: dict[str, Any] = {"schema": refs[0] if len(refs) == 1 else {"oneOf": refs}}
    examples = {model.__name__: {"value": ANSWER_EXAMPLES[model]} for model in models if model in ANSWER_EXAMPLES}
    if examples:
        content["examples"] = examples
    answer: dict[str, Any] = {"description": _first_line(models[0]), "content": {media_type: content}}
    if headers:
        answer["headers"] = headers
    return answer


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or model.__name__).partition("\n")[0]


def _problems(codes: Iterable[str]) -> dict[int | str, dict[str, Any]]:
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(KINDS[code].status, []).append(code)
    return {
        status: {
            "description": "; ".join(f"`{code}`: {KINDS[code].title}" for code in of_status),
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
    kind = KINDS[code]
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


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(encode(value), status, headers, JSON)
