"""POST, GET and DELETE /v1/audits: a whole log against what was in force, run outside the serving process."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api import schemas
from api.audits.folder import FINDINGS, REJECTS
from api.audits.jobs import AuditStatus
from api.audits.service import AuditService, log_of
from api.audits.upload import MEDIA_TYPES, UploadBody, check_type, receive
from api.http.parameters import read_query
from api.http.problems import ParameterFault, RequestRefused
from api.responses import encode
from api.routes.parameters import (
    AFTER_LINE,
    AT_LEAST,
    AUDIT_ID,
    CHECK_KNOWN_AT,
    LIMIT,
    LOG_FORMAT,
    LOG_MAP,
    LOG_SET,
    MAX_REJECTS,
    TIMEZONE,
)
from api.routing import AT_LEAST_PROBLEMS, EncodedResponse, RouteSpec, answer_off_loop, service_of, wait_for_position
from ledger.errors import BadRecord
from projections.audit.reading.layout import Layout, make_layout

_ASKS = (LOG_MAP, LOG_SET, TIMEZONE, LOG_FORMAT, CHECK_KNOWN_AT, MAX_REJECTS, AT_LEAST)


async def create_audit(request: Request) -> Response:
    """Audit a log: every request in it against the policy that was in force when it was made.

    The body is the log as it is: JSON Lines, CSV with a header, or Parquet; gzip or zstd, too; its first bytes say
    which. Its fields are the columns that bear their names, or that `map` names. Once it is received, the audit is
    pinned to the ledger's position and runs outside the server, even after a restart. GET it to follow it.
    """
    audits, body = service_of(request).audits, UploadBody(request)
    try:
        view = await _taken(request, audits, body)
    except RequestRefused:
        await body.drain(audits.bytes_max)
        raise
    return EncodedResponse(encode(audits.json(view)), 202, (b"location", f"/v1/audits/{view.job.id}".encode()))


async def _taken(request: Request, audits: AuditService, body: UploadBody) -> AuditStatus:
    """Raises `RequestRefused`, and what asking the ledger does."""
    asks = read_query(request, *_ASKS)
    how = _layout(asks)
    check_type(request)
    async with audits.incoming() as incoming:
        with audits.keeping():
            received = await receive(body, log_of(incoming), audits.bytes_max, audits.threads)
        await wait_for_position(request, asks["at_least"])
        return await service_of(request).ask(
            lambda: audits.accept(incoming, received, how, asks["known_at"], asks["max_rejects"])
        )


def _layout(asks: dict[str, Any]) -> Layout:
    """Raises `RequestRefused`."""
    pairs = {parameter.name: asks[parameter.name] or [] for parameter in (LOG_MAP, LOG_SET)}
    for name, given in pairs.items():
        if len(dict(given)) != len(given):
            detail = "a field is named twice"
            raise RequestRefused("bad_parameter", f"{name}: {detail}", [ParameterFault("query", name, detail)])
    try:
        return make_layout(dict(pairs["map"]), dict(pairs["set"]), asks["timezone"], asks["log_format"])
    except BadRecord as error:
        raise RequestRefused(
            "bad_parameter", f"set: {error.detail}", [ParameterFault("query", "set", error.detail)]
        ) from None


async def audits(request: Request) -> Response:
    """Every audit that is kept, the newest first."""
    read_query(request)
    kept = service_of(request).audits
    return await answer_off_loop(request, lambda: {"audits": [kept.json(view) for view in kept.views()]})


async def audit(request: Request) -> Response:
    """How an audit stands: its state, what it is pinned to, its progress and, once it is done, its summary."""
    read_query(request)
    kept = service_of(request).audits
    return await answer_off_loop(request, lambda: kept.json(kept.view(request.path_params["audit_id"])))


async def delete_audit(request: Request) -> Response:
    """Cancel an audit, or forget one that has ended: its log and all that came of it are deleted."""
    read_query(request)
    kept = service_of(request).audits
    await service_of(request).ask(lambda: kept.remove(request.path_params["audit_id"]))
    return Response(status_code=204)


async def findings(request: Request) -> Response:
    """The requests that were not handled as the policy in force wanted: violations and denials, in the log's order.

    Each with the position of every event that decided it.
    """
    return await _page(request, FINDINGS, "findings")


async def rejects(request: Request) -> Response:
    """The lines of the log that could not be read, each with its number and why."""
    return await _page(request, REJECTS, "rejects")


async def _page(request: Request, name: str, member: str) -> Response:
    asks = read_query(request, AFTER_LINE, LIMIT)
    kept = service_of(request).audits

    def question() -> dict[str, Any]:
        lines, next_after = kept.page(request.path_params["audit_id"], name, asks["after"], asks["limit"])
        return {member: [msgspec.Raw(line) for line in lines], "next_after": next_after}

    return await answer_off_loop(request, question)


_OF_ONE = ("bad_parameter", "audit_not_found", "audits_unavailable")

ROUTES = [
    RouteSpec(
        method="POST",
        path="/v1/audits",
        endpoint=create_audit,
        tag="audits",
        status=202,
        response_models=(schemas.Audit,),
        parameters=_ASKS,
        request_media_types=MEDIA_TYPES,
        problems=(
            *("bad_request", "body_too_slow", "body_too_large", "unsupported_media_type", "bad_time"),
            *("audits_full", "audits_unavailable", "no_space", *AT_LEAST_PROBLEMS),
        ),
        headers={"Location": {"description": "Of the audit.", "schema": {"type": "string"}}},
    ),
    RouteSpec(
        method="GET",
        path="/v1/audits",
        endpoint=audits,
        tag="audits",
        response_models=(schemas.AuditList,),
        problems=("bad_parameter", "audits_unavailable"),
    ),
    RouteSpec(
        method="GET",
        path="/v1/audits/{audit_id}",
        endpoint=audit,
        tag="audits",
        response_models=(schemas.Audit,),
        parameters=(AUDIT_ID,),
        problems=_OF_ONE,
    ),
    RouteSpec(
        method="DELETE",
        path="/v1/audits/{audit_id}",
        endpoint=delete_audit,
        tag="audits",
        status=204,
        response_models=(),
        parameters=(AUDIT_ID,),
        problems=_OF_ONE,
    ),
    *(
        RouteSpec(
            method="GET",
            path=f"/v1/audits/{{audit_id}}/{name}",
            endpoint=endpoint,
            tag="audits",
            response_models=(page,),
            parameters=(AUDIT_ID, AFTER_LINE, LIMIT),
            problems=(*_OF_ONE, "audit_not_done"),
        )
        for name, endpoint, page in (
            ("findings", findings, schemas.FindingPage),
            ("rejects", rejects, schemas.RejectPage),
        )
    ),
]
