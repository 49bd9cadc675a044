"""RFC 9457 problem details for every error path, 404, 405 and 500 included.

A problem's `type` is `/problems/{code}`, which this application serves: what the code means and what to do about it. A
problem never holds an exception's text, a stack or the input. Details for operators go to the log under the
request's id, which is the problem's `instance`. Proved by tests/api/http/test_problems.py.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from api.http.problems import PROBLEM_CODES, RETRY_AFTER_SECONDS, ParameterFault, RequestRefused
from api.http.scope import PROBLEM, allowed_methods, log_label, request_id_of
from ledger.errors import (
    AheadOfLedger,
    BadInput,
    Conflict,
    Fault,
    Forbidden,
    InforceError,
    LedgerBusy,
    LedgerCorrupt,
    LedgerUnavailable,
    NotFound,
    NotWritable,
    OutOfReach,
    PositionNotReached,
    VersionConflict,
)

MEDIA_TYPE: Final = "application/problem+json"
FAULTS_MAX: Final = 100
"""A body may hold thousands of faults; the first ones suffice to correct it."""

_CODE_OF_STATUS: Final = {404: "no_such_path", 405: "method_not_allowed", 413: "body_too_large"}

_log = logging.getLogger("inforce.api")


def problem_response(
    scope: Scope,
    code: str,
    detail: str,
    *,
    faults: Iterable[Fault | ParameterFault] = (),
    members: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """`members`: extension members of this code, such as current_version."""
    kind = PROBLEM_CODES[code]
    scope[PROBLEM] = code
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
        all_headers.setdefault("Retry-After", str(RETRY_AFTER_SECONDS[code]))
    return Response(msgspec.json.encode(body), kind.status, all_headers, MEDIA_TYPE)


def _fault_json(fault: Fault | ParameterFault) -> dict[str, str]:
    if isinstance(fault, ParameterFault):
        return {"in": fault.part, "pointer": f"/{fault.name}", "detail": fault.detail}
    return {"in": "body", "pointer": _safe_pointer(fault.pointer), "detail": fault.detail}


_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9._~-]{1,40}")


def _safe_pointer(pointer: str) -> str:
    """The pointer, cut before the first member name that is not a plain word: the client may have invented it."""
    return "".join(f"/{part}" for part in itertools.takewhile(_PLAIN_NAME.fullmatch, pointer.split("/")[1:]))


def _summary(faults: tuple[Fault, ...]) -> str | None:
    """The first fault, and the number of the others."""
    if not faults:
        return None
    pointer = _safe_pointer(faults[0].pointer)
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{pointer}: {faults[0].detail}{more}" if pointer else f"{faults[0].detail}{more}"


async def on_request_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestRefused)
    scope, faults = request.scope, error.faults
    return problem_response(
        scope, error.code, error.detail, faults=faults, members=error.members, headers=error.headers
    )


async def on_domain_error(request: Request, error: Exception) -> Response:
    """Maps a category of `ledger.errors` to its status. Only the details of some categories may reach the client; those
    of the others go to the log."""
    scope = request.scope
    match error:
        case VersionConflict():
            members = {
                "subject": error.subject,
                "expected_version": error.expected,
                "current_version": error.actual,
            }
            return problem_response(scope, error.code, error.detail, members=members)
        case BadInput():
            code = error.code if error.code in PROBLEM_CODES else "bad_input"
            return problem_response(scope, code, _summary(error.faults) or error.detail, faults=error.faults)
        case PositionNotReached():
            members = {"at_least": error.at_least, "position": error.position}
            return problem_response(scope, error.code, error.detail, members=members)
        case AheadOfLedger():
            return problem_response(scope, error.code, error.detail, members={"after": error.after, "head": error.head})
        case NotWritable():
            # Not logged here: `Service` logs each change of this state once.
            return problem_response(scope, error.code, error.detail, members=error.members)
        case OutOfReach() | Forbidden():
            return problem_response(scope, error.code, error.detail, faults=error.faults)
        case NotFound() | Conflict() | LedgerBusy():
            return problem_response(scope, error.code, error.detail)
        case LedgerUnavailable():
            _log.warning("%s: %s: %s", log_label(scope), error.code, error.detail)
            detail = "the ledger cannot answer at the moment; retry after the given seconds"
            return problem_response(scope, error.code, detail)
        case LedgerCorrupt():
            _log.critical("%s: %s: %s", log_label(scope), error.code, error.detail)
            return problem_response(scope, error.code, error.detail)
        case InforceError():
            _log.critical("%s: %s: %s", log_label(scope), error.code, error.detail)
            code = error.code if error.code in PROBLEM_CODES else "error"
            detail = "the server cannot answer this; its log names the cause under the request's id"
            return problem_response(scope, code, detail)
    raise error


async def on_http_error(request: Request, error: Exception) -> Response:
    """Handles the errors that the framework raises by itself: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    scope = request.scope
    if error.status_code == 405:
        allow = ", ".join(allowed_methods(scope))
        return problem_response(scope, "method_not_allowed", f"the path accepts {allow}", headers={"Allow": allow})
    code = _CODE_OF_STATUS.get(error.status_code)
    if code is None:
        code = "internal_error" if error.status_code >= 500 else "bad_request"
    return problem_response(scope, code, PROBLEM_CODES[code].meaning)


HANDLERS: Final[dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]]] = {
    RequestRefused: on_request_refused,
    InforceError: on_domain_error,
    HTTPException: on_http_error,
}
