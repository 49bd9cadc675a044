"""RFC 9457 problem details for every error path (WIRE.md section 1).

`type` is `/problems/{code}`, which this application serves: what the code means and what to do about it. A problem
never holds an exception's text, a stack or the input; what only operators may know goes to the log, with the request's
id, which is the problem's `instance`. Proved by tests/api/http/test_problems.py.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from ledger.errors import (
    BadInput,
    Conflict,
    Fault,
    InforceError,
    LedgerBusy,
    LedgerCorrupt,
    LedgerUnavailable,
    NotFound,
    PositionNotReached,
    VersionConflict,
)

MEDIA_TYPE: Final = "application/problem+json"
FAULTS_MAX: Final = 100
"""A body may hold thousands of faults; the first ones are enough to mend it."""

REQUEST_ID: Final = "inforce.request_id"
TRACE_ID: Final = "inforce.trace_id"
HEAD: Final = "inforce.head"
"""Where the door keeps them in the ASGI scope; the last: whether only the head of the answer is wanted."""

RequestPart = Literal["body", "query", "path", "header"]

_log = logging.getLogger("inforce.api")


class ProblemCode(NamedTuple):
    """One stable code: its status, what it means, and what the caller can do."""

    status: int
    title: str
    meaning: str


PROBLEM_CODES: Final[Mapping[str, ProblemCode]] = {
    "bad_request": ProblemCode(
        400, "Not an HTTP request we can read", "The request breaks the protocol; send it anew."
    ),
    "bad_json": ProblemCode(
        400,
        "The body is not JSON",
        "The body is no JSON text as RFC 8259 and RFC 7493 want it: UTF-8, no member twice, no NaN, at most 32 levels"
        " deep. The detail says which of these it was.",
    ),
    "bad_idempotency_key": ProblemCode(
        400,
        "The Idempotency-Key cannot be read",
        "Idempotency-Key is one quoted structured-field string (RFC 8941) of 1 to 255 characters, such as"
        ' "8e03978e-40d5-43dd-bc93-6894a57f9324" with its quotes.',
    ),
    "not_found": ProblemCode(404, "There is no such thing", "The event, subject or setting is not in this ledger."),
    "audit_not_found": ProblemCode(
        404, "There is no such audit", "The audit was deleted, has expired or never was. GET /v1/audits lists all."
    ),
    "no_such_path": ProblemCode(
        404, "There is no such path", "No call has this path; GET /openapi.json lists them all."
    ),
    "method_not_allowed": ProblemCode(
        405, "The path does not take this method", "The header Allow lists the methods that the path takes."
    ),
    "body_too_slow": ProblemCode(408, "The body took too long", "The body did not arrive in time; send it again."),
    "conflict": ProblemCode(409, "The ledger moved on", "Read what is there now, decide again and retry."),
    "version_conflict": ProblemCode(
        409,
        "The subject is at another version",
        "expected_version is not the subject's version, so somebody else wrote first and nothing was written. Read the"
        " subject's history, decide again, and retry with current_version.",
    ),
    "idempotency_key_in_flight": ProblemCode(
        409,
        "The same submission is being recorded",
        "A submission with this Idempotency-Key is being recorded at this moment; retry after the given seconds and"
        " get its receipts.",
    ),
    "audit_not_done": ProblemCode(
        409, "The audit is not done", "Ask again when the audit's state is done; one that has failed says why."
    ),
    "body_too_large": ProblemCode(
        413, "The body is too large", "Send the body in parts; the detail says how much is taken."
    ),
    "unsupported_media_type": ProblemCode(
        415,
        "The body has another type",
        "Send Content-Type: application/json, in UTF-8 and not compressed; a log as what it is, such as text/csv.",
    ),
    "host_not_served": ProblemCode(
        421,
        "This host is not served here",
        "Without authentication the server answers to the loopback names localhost, 127.0.0.1 and ::1 only, so that a"
        " web page cannot reach it under a name of its own.",
    ),
    "bad_input": ProblemCode(422, "The input cannot be taken", "The detail says what was wrong and what to do."),
    "bad_parameter": ProblemCode(
        422,
        "A parameter cannot be taken",
        "A query parameter is unknown, given twice, or has a value that cannot be read; errors names each.",
    ),
    "bad_time": ProblemCode(
        422,
        "Not a time with an offset",
        "Times are RFC 3339 texts with an offset, such as 2026-01-31T09:30:00Z. Numbers, words and times without an"
        " offset are refused.",
    ),
    "bad_subject": ProblemCode(
        422,
        "Not a subject reference",
        "A subject is written kind:id; the kinds are account, org, project, key and model, and the id is 1-256 of"
        " A-Z a-z 0-9 . _ ~ @ / + : -",
    ),
    "bad_submission": ProblemCode(
        422,
        "The submission cannot be recorded",
        "Nothing was written. errors names each fault by its JSON pointer into the body.",
    ),
    "bad_record": ProblemCode(
        422,
        "The request record cannot be read",
        "No decision was made. errors names each fault by its JSON pointer into the body.",
    ),
    "bad_import": ProblemCode(
        422, "The line cannot be restored", "Imports are made by the command line, never over HTTP."
    ),
    "idempotency_key_reused": ProblemCode(
        422,
        "The Idempotency-Key was used before",
        "This Idempotency-Key was sent with another body. Send the first body again for its receipts, or take a new"
        " key for a new submission.",
    ),
    "internal_error": ProblemCode(
        500,
        "The server failed",
        "A fault of the server, not of the request. Its log says more under the request's id. Whether a submission was"
        " recorded is found out by sending it again with the same Idempotency-Key.",
    ),
    "error": ProblemCode(500, "The server failed", "A fault of the server, not of the request."),
    "ledger_corrupt": ProblemCode(
        503,
        "The ledger does not add up",
        "What is stored cannot be right, or this version of inforce cannot read it: detail names the position. What"
        " does not rest on it is answered; for the rest the operator must look at it, or install a newer version."
        " Nothing has to be restarted afterwards.",
    ),
    "ledger_unavailable": ProblemCode(
        503,
        "The ledger cannot answer",
        "The database cannot be reached, read or written at the moment; retry after the given seconds. Whether a"
        " submission was recorded is found out by sending it again with the same Idempotency-Key.",
    ),
    "ledger_busy": ProblemCode(
        503,
        "Too much waits to be recorded",
        "More submissions arrive than the database can take, so this one was refused and nothing of it was recorded."
        " Send it again after the given seconds.",
    ),
    "position_not_reached": ProblemCode(
        503,
        "The ledger is not there yet",
        "at_least names a position that the ledger did not reach in time. Retry after the given seconds; without"
        " at_least the answer is as of position, where the ledger is now.",
    ),
    "too_many_streams": ProblemCode(
        503,
        "Too many streams are open",
        "Retry after the given seconds, or read the feed page by page: GET /v1/events gives the same events.",
    ),
    "audits_full": ProblemCode(
        503,
        "No more audits are taken at the moment",
        "As many logs are being received, or audits kept, as the server takes. Retry after the given seconds, or delete"
        " an audit that is no longer needed.",
    ),
    "audits_unavailable": ProblemCode(
        503, "No audits are run here", "The operator must look at it; the detail and the server's log say why."
    ),
    "not_a_ledger": ProblemCode(
        503, "The database holds no ledger", "The operator named a database that is no ledger of this version."
    ),
    "no_space": ProblemCode(
        507, "The log does not fit", "The server's disk has no room for the log; the operator must make some."
    ),
}
"""Stable code → what it stands for. Every code of `ledger.errors` is here, and those of the door itself."""

RETRY_AFTER_SECONDS: Final = {
    "ledger_unavailable": 2,
    "ledger_busy": 1,
    "ledger_corrupt": 30,
    "not_a_ledger": 30,
    "idempotency_key_in_flight": 1,
    "position_not_reached": 1,
    "too_many_streams": 5,
    "audit_not_done": 1,
    "audits_full": 30,
}

_KIND_OF_STATUS: Final = {404: "no_such_path", 405: "method_not_allowed", 413: "body_too_large"}


class ParameterFault(NamedTuple):
    """A fault of the request outside its body: `name` of a query parameter, path parameter or header."""

    part: RequestPart
    name: str
    detail: str


class RequestRefused(Exception):
    """The door itself refuses the request. `code` is one of `PROBLEM_CODES`; `detail` holds nothing of the input."""

    def __init__(
        self,
        code: str,
        detail: str,
        faults: Iterable[ParameterFault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.faults = tuple(faults)
        self.headers = dict(headers or {})


def problem(
    scope: Scope,
    code: str,
    detail: str,
    *,
    faults: Iterable[Fault | ParameterFault] = (),
    members: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The problem as a response. `members` are extensions of this code, such as current_version."""
    kind = PROBLEM_CODES[code]
    body: dict[str, Any] = {
        "type": f"/problems/{code}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "instance": f"urn:inforce:request:{request_id_of(scope)}",
        "code": code,
    }
    errors = [_fault_json(fault) for fault in list(faults)[:FAULTS_MAX]]
    if errors:
        body["errors"] = errors
    body |= members or {}
    all_headers = dict(headers or {})
    if code in RETRY_AFTER_SECONDS:
        all_headers["Retry-After"] = str(RETRY_AFTER_SECONDS[code])
    return Response(msgspec.json.encode(body), kind.status, all_headers, MEDIA_TYPE)


def _fault_json(fault: Fault | ParameterFault) -> dict[str, str]:
    if isinstance(fault, ParameterFault):
        return {"in": fault.part, "pointer": f"/{fault.name}", "detail": fault.detail}
    return {"in": "body", "pointer": _shown_pointer(fault.pointer), "detail": fault.detail}


_PLAIN: Final = re.compile(r"[A-Za-z0-9._~-]{1,64}")


def _shown_pointer(pointer: str) -> str:
    """The pointer up to the first member whose name is the caller's own invention, and no plain word."""
    return "".join(f"/{part}" for part in itertools.takewhile(_PLAIN.fullmatch, pointer.split("/")[1:]))


def _summary(faults: tuple[Fault, ...]) -> str | None:
    """The first fault, and how many there are besides."""
    if not faults:
        return None
    pointer = _shown_pointer(faults[0].pointer)
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{pointer}: {faults[0].detail}{more}" if pointer else f"{faults[0].detail}{more}"


def request_id_of(scope: Scope) -> str:
    """The id that the door gave or let pass for this request."""
    return str(scope.get(REQUEST_ID, "none"))


def where(scope: Scope) -> str:
    """The call, for the log: its method and the route's template, never the path itself, which holds subjects."""
    route = scope.get("route")
    called = f"{scope.get('method', '?')} {getattr(route, 'path_format', 'no route')}"
    trace_id = scope.get(TRACE_ID)
    return f"{called} request={request_id_of(scope)}" + (f" trace={trace_id}" if trace_id else "")


async def on_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestRefused)
    return problem(request.scope, error.code, error.detail, faults=error.faults, headers=error.headers)


async def on_domain_error(request: Request, error: Exception) -> Response:
    """A category of `ledger.errors` → its status. The messages of the first ones are made for the caller."""
    scope = request.scope
    match error:
        case VersionConflict():
            members = {
                "subject": error.subject,
                "expected_version": error.expected,
                "current_version": error.actual,
            }
            return problem(scope, error.code, error.detail, members=members)
        case BadInput():
            code = error.code if error.code in PROBLEM_CODES else "bad_input"
            return problem(scope, code, _summary(error.faults) or error.detail, faults=error.faults)
        case NotFound() | Conflict():
            return problem(scope, error.code, error.detail)
        case PositionNotReached():
            members = {"at_least": error.at_least, "position": error.position}
            return problem(scope, error.code, error.detail, members=members)
        case LedgerBusy():
            return problem(scope, error.code, error.detail)
        case LedgerUnavailable():
            _log.warning("%s: %s: %s", where(scope), error.code, error.detail)
            return problem(scope, error.code, "the ledger cannot answer at the moment; retry after the given seconds")
        case LedgerCorrupt():
            _log.critical("%s: %s: %s", where(scope), error.code, error.detail)
            return problem(scope, error.code, error.detail)
        case InforceError():
            _log.critical("%s: %s: %s", where(scope), error.code, error.detail)
            code = error.code if error.code in PROBLEM_CODES else "error"
            return problem(scope, code, "the server cannot answer this; its log says why, under the request's id")
    raise error


async def on_http_error(request: Request, error: Exception) -> Response:
    """What the framework refuses by itself: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    scope = request.scope
    if error.status_code == 405:
        allow = ", ".join(allowed_methods(scope))
        return problem(scope, "method_not_allowed", f"the path takes {allow}", headers={"Allow": allow})
    code = _KIND_OF_STATUS.get(error.status_code)
    if code is None:
        code = "internal_error" if error.status_code >= 500 else "bad_request"
    return problem(scope, code, PROBLEM_CODES[code].meaning)


async def on_validation_error(request: Request, _error: Exception) -> Response:
    """FastAPI's own validation, for a route that uses it: our routes read their parameters themselves."""
    return problem(request.scope, "bad_parameter", PROBLEM_CODES["bad_parameter"].meaning)


HANDLERS: Final[dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]]] = {
    RequestRefused: on_refused,
    InforceError: on_domain_error,
    HTTPException: on_http_error,
    RequestValidationError: on_validation_error,
}


def allowed_methods(scope: Scope) -> list[str]:
    """Every method that the path takes, over all its routes; empty for an unknown path. A route knows only its own."""
    methods: set[str] = set()
    for route in scope["app"].routes:
        if route.path_regex.match(scope["path"]):
            methods |= route.methods or set()
    if "GET" in methods:
        methods.add("HEAD")
    return sorted(methods | {"OPTIONS"}) if methods else []
