"""GET /healthz, /readyz and /metrics report on the server; GET /problems explains the problem codes."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.http.parameters import Parameter, read_query
from api.http.problems import PROBLEM_CODES, RequestRefused
from api.routes.figures import UNREACHABLE, process_figures, request_figures
from api.routing import LEDGER_PROBLEMS, NOT_WRITABLE_PROBLEMS, RouteSpec, json_response, service_of
from api.schemas import responses
from ledger.transparency.publisher import LogPublisher
from projections.access.rights import Need


async def healthz(request: Request) -> Response:
    """Report whether the process answers. Uses no database."""
    read_query(request)
    return json_response({"status": "ok", "version": request.app.version})


async def readyz(request: Request) -> Response:
    """Report whether the ledger's database answers now, and records.

    503 `clock_behind` or `ledger_went_back`: questions are answered, and nothing is recorded until an operator acts.
    503 `timelines_behind` or `disk_low`: beyond the bounds that the operator set; everything is still answered.
    `log.problem`: the transparency log signs no checkpoint, and everything else goes on.
    """
    read_query(request)
    try:
        figures = await service_of(request).probe()
    except TimeoutError:
        raise RequestRefused("ledger_unavailable", "the database did not answer in time") from None
    damaged = service_of(request).query.store.damaged_rows
    ready = {"status": "ready", "position": figures.position, "lag": figures.lag, "damaged_timelines": damaged}
    return json_response(ready | {"log": _log_json(service_of(request).log_publisher)})


def _log_json(publisher: LogPublisher | None) -> dict[str, Any] | None:
    if publisher is None:
        return None
    size, integrates, problem = publisher.status
    return {"size": size, "integrates": integrates, "problem": None if problem is None else problem._asdict()}


async def metrics(request: Request) -> Response:
    """Read the counters and gauges of this process, for Prometheus.

    In the text format 0.0.4, or OpenMetrics where `Accept` asks for it. Without the database, its gauges are missing
    and `inforce_ledger_up` is 0.
    """
    read_query(request)
    service, counters = service_of(request), request.app.state.metrics
    try:
        rows = await service.in_probe(lambda: process_figures(service))
    except TimeoutError:
        rows = [UNREACHABLE]
    rows += request_figures(service, request.app.shared, len(request.app.state.streams))
    accept = request.headers.get("accept", "")
    # Some milliseconds of work.
    text, media_type = await service.ask(lambda: counters.text(accept, rows))
    return Response(text, 200, {"Content-Type": media_type})


async def problems(request: Request) -> Response:
    """List every problem code with its meaning."""
    read_query(request)
    return json_response({"problems": [_kind_json(code) for code in PROBLEM_CODES]})


async def problem_kind(request: Request) -> Response:
    """Explain a problem code and what to do about it. A problem's `type` leads here."""
    read_query(request)
    code = request.path_params["code"]
    if code not in PROBLEM_CODES:
        raise RequestRefused("not_found", "there is no such problem code; GET /problems lists all codes")
    return json_response(_kind_json(code))


def _kind_json(code: str) -> dict[str, Any]:
    kind = PROBLEM_CODES[code]
    return {"type": f"/problems/{code}", "code": code, **kind._asdict()}


CODE = Parameter("code", str, {"type": "string"}, "The problem's code.", "version_conflict", part="path")

ROUTES = [
    RouteSpec(
        method="GET",
        path="/healthz",
        need=Need.OPEN,
        endpoint=healthz,
        tag="operations",
        response_models=(responses.Health,),
        problems=(),
    ),
    RouteSpec(
        method="GET",
        path="/readyz",
        need=Need.OPEN,
        endpoint=readyz,
        tag="operations",
        response_models=(responses.Ready,),
        problems=("timelines_behind", "disk_low", *NOT_WRITABLE_PROBLEMS, *LEDGER_PROBLEMS),
    ),
    RouteSpec(
        method="GET",
        path="/metrics",
        need=Need.OPEN,
        endpoint=metrics,
        tag="operations",
        response_models=(responses.MetricsText,),
        media_type="text/plain",
        problems=(),
    ),
    RouteSpec(
        method="GET",
        path="/problems",
        need=Need.OPEN,
        endpoint=problems,
        tag="operations",
        response_models=(responses.ProblemKinds,),
        problems=(),
    ),
    RouteSpec(
        method="GET",
        path="/problems/{code}",
        need=Need.OPEN,
        endpoint=problem_kind,
        tag="operations",
        response_models=(responses.ProblemKind,),
        parameters=(CODE,),
        problems=("not_found",),
    ),
]
