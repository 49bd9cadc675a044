"""POST, GET and DELETE /v1/audits: check a whole log against the settings in force, outside the serving process."""

from __future__ import annotations

from itertools import chain
from operator import itemgetter
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api.audits.folder import FINDINGS, LOG, REJECTS
from api.audits.jobs import AuditStatus
from api.audits.service import AuditService
from api.audits.upload import MEDIA_TYPES, UploadBody, check_type, receive
from api.http.parameters import read_query
from api.http.problems import ParameterFault, RequestRefused
from api.responses import bounded, encode
from api.routes.log_parameters import (
    ALIAS,
    DELIMITER,
    FALSE_TEXTS,
    HAPPENED,
    LIST_OF_ROWS,
    LOG_FORMAT,
    LOG_MAP,
    LOG_SET,
    MAX_REJECTS,
    NEITHER_TEXTS,
    SHEET,
    TIME_FORMAT,
    TIME_UNIT,
    TIMEZONE,
    TRUE_TEXTS,
)
from api.routes.parameters import AFTER_AUDIT, AFTER_LINE, AT_LEAST, AUDIT_ID, CHECK_KNOWN_AT, LIMIT
from api.routing import (
    AT_LEAST_PROBLEMS,
    EncodedResponse,
    RouteSpec,
    answer_off_loop,
    caller_of,
    service_of,
    still_admitted,
    wait_for_position,
)
from api.schemas import audits as audit_models
from ledger.errors import BadRecord
from projections.access.rights import Need
from projections.audit.reading.aliases import aliases_of_rows
from projections.audit.reading.layout import Forms, Layout, flags_of, make_layout
from projections.audit.reading.shape import LogShape

_FORMS = (TIMEZONE, TIME_UNIT, TIME_FORMAT, TRUE_TEXTS, FALSE_TEXTS, NEITHER_TEXTS, ALIAS, HAPPENED)
_SHAPE = (LOG_FORMAT, DELIMITER, LIST_OF_ROWS, SHEET)
_LOG_PARAMETERS = (LOG_MAP, LOG_SET, *_FORMS, *_SHAPE, CHECK_KNOWN_AT, MAX_REJECTS, AT_LEAST)


async def create_audit(request: Request) -> Response:
    """Audit a log: check every request in it against the policy that was in force when it was made.

    The body is the log file: JSON Lines, JSON, CSV with a header, .xlsx or Parquet, also packed with gzip, bzip2, xz or
    zstd. Its first bytes show the format. Each field is read from the column of the same name, or from the one that
    `map` names. Once the log is received, the audit is pinned to the ledger's position. It runs outside the server and
    survives a restart. GET the audit to follow it.
    """
    audits, body = service_of(request).audits, UploadBody(request)
    try:
        status = await _upload(request, audits, body)
    except RequestRefused:
        await body.drain(audits.bytes_max)
        raise
    return EncodedResponse(encode(audits.json(status)), 202, (b"location", f"/v1/audits/{status.job.id}".encode()))


async def _upload(request: Request, audits: AuditService, body: UploadBody) -> AuditStatus:
    """Raises `RequestRefused` and the errors of the ledger."""
    query = read_query(request, *_LOG_PARAMETERS)
    layout = _layout(query)
    check_type(request)
    async with audits.incoming() as incoming:
        with audits.storage_problems():
            log = await receive(body, incoming / LOG, audits.bytes_max, audits.threads)
        await wait_for_position(request, query["at_least"])
        actor = (await still_admitted(request, Need.AUDIT)).actor
        return await service_of(request).ask(
            lambda: audits.accept(incoming, log, layout, query["known_at"], query["max_rejects"], actor)
        )


def _layout(query: dict[str, Any]) -> Layout:
    """Raises `RequestRefused`."""
    pairs = {parameter.name: query[parameter.name] or [] for parameter in (LOG_MAP, LOG_SET)}
    for name, assignments in pairs.items():
        if len(dict(assignments)) != len(assignments):
            raise _bad_parameter(name, "a field is named twice")
    try:
        aliases = aliases_of_rows(query["alias"] or [])
    except BadRecord as error:
        raise _bad_parameter("alias", error.detail) from None
    texts = {name: tuple(chain.from_iterable(query[name] or [])) for name in ("true", "false", "neither")}
    forms = Forms(
        query["timezone"],
        query["time_unit"],
        query["time_format"],
        **texts,
        aliases=aliases,
        happened=query["happened"],
    )
    if forms.time_unit is not None and forms.time_format is not None:
        raise _bad_parameter("time_format", "times are numbers in a unit or texts in a form; name one of the two")
    try:
        flags_of(forms)
    except BadRecord as error:
        raise _bad_parameter("true, false or neither", error.detail) from None
    shape = LogShape(query["log_format"], **{one.name: query[one.name] for one in (DELIMITER, LIST_OF_ROWS, SHEET)})
    try:
        shape.check()
    except BadRecord as error:
        raise _bad_parameter("delimiter, rows or sheet", error.detail) from None
    try:
        return make_layout(dict(pairs["map"]), dict(pairs["set"]), forms, shape)
    except BadRecord as error:
        raise _bad_parameter("set", error.detail) from None


def _bad_parameter(name: str, detail: str) -> RequestRefused:
    return RequestRefused("bad_parameter", f"{name}: {detail}", [ParameterFault("query", name, detail)])


async def audits(request: Request) -> Response:
    """List all audits, newest first. With `after`, those behind that audit."""
    after = read_query(request, AFTER_AUDIT)["after"]
    service = service_of(request).audits

    def question() -> dict[str, Any]:
        statuses = service.statuses()
        ids = [status.job.id for status in statuses]
        # An audit that was deleted meanwhile has no place in the list any more, so the list begins again.
        behind = statuses[ids.index(after) + 1 :] if after in ids else statuses
        document = {"audits": [service.json(status) for status in behind]}
        return bounded(document, "audits", itemgetter("id"))

    return await answer_off_loop(request, question)


async def audit(request: Request) -> Response:
    """Read the status of an audit: its state, pin, progress and, once it is done, its summary."""
    read_query(request)
    service = service_of(request).audits
    return await answer_off_loop(request, lambda: service.json(service.status(request.path_params["audit_id"])))


async def delete_audit(request: Request) -> Response:
    """Cancel an audit, or delete one that has ended, with its log and all results."""
    read_query(request)
    service, caller = service_of(request).audits, caller_of(request)
    await service_of(request).ask(lambda: service.remove(request.path_params["audit_id"], caller))
    return Response(status_code=204)


async def findings(request: Request) -> Response:
    """Read the findings: the requests that are violations or denials, in the order of the log.

    Each names the position of every event that decided it.
    """
    return await _page(request, FINDINGS, "findings")


async def rejects(request: Request) -> Response:
    """Read the rejects: the lines of the log that could not be read, each with its number and the reason."""
    return await _page(request, REJECTS, "rejects")


async def _page(request: Request, name: str, member: str) -> Response:
    query = read_query(request, AFTER_LINE, LIMIT)
    service = service_of(request).audits

    def question() -> dict[str, Any]:
        lines, next_after = service.page(request.path_params["audit_id"], name, query["after"], query["limit"])
        return {member: [msgspec.Raw(line) for line in lines], "next_after": next_after}

    return await answer_off_loop(request, question)


_AUDIT_PROBLEMS = ("bad_parameter", "audit_not_found", "audits_unavailable")

ROUTES = [
    RouteSpec(
        method="POST",
        path="/v1/audits",
        need=Need.AUDIT,
        endpoint=create_audit,
        tag="audits",
        status=202,
        response_models=(audit_models.Audit,),
        parameters=_LOG_PARAMETERS,
        request_media_types=MEDIA_TYPES,
        problems=(
            *("bad_request", "body_too_slow", "body_too_large", "unsupported_media_type", "bad_time"),
            *("audits_full", "audits_unavailable", "no_space", *AT_LEAST_PROBLEMS),
        ),
        headers={"Location": {"description": "The audit's path.", "schema": {"type": "string"}}},
    ),
    RouteSpec(
        method="GET",
        path="/v1/audits",
        need=Need.AUDIT,
        endpoint=audits,
        tag="audits",
        response_models=(audit_models.AuditList,),
        parameters=(AFTER_AUDIT,),
        problems=("bad_parameter", "audits_unavailable"),
    ),
    RouteSpec(
        method="GET",
        path="/v1/audits/{audit_id}",
        need=Need.AUDIT,
        endpoint=audit,
        tag="audits",
        response_models=(audit_models.Audit,),
        parameters=(AUDIT_ID,),
        problems=_AUDIT_PROBLEMS,
    ),
    RouteSpec(
        method="DELETE",
        path="/v1/audits/{audit_id}",
        need=Need.AUDIT,
        endpoint=delete_audit,
        tag="audits",
        status=204,
        response_models=(),
        parameters=(AUDIT_ID,),
        problems=_AUDIT_PROBLEMS,
    ),
    *(
        RouteSpec(
            method="GET",
            path=f"/v1/audits/{{audit_id}}/{name}",
            need=Need.AUDIT,
            endpoint=endpoint,
            tag="audits",
            response_models=(page,),
            parameters=(AUDIT_ID, AFTER_LINE, LIMIT),
            problems=(*_AUDIT_PROBLEMS, "audit_not_done"),
        )
        for name, endpoint, page in (
            ("findings", findings, audit_models.FindingPage),
            ("rejects", rejects, audit_models.RejectPage),
        )
    ),
]
