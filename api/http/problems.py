"""The stable problem codes, and the exceptions that carry them to `api.http.problem_responses`.

Imports no web framework, because the process that runs an audit uses `error_location` too.
Proved by tests/api/http/test_problems.py.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping
from typing import Final, Literal, NamedTuple

from ledger.drafts import KEY_LENGTH_MAX

RequestPart = Literal["body", "query", "path", "header"]


class ProblemCode(NamedTuple):
    """One stable code: its HTTP status, a title, and a meaning that tells the client what to do."""

    status: int
    title: str
    meaning: str


PROBLEM_CODES: Final[Mapping[str, ProblemCode]] = {
    "bad_request": ProblemCode(
        400, "The request is not valid HTTP", "The request breaks the HTTP protocol. Correct it and send it again."
    ),
    "bad_json": ProblemCode(
        400,
        "The body is not valid JSON",
        "The body must be JSON as RFC 8259 and RFC 7493 define it: UTF-8, no duplicate member, no NaN, at most 32"
        " levels deep. The detail names the fault.",
    ),
    "bad_idempotency_key": ProblemCode(
        400,
        "The Idempotency-Key cannot be read",
        f"Idempotency-Key is one quoted structured-field string (RFC 8941) of 1 to {KEY_LENGTH_MAX} characters, such as"
        ' "8e03978e-40d5-43dd-bc93-6894a57f9324" with its quotes.',
    ),
    "not_signed_in": ProblemCode(
        401,
        "The request is not signed in",
        "Send Authorization: Bearer TOKEN with a token that is valid now. This one is absent, unknown, has expired, was"
        " revoked, or its principal is disabled. The operator makes one with inforce token create.",
    ),
    "forbidden": ProblemCode(
        403,
        "The caller has no right to this",
        "The caller is known, and none of its roles allows this. Nothing was recorded. The detail names the right and"
        " the caller's roles; api/README.md shows which role may do what. The operator grants roles.",
    ),
    "not_found": ProblemCode(404, "Not found", "The event, subject or setting is not in this ledger."),
    "audit_not_found": ProblemCode(
        404,
        "There is no such audit",
        "The audit was deleted, has expired or never existed. GET /v1/audits lists all audits.",
    ),
    "no_such_path": ProblemCode(404, "There is no such path", "GET /openapi.json lists every path."),
    "method_not_allowed": ProblemCode(
        405, "The path does not accept this method", "The header Allow lists the methods that the path accepts."
    ),
    "body_too_slow": ProblemCode(408, "The body took too long", "The body did not arrive in time. Send it again."),
    "conflict": ProblemCode(409, "The ledger has changed", "Read the current state, decide again and retry."),
    "version_conflict": ProblemCode(
        409,
        "The subject is at another version",
        "Another writer was first: expected_version is not the subject's version, and nothing was recorded. Read the"
        " subject's history, decide again, and retry with current_version.",
    ),
    "idempotency_key_in_flight": ProblemCode(
        409,
        "The same submission is being recorded",
        "A submission with this Idempotency-Key is being recorded now. Retry after the given seconds to get its"
        " receipts.",
    ),
    "ahead_of_ledger": ProblemCode(
        409,
        "The position is beyond the ledger's head",
        "The ledger ends before the position after which events were asked for. It went back, or it is another ledger;"
        " events that are recorded there later would be missed without a word. Follow it anew from a position of at"
        " most head, and compare it with what you hold.",
    ),
    "audit_not_done": ProblemCode(
        409,
        "The audit is not done",
        "Ask again when the audit's state is done. If the audit failed, GET the audit to learn the cause.",
    ),
    "body_too_large": ProblemCode(413, "The body is too large", "Send the body in parts. The detail names the limit."),
    "unsupported_media_type": ProblemCode(
        415,
        "The body has an unsupported media type",
        "Send JSON as Content-Type: application/json, in UTF-8 and not compressed. Send a log with the Content-Type of"
        " its format, such as text/csv.",
    ),
    "host_not_served": ProblemCode(
        421,
        "The server does not serve this host",
        "Without authentication the server serves the loopback names localhost, 127.0.0.1 and ::1 only. This stops a"
        " web page from reaching the server under a host name of its own. On a network it serves the names that its"
        " operator set with public_url and allowed_hosts.",
    ),
    "bad_input": ProblemCode(422, "The input is not valid", "The detail names the fault and how to correct it."),
    "bad_parameter": ProblemCode(
        422,
        "A parameter is not valid",
        "A query parameter is unknown, is given twice, or has a value that cannot be read. errors names each one.",
    ),
    "bad_time": ProblemCode(
        422,
        "Not a time with an offset",
        "A time is an RFC 3339 text with an offset, such as 2026-01-31T09:30:00Z. Numbers, words and times without an"
        " offset are refused.",
    ),
    "bad_subject": ProblemCode(
        422,
        "Not a subject reference",
        "A subject is written kind:id. The kinds are account, org, project, key, model, region, provider, principal and"
        " token. The id is 1-256 of A-Z a-z 0-9 . _ ~ @ / + : -",
    ),
    "bad_submission": ProblemCode(
        422,
        "The submission is not valid",
        "Nothing was recorded. errors names each fault by its JSON pointer into the body.",
    ),
    "bad_record": ProblemCode(
        422,
        "The request record is not valid",
        "No decision was made. errors names each fault by its JSON pointer into the body.",
    ),
    "bad_import": ProblemCode(
        422, "The line cannot be restored", "Only the command line imports events; the HTTP API does not."
    ),
    "idempotency_key_reused": ProblemCode(
        422,
        "The Idempotency-Key was used before",
        "This Idempotency-Key was sent with another body. Send the first body again to get its receipts, or use a new"
        " key for a new submission.",
    ),
    "rate_limited": ProblemCode(
        429,
        "Too many requests",
        "The principal has sent as many requests as it may in this window, or the address as many tokens that were"
        " refused. Nothing was recorded. Retry after the given seconds; RateLimit and RateLimit-Policy say what is"
        " left and what the limit is.",
    ),
    "internal_error": ProblemCode(
        500,
        "The server failed",
        "The server is at fault, not the request. Its log has details under the request's id. To find out whether a"
        " submission was recorded, send it again with the same Idempotency-Key.",
    ),
    "error": ProblemCode(500, "The server failed", "The server is at fault, not the request."),
    "ledger_corrupt": ProblemCode(
        503,
        "The ledger is damaged",
        "A stored event is damaged, or needs a newer version of inforce: the detail names its position. The server"
        " still answers everything that does not depend on that event. For the rest, the operator must repair the"
        " ledger or install a newer version. No restart is needed afterwards. A submission gets this answer if the"
        " database did not store what was written; nothing of it is recorded.",
    ),
    "ledger_unavailable": ProblemCode(
        503,
        "The ledger is unavailable",
        "The database cannot be reached, read or written at the moment. Retry after the given seconds. To find out"
        " whether a submission was recorded, send it again with the same Idempotency-Key.",
    ),
    "sign_in_unavailable": ProblemCode(
        503,
        "The token cannot be verified at the moment",
        "The keys of the provider that issued the token cannot be read, so nobody can tell whether it is right. Retry"
        " after the given seconds. The server's log names the cause.",
    ),
    "server_busy": ProblemCode(
        503,
        "The server has no room for this request",
        "The server answers as many requests, or holds as many bytes of bodies or answers, as it may. Nothing was"
        " recorded. Send the request again after the given seconds; a smaller body or page finds room sooner.",
    ),
    "ledger_busy": ProblemCode(
        503,
        "Too many submissions are waiting",
        "Submissions arrive faster than the database records them. Nothing of this one was recorded. Send it again"
        " after the given seconds.",
    ),
    "clock_behind": ProblemCode(
        503,
        "The server's clock is behind the ledger",
        "The server's clock is further behind the last recorded event than it allows, so nothing is recorded: a change"
        " made now would not be in force until the clock has caught up. The operator must set the clock right, or"
        " acknowledge the difference with inforce doctor clock. Questions are answered.",
    ),
    "ledger_went_back": ProblemCode(
        503,
        "The ledger went back",
        "The ledger lacks events that this server acknowledged, or holds others in their places: an older copy was"
        " restored, or its tail was lost. Nothing is recorded, so that no position is used twice. The operator must"
        " bring the newer ledger back, or acknowledge the loss with inforce doctor head. Questions are answered from"
        " the ledger as it is.",
    ),
    "not_writable": ProblemCode(503, "Nothing is recorded", "The operator must act. The server's log names the cause."),
    "timelines_behind": ProblemCode(
        503,
        "The stored timelines are far behind the ledger",
        "Answers are right, but slow until the stored timelines are brought up to the ledger, which this server does"
        " now. Send requests to another server meanwhile. If lag does not shrink, the log names the cause.",
    ),
    "disk_low": ProblemCode(
        503,
        "A disk of the server has little room left",
        "Submissions will fail when the disk is full. The operator must free space on the disk, or lower the setting"
        " disk_free_min. The server still answers.",
    ),
    "log_not_signed": ProblemCode(
        503,
        "No checkpoint can be waited for",
        "wait=checkpoint was sent to a server without a signing key, so nothing was recorded. Send the submission"
        " without it; the operator makes a key with inforce keygen.",
    ),
    "position_not_reached": ProblemCode(
        503,
        "The ledger has not reached the position",
        "The ledger did not reach the position at_least in time. Retry after the given seconds. Without at_least, the"
        " answer is as of the ledger's current position.",
    ),
    "too_many_streams": ProblemCode(
        503,
        "Too many streams are open",
        "Retry after the given seconds, or read the feed page by page: GET /v1/events returns the same events.",
    ),
    "audits_full": ProblemCode(
        503,
        "The server accepts no more audits at the moment",
        "The server is receiving as many logs, or keeps as many audits, as it allows. Retry after the given seconds, or"
        " delete an audit that you no longer need.",
    ),
    "audits_unavailable": ProblemCode(
        503, "This server cannot run audits", "The operator must act. The detail and the server's log name the cause."
    ),
    "not_a_ledger": ProblemCode(
        503, "The database holds no ledger", "The operator chose a database that holds no ledger of this version."
    ),
    "no_space": ProblemCode(
        507, "The server's disk is full", "The log does not fit on the server's disk. The operator must free space."
    ),
}
"""Every code of `ledger.errors`, and the codes of the API itself."""

RETRY_AFTER_SECONDS: Final = {
    "ledger_unavailable": 2,
    "ledger_busy": 1,
    "server_busy": 2,
    "sign_in_unavailable": 5,
    "rate_limited": 60,
    "clock_behind": 30,
    "ledger_went_back": 30,
    "ledger_corrupt": 30,
    "timelines_behind": 2,
    "disk_low": 30,
    "not_a_ledger": 30,
    "idempotency_key_in_flight": 1,
    "position_not_reached": 1,
    "too_many_streams": 5,
    "audit_not_done": 1,
    "audits_full": 30,
}


class ParameterFault(NamedTuple):
    """A fault outside the body: in the query parameter, path parameter or header `name`."""

    part: RequestPart
    name: str
    detail: str


class RequestRefused(Exception):
    """The API refuses the request before the ledger sees it. `code`: a key of `PROBLEM_CODES`; `detail`: without any
    of the input. `members`: extension members of the code."""

    def __init__(
        self,
        code: str,
        detail: str,
        faults: Iterable[ParameterFault] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, int | str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.faults = tuple(faults)
        self.headers = dict(headers or {})
        self.members = dict(members or {})


def error_location(error: BaseException) -> str:
    """The error's type and where it was raised, for the log. Leaves out the message, which could hold personal data."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return f"{type(error).__name__} at " + " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))
