"""GET /v1/subjects, /v1/subjects/{subject}/state|timeline|history|diff and /v1/catalog: what it meant, at any time.

The path is decoded before it is matched, and a subject takes whatever lies between `/v1/subjects/` and the last
segment, so `model:deepseek-ai/DeepSeek-V3` may be sent raw or percent-encoded.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api import schemas
from api.http.parameters import (
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
    read_query,
    read_subject,
)
from api.responses import catalog_json, diff_json, history_json, state_json, subjects_json, timeline_json
from api.routing import AT_LEAST_PROBLEMS, RouteSpec, answer_off_loop, service_of
from projections.query.history import history


async def subjects(request: Request) -> Response:
    """The subjects that have a history, in byte order of their references."""
    asks = read_query(request, KIND, PREFIX, AFTER_SUBJECT, LIMIT, AT_LEAST)
    service, limit = service_of(request), asks["limit"]

    def question() -> dict[str, Any]:
        position, rows = service.subjects(asks["kind"], asks["prefix"], asks["after"], limit)
        return subjects_json(position, rows, limit)

    return await answer_off_loop(request, question, asks["at_least"])


async def state(request: Request) -> Response:
    """Effective state: every setting of the subject at (at, known_at), each with the event that decided it.

    By default what holds now, with everything known now. A setting without a value of its own shows the catalog's
    default of that moment, and the definition's event.
    """
    subject = read_subject(request)
    asks = read_query(request, AT, KNOWN_AT, SETTINGS, AT_LEAST)
    service = service_of(request)

    def question() -> dict[str, Any]:
        at = service.now() if asks["at"] is None else asks["at"]
        found = service.query.state(subject, at=at, known_at=asks["known_at"], settings=asks["setting"])
        return state_json(found)

    return await answer_off_loop(request, question, asks["at_least"])


async def timeline(request: Request) -> Response:
    """Intervals over valid time, half-open and without gaps; known_at=at gives the in-force timeline."""
    subject = read_subject(request)
    asks = read_query(request, SETTING, KNOWN_AT, AT_LEAST)
    service = service_of(request)

    def question() -> dict[str, Any]:
        return timeline_json(service.query.timeline(subject, setting=asks["setting"], known_at=asks["known_at"]))

    return await answer_off_loop(request, question, asks["at_least"])


async def subject_history(request: Request) -> Response:
    """Every event about the subject, newest first, with its reason; retracted ones are marked."""
    subject = read_subject(request)
    asks = read_query(request, SETTING, AFTER_VERSION, LIMIT, AT_LEAST)
    ledger = service_of(request).ledger

    def question() -> dict[str, Any]:
        found = history(ledger, subject, setting=asks["setting"], after=asks["after"], limit=asks["limit"])
        return history_json(found)

    return await answer_off_loop(request, question, asks["at_least"])


async def diff(request: Request) -> Response:
    """The settings whose value differs between two instants, and the events that did it.

    With known_at=at each of the two shows what was in force then.
    """
    subject = read_subject(request)
    asks = read_query(request, FROM, TO, KNOWN_AT, AT_LEAST)
    service = service_of(request)

    def question() -> dict[str, Any]:
        start, end = asks["from"], service.now() if asks["to"] is None else asks["to"]
        return diff_json(
            subject, start, end, service.query.diff(subject, start=start, end=end, known_at=asks["known_at"])
        )

    return await answer_off_loop(request, question, asks["at_least"])


async def catalog(request: Request) -> Response:
    """The settings that are defined at (at, known_at), each with the event that defined it."""
    asks = read_query(request, AT, KNOWN_AT, AT_LEAST)
    service = service_of(request)

    def question() -> dict[str, Any]:
        at = service.now() if asks["at"] is None else asks["at"]
        return catalog_json(at, service.query.catalog(at=at, known_at=asks["known_at"]))

    return await answer_off_loop(request, question, asks["at_least"])


_OF_A_SUBJECT = ("not_found", "bad_subject", "bad_time", *AT_LEAST_PROBLEMS)

ROUTES = [
    RouteSpec(
        method="GET",
        path="/v1/subjects",
        endpoint=subjects,
        tag="subjects",
        response_models=(schemas.SubjectPage,),
        parameters=(
            KIND,
            PREFIX,
            AFTER_SUBJECT,
            LIMIT,
            AT_LEAST,
        ),
        problems=AT_LEAST_PROBLEMS,
    ),
    RouteSpec(
        method="GET",
        path="/v1/subjects/{subject:path}/state",
        endpoint=state,
        tag="subjects",
        response_models=(schemas.State,),
        parameters=(
            SUBJECT,
            AT,
            KNOWN_AT,
            SETTINGS,
            AT_LEAST,
        ),
        problems=_OF_A_SUBJECT,
    ),
    RouteSpec(
        method="GET",
        path="/v1/subjects/{subject:path}/timeline",
        endpoint=timeline,
        tag="subjects",
        response_models=(schemas.Timeline,),
        parameters=(
            SUBJECT,
            SETTING,
            KNOWN_AT,
            AT_LEAST,
        ),
        problems=_OF_A_SUBJECT,
    ),
    RouteSpec(
        method="GET",
        path="/v1/subjects/{subject:path}/history",
        endpoint=subject_history,
        tag="subjects",
        response_models=(schemas.History,),
        parameters=(
            SUBJECT,
            SETTING,
            AFTER_VERSION,
            LIMIT,
            AT_LEAST,
        ),
        problems=("not_found", "bad_subject", *AT_LEAST_PROBLEMS),
    ),
    RouteSpec(
        method="GET",
        path="/v1/subjects/{subject:path}/diff",
        endpoint=diff,
        tag="subjects",
        response_models=(schemas.Differences,),
        parameters=(
            SUBJECT,
            FROM,
            TO,
            KNOWN_AT,
            AT_LEAST,
        ),
        problems=_OF_A_SUBJECT,
    ),
    RouteSpec(
        method="GET",
        path="/v1/catalog",
        endpoint=catalog,
        tag="catalog",
        response_models=(schemas.Catalog,),
        parameters=(
            AT,
            KNOWN_AT,
            AT_LEAST,
        ),
        problems=("bad_time", *AT_LEAST_PROBLEMS),
    ),
]
