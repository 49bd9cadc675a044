"""GET /v1/subjects, /v1/subjects/{subject}/state|timeline|history|diff and /v1/catalog: what it meant, at any time.

The path is decoded before it is matched, and a subject takes whatever lies between `/v1/subjects/` and the last
segment, so `model:deepseek-ai/DeepSeek-V3` may be sent raw or percent-encoded.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from api import schemas
from api.answers import catalog_json, diff_json, history_json, state_json, subjects_json, timeline_json
from api.parameters import (
    AFTER_SUBJECT,
    AFTER_VERSION,
    AT,
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
from api.routing import ASKS_LEDGER, answer, call, service_of
from projections.history import history
from projections.query import IN_FORCE


async def subjects(request: Request) -> Response:
    """The subjects that have a history, in byte order of their references."""
    query = read_query(request, KIND, PREFIX, AFTER_SUBJECT, LIMIT)
    service = service_of(request)
    limit = query["limit"]
    position, rows = await service.ask(
        lambda: service.subjects(query["kind"], query["prefix"], query["after"], limit)
    )
    return answer(subjects_json(position, rows, limit))


async def state(request: Request) -> Response:
    """Effective state: every setting of the subject at (at, known_at), each with the event that decided it.

    By default what holds now, with everything known now. A setting without a value of its own shows the catalog's
    default of that moment, and the definition's event.
    """
    subject = read_subject(request)
    query = read_query(request, AT, KNOWN_AT, SETTINGS)
    service = service_of(request)
    at = service.now() if query["at"] is None else query["at"]
    found = await service.ask(
        lambda: service.query.state(subject, at=at, known_at=query["known_at"], settings=query["setting"])
    )
    return answer(state_json(found))


async def timeline(request: Request) -> Response:
    """Intervals over valid time, half-open and without gaps; known_at=at gives the in-force timeline."""
    subject = read_subject(request)
    query = read_query(request, SETTING, KNOWN_AT)
    service = service_of(request)
    found = await service.ask(
        lambda: service.query.timeline(subject, setting=query["setting"], known_at=query["known_at"])
    )
    return answer(timeline_json(found))


async def subject_history(request: Request) -> Response:
    """Every event about the subject, newest first, with its reason; retracted ones are marked."""
    subject = read_subject(request)
    query = read_query(request, SETTING, AFTER_VERSION, LIMIT)
    service = service_of(request)
    found = await service.ask(
        lambda: history(
            service.ledger, subject, setting=query["setting"], after=query["after"], limit=query["limit"]
        )
    )
    return answer(history_json(found))


async def diff(request: Request) -> Response:
    """The settings whose value differs between two instants, and the events that did it.

    With known_at=at each of the two shows what was in force then.
    """
    subject = read_subject(request)
    query = read_query(request, FROM, TO, KNOWN_AT)
    service = service_of(request)
    now = service.now()
    start, end = query["from"], now if query["to"] is None else query["to"]
    known_at = query["known_at"]
    position, differences = await service.ask(
        lambda: service.query.diff(subject, start=start, end=end, known_at=known_at)
    )
    shown = None if known_at == IN_FORCE else now if known_at is None else known_at
    return answer(diff_json(subject, start, end, shown, position, differences))


async def catalog(request: Request) -> Response:
    """The settings that are defined at (at, known_at), each with the event that defined it."""
    query = read_query(request, AT, KNOWN_AT)
    service = service_of(request)
    now = service.now()
    at = now if query["at"] is None else query["at"]
    known_at = query["known_at"]
    position, definitions = await service.ask(lambda: service.query.catalog(at=at, known_at=known_at))
    shown = at if known_at == IN_FORCE else now if known_at is None else known_at
    return answer(catalog_json(at, shown, position, definitions))


_OF_A_SUBJECT = ("not_found", "bad_subject", "bad_parameter", "bad_time", *ASKS_LEDGER)

routes = [
    call(
        "GET",
        "/v1/subjects",
        subjects,
        tag="subjects",
        answers=[schemas.SubjectPage],
        parameters=[KIND, PREFIX, AFTER_SUBJECT, LIMIT],
        problems=("bad_parameter", *ASKS_LEDGER),
    ),
    call(
        "GET",
        "/v1/subjects/{subject:path}/state",
        state,
        tag="subjects",
        answers=[schemas.State],
        parameters=[SUBJECT, AT, KNOWN_AT, SETTINGS],
        problems=_OF_A_SUBJECT,
    ),
    call(
        "GET",
        "/v1/subjects/{subject:path}/timeline",
        timeline,
        tag="subjects",
        answers=[schemas.Timeline],
        parameters=[SUBJECT, SETTING, KNOWN_AT],
        problems=_OF_A_SUBJECT,
    ),
    call(
        "GET",
        "/v1/subjects/{subject:path}/history",
        subject_history,
        tag="subjects",
        answers=[schemas.History],
        parameters=[SUBJECT, SETTING, AFTER_VERSION, LIMIT],
        problems=("not_found", "bad_subject", "bad_parameter", *ASKS_LEDGER),
    ),
    call(
        "GET",
        "/v1/subjects/{subject:path}/diff",
        diff,
        tag="subjects",
        answers=[schemas.Differences],
        parameters=[SUBJECT, FROM, TO, KNOWN_AT],
        problems=_OF_A_SUBJECT,
    ),
    call(
        "GET",
        "/v1/catalog",
        catalog,
        tag="catalog",
        answers=[schemas.Catalog],
        parameters=[AT, KNOWN_AT],
        problems=("bad_parameter", "bad_time", *ASKS_LEDGER),
    ),
]
