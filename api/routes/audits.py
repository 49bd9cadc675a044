"""POST, GET and DELETE /v1/audits: a whole log against what was in force, run outside the serving process."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api import schemas
from api.audits.audits import Audits, log_of
from api.audits.folder import FINDINGS, REJECTS
from api.audits.jobs import View
from api.audits.receiving import MEDIA_TYPES, Body, check_type, receive
from api.http.parameters import (
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
    read_query,
)
from api.http.problems import At, Refused
from api.responses import encode
from api.routing import ASKS_AT_LEAST, Call, Written, asked, reached, service_of
from ledger.errors import BadRecord
from projections.audit.reading.layout import Layout, layout

_ASKS = (LOG_MAP, LOG_SET, TIMEZONE, LOG_FORMAT, CHECK_KNOWN_AT, MAX_REJECTS, AT_LEAST)


async def create_audit(request: Request) -> Response:
    """Audit a log: every request in it against the policy that was in force when it was made.

    The body is the log as it is: JSON Lines, CSV with a header, or Parquet; gzip or zstd, too; its first bytes say
    which. Its fields are the columns that bear their names, or that `map` names. Once it is received, the audit is
    pinned to the ledger's position and runs outside the server, even after a restart. GET it to follow it.
    """
    audits, body = service_of(request).audits, Body(request)
    try:
        view = await _taken(request, audits, body)
    except Refused:
        await body.drain(audits.bytes_max)
        raise
    return Written(encode(audits.json(view)), 202, (b"location", f"/v1/audits/{view.job.id}".encode()))


async def _taken(request: Request, audits: Audits, body: Body) -> View:
    """Raises `Refused`, and what asking the ledger does."""
    asks = read_query(request, *_ASKS)
    how = _layout(asks)
    check_type(request)
    async with audits.incoming() as incoming:
        with audits.keeping():
            received = await receive(body, log_of(incoming), audits.bytes_max, audits.threads)
        await reached(request, asks["at_least"])
        return await service_of(request).ask(
            lambda: audits.accept(incoming, received, how, asks["known_at"], asks["max_rejects"])
        )


def _layout(asks: dict[str, Any]) -> Layout:
    """Raises `Refused`."""
    pairs = {parameter.name: asks[parameter.name] or [] for parameter in (LOG_MAP, LOG_SET)}
    for name, given in pairs.items():
        if len(dict(given)) != len(given):
            detail = "a field is named twice"
            raise Refused("bad_parameter", f"{name}: {detail}", [At("query", name, detail)])
    try:
        return layout(dict(pairs["map"]), dict(pairs["set"]), asks["timezone"], asks["log_format"])
    except BadRecord as error:
        raise Refused("bad_parameter", f"set: {error.detail}", [At("query", "set", error.detail)]) from None


async def audits(request: Request) -> Response:
    """Every audit that is kept, the newest first."""
    read_query(request)
    kept = service_of(request).audits
    return await asked(request, lambda: {"audits": [kept.json(view) for view in kept.views()]})


async def audit(request: Request) -> Response:
    """How an audit stands: its state, what it is pinned to, its progress and, once it is done, its summary."""
    read_query(request)
    kept = service_of(request).audits
    return await asked(request, lambda: kept.json(kept.view(request.path_params["audit_id"])))


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

    return await asked(request, question)


_OF_ONE = ("bad_parameter", "audit_not_found", "audits_unavailable")

calls = [
    Call(
        method="POST",
        path="/v1/audits",
        endpoint=create_audit,
        tag="audits",
        status=202,
        answers=(schemas.Audit,),
        parameters=_ASKS,
        takes_as=MEDIA_TYPES,
        problems=(
            *("bad_request", "body_too_slow", "body_too_large", "unsupported_media_type", "bad_time"),
            *("audits_full", "audits_unavailable", "no_space", *ASKS_AT_LEAST),
        ),
        headers={"Location": {"description": "Of the audit.", "schema": {"type": "string"}}},
    ),
    Call(
        method="GET",
        path="/v1/audits",
        endpoint=audits,
        tag="audits",
        answers=(schemas.AuditList,),
        problems=("bad_parameter", "audits_unavailable"),
    ),
    Call(
        method="GET",
        path="/v1/audits/{audit_id}",
        endpoint=audit,
        tag="audits",
        answers=(schemas.Audit,),
        parameters=(AUDIT_ID,),
        problems=_OF_ONE,
    ),
    Call(
        method="DELETE",
        path="/v1/audits/{audit_id}",
        endpoint=delete_audit,
        tag="audits",
        status=204,
        answers=(),
        parameters=(AUDIT_ID,),
        problems=_OF_ONE,
    ),
    *(
        Call(
            method="GET",
            path=f"/v1/audits/{{audit_id}}/{name}",
            endpoint=endpoint,
            tag="audits",
            answers=(page,),
            parameters=(AUDIT_ID, AFTER_LINE, LIMIT),
            problems=(*_OF_ONE, "audit_not_done"),
        )
        for name, endpoint, page in (
            ("findings", findings, schemas.FindingPage),
            ("rejects", rejects, schemas.RejectPage),
        )
    ),
]
