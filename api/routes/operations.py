"""GET /healthz, /readyz and /problems: for those who run the server, and for those who got a problem from it."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api import schemas
from api.http.parameters import Parameter, read_query
from api.http.problems import KINDS, Refused
from api.routing import ASKS_LEDGER, Call, answer, service_of


async def healthz(request: Request) -> Response:
    """Whether the process answers. Asks no database."""
    read_query(request)
    return answer({"status": "ok", "version": request.app.version})


async def readyz(request: Request) -> Response:
    """Whether the ledger's database answers, now."""
    read_query(request)
    try:
        position = await service_of(request).probe()
    except TimeoutError:
        raise Refused("ledger_unavailable", "the database did not answer in time") from None
    return answer({"status": "ready", "position": position})


async def problems(request: Request) -> Response:
    """Every code that a problem may have, and what it means."""
    read_query(request)
    return answer({"problems": [_kind_json(code) for code in KINDS]})


async def problem_kind(request: Request) -> Response:
    """What a problem's code means and what to do about it: its `type` leads here."""
    read_query(request)
    code = request.path_params["code"]
    if code not in KINDS:
        raise Refused("not_found", "there is no problem with this code; GET /problems lists them all")
    return answer(_kind_json(code))


def _kind_json(code: str) -> dict[str, Any]:
    kind = KINDS[code]
    return {"type": f"/problems/{code}", "code": code, **kind._asdict()}


CODE = Parameter("code", str, {"type": "string"}, "The problem's code.", "version_conflict", part="path")

calls = [
    Call(method="GET", path="/healthz", endpoint=healthz, tag="operations", answers=(schemas.Health,), problems=()),
    Call(
        method="GET", path="/readyz", endpoint=readyz, tag="operations", answers=(schemas.Ready,), problems=ASKS_LEDGER
    ),
    Call(
        method="GET",
        path="/problems",
        endpoint=problems,
        tag="operations",
        answers=(schemas.ProblemKinds,),
        problems=(),
    ),
    Call(
        method="GET",
        path="/problems/{code}",
        endpoint=problem_kind,
        tag="operations",
        answers=(schemas.ProblemKind,),
        parameters=(CODE,),
        problems=("not_found",),
    ),
]
