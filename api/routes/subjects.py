"""GET /v1/subjects, /v1/subjects/{subject}/state|timeline|history|diff and /v1/catalog: settings at any time.

The path is decoded before it is matched. The subject is everything between `/v1/subjects/` and the last segment, so
`model:deepseek-ai/DeepSeek-V3` may be sent raw or percent-encoded.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api import within_reach
from api.http.parameters import read_query
from api.responses import (
    PAGE_BYTES,
    bounded_by_key,
    bounded_differences,
    bounded_intervals,
    catalog_json,
    diff_json,
    history_json,
    state_json,
    subjects_json,
    timeline_json,
)
from api.routes.parameters import (
    AFTER_INTERVAL,
    AFTER_SETTING,
    AFTER_SUBJECT,
    AFTER_VERSION,
    AT,
    AT_LEAST,
    FROM,
    KIND,
    KNOWN_AT,
    LIMIT,
    PREFIX,
    SETTING,
    SETTINGS,
    SUBJECT,
    TO,
    read_subject,
)
from api.routing import AT_LEAST_PROBLEMS, RouteSpec, answer_off_loop, caller_of, service_of
from api.schemas import responses
from api.within_reach import require_subject, without_foreign_next
from projections.access.rights import Need
from projections.query.history import history


async def subjects(request: Request) -> Response:
    """List the subjects that have a history, in byte order of their references."""
    query = read_query(request, KIND, PREFIX, AFTER_SUBJECT, LIMIT, AT_LEAST)
    service, caller, limit = service_of(request), caller_of(request), query["limit"]

    def question() -> dict[str, Any]:
        position, rows = within_reach.subjects(service, caller, query["kind"], query["prefix"], query["after"], limit)
        return subjects_json(position, rows, limit)

    return await answer_off_loop(request, question, query["at_least"])


async def state(request: Request) -> Response:
    """Read the effective state: every setting of the subject at (at, known_at), with the event that decided it.

    Both default to now. A setting without a value of its own has the catalog's default at that moment, and the event of
    its definition.
    """
    subject = read_subject(request)
    query = read_query(request, AT, KNOWN_AT, SETTINGS, AFTER_SETTING, AT_LEAST)
    service, caller = service_of(request), caller_of(request)

    def question() -> dict[str, Any]:
        at = service.now() if query["at"] is None else query["at"]
        require_subject(service, caller, Need.STATE, subject, at=at, known_at=query["known_at"])
        answer = service.query.state(
            subject, at=at, known_at=query["known_at"], settings=query["setting"], large_values=False
        )
        answer = without_foreign_next(service, caller, answer, query["known_at"])
        return bounded_by_key(state_json(answer), "settings", query["after"], service.encode)

    return await answer_off_loop(request, question, query["at_least"])


async def timeline(request: Request) -> Response:
    """Read the intervals over valid time, half-open and without gaps; known_at=at returns the in-force timeline."""
    subject = read_subject(request)
    query = read_query(request, SETTING, KNOWN_AT, AFTER_INTERVAL, AT_LEAST)
    service, caller = service_of(request), caller_of(request)

    def question() -> dict[str, Any]:
        require_subject(service, caller, Need.HISTORY, subject)
        answer = service.query.timeline(
            subject, setting=query["setting"], known_at=query["known_at"], large_values=False
        )
        return bounded_intervals(timeline_json(answer), query["after"], service.encode)

    return await answer_off_loop(request, question, query["at_least"])


async def subject_history(request: Request) -> Response:
    """Read every event about the subject, newest first; retracted events are marked.

    The reason of an event is personal data: only a caller with the role privacy reads it.
    """
    subject = read_subject(request)
    query = read_query(request, SETTING, AFTER_VERSION, LIMIT, AT_LEAST)
    service, caller = service_of(request), caller_of(request)

    def question() -> dict[str, Any]:
        require_subject(service, caller, Need.HISTORY, subject)
        answer = history(
            service.ledger,
            subject,
            setting=query["setting"],
            after=query["after"],
            limit=query["limit"],
            bytes_max=PAGE_BYTES,
        )
        return history_json(answer, with_reasons=caller.reads_personal_data)

    return await answer_off_loop(request, question, query["at_least"])


async def diff(request: Request) -> Response:
    """Compare two instants: the settings whose value differs, and the events that changed them.

    With known_at=at, compares the settings in force at each of the two instants.
    """
    subject = read_subject(request)
    query = read_query(request, FROM, TO, KNOWN_AT, AFTER_SETTING, AT_LEAST)
    service, caller = service_of(request), caller_of(request)

    def question() -> dict[str, Any]:
        start, end = query["from"], service.now() if query["to"] is None else query["to"]
        # As a timeline is for those who reach the subject at present, whatever it shows of the past.
        require_subject(service, caller, Need.HISTORY, subject, at=max(start, end), known_at=query["known_at"])
        answer = service.query.diff(subject, start=start, end=end, known_at=query["known_at"], large_values=False)
        return bounded_differences(diff_json(subject, start, end, answer), query["after"], service.encode)

    return await answer_off_loop(request, question, query["at_least"])


async def catalog(request: Request) -> Response:
    """Read the settings that are defined at (at, known_at), each with the event that defined it."""
    query = read_query(request, AT, KNOWN_AT, AFTER_SETTING, AT_LEAST)
    service = service_of(request)

    def question() -> dict[str, Any]:
        at = service.now() if query["at"] is None else query["at"]
        document = catalog_json(at, service.query.catalog(at=at, known_at=query["known_at"]))
        return bounded_by_key(document, "settings", query["after"])

    return await answer_off_loop(request, question, query["at_least"])


_SUBJECT_PROBLEMS = ("not_found", "bad_subject", "bad_time", *AT_LEAST_PROBLEMS)

ROUTES = [
    RouteSpec(
        method="GET",
        path="/v1/subjects",
        need=Need.SUBJECTS,
        endpoint=subjects,
        tag="subjects",
        response_models=(responses.SubjectPage,),
        parameters=(KIND, PREFIX, AFTER_SUBJECT, LIMIT, AT_LEAST),
        problems=AT_LEAST_PROBLEMS,
    ),
    RouteSpec(
        method="GET",
        path="/v1/subjects/{subject:path}/state",
        need=Need.STATE,
        endpoint=state,
        tag="subjects",
        response_models=(responses.State,),
        parameters=(SUBJECT, AT, KNOWN_AT, SETTINGS, AFTER_SETTING, AT_LEAST),
        problems=_SUBJECT_PROBLEMS,
    ),
    RouteSpec(
        method="GET",
        path="/v1/subjects/{subject:path}/timeline",
        need=Need.HISTORY,
        endpoint=timeline,
        tag="subjects",
        response_models=(responses.Timeline,),
        parameters=(SUBJECT, SETTING, KNOWN_AT, AFTER_INTERVAL, AT_LEAST),
        problems=_SUBJECT_PROBLEMS,
    ),
    RouteSpec(
        method="GET",
        path="/v1/subjects/{subject:path}/history",
        need=Need.HISTORY,
        endpoint=subject_history,
        tag="subjects",
        response_models=(responses.History,),
        parameters=(SUBJECT, SETTING, AFTER_VERSION, LIMIT, AT_LEAST),
        problems=("not_found", "bad_subject", *AT_LEAST_PROBLEMS),
    ),
    RouteSpec(
        method="GET",
        path="/v1/subjects/{subject:path}/diff",
        need=Need.HISTORY,
        endpoint=diff,
        tag="subjects",
        response_models=(responses.Differences,),
        parameters=(SUBJECT, FROM, TO, KNOWN_AT, AFTER_SETTING, AT_LEAST),
        problems=_SUBJECT_PROBLEMS,
    ),
    RouteSpec(
        method="GET",
        path="/v1/catalog",
        need=Need.SIGNED_IN,
        endpoint=catalog,
        tag="catalog",
        response_models=(responses.Catalog,),
        parameters=(AT, KNOWN_AT, AFTER_SETTING, AT_LEAST),
        problems=("bad_time", *AT_LEAST_PROBLEMS),
    ),
]
