"""POST /v1/checks: the decision on a request record, or on many, pinned to one ledger position."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from api import schemas
from api.check_requests import BYTES_MAX, read_plain, read_records
from api.http.bodies import read_json_body
from api.http.parameters import read_query
from api.routes.parameters import AT_LEAST, CHECK_KNOWN_AT
from api.routing import AT_LEAST_PROBLEMS, EncodedResponse, RouteSpec, service_of, wait_for_position
from projections.decisions.encoding import decision_bytes, decisions_bytes
from projections.decisions.model import Decision
from projections.query.query import IN_FORCE, Query

AT_ONCE_BYTES_MAX: Final = 16_384
"""Of a body that may be answered on the event loop, where it takes a millisecond at most."""


async def check(request: Request) -> Response:
    """Decide one request record, or up to 10,000 in order.

    A record without observed handling is a question: allowed or denied. With it, it is judged: compliant, violation
    or indeterminate. By default by what was in force at the record's own time.
    """
    asks = read_query(request, CHECK_KNOWN_AT, AT_LEAST)
    known_at = asks["known_at"]
    sent = await read_json_body(request, BYTES_MAX)
    await wait_for_position(request, asks["at_least"])
    service = service_of(request)
    if known_at == IN_FORCE and len(sent) <= AT_ONCE_BYTES_MAX:
        written = _at_once(service.query, sent)
        if written is not None:
            return EncodedResponse(written)

    def question() -> bytes:
        # Not before: the ledger has reached at_least by now. A record without a time is of this moment's present, which
        # is not before anything that it knows of, whosever clock was ahead when that was recorded.
        context = service.query.context()
        records, several = read_plain(sent, context.now) or read_records(sent, context.now)
        return _encoded(service.query.check_all(records, known_at, context), several)

    return EncodedResponse(await service.ask(question))


def _at_once(query: Query, sent: bytes) -> bytes | None:
    """The answer, if there is nothing about it to wait for."""
    context = query.context_nowait()
    read = None if context is None else read_plain(sent, context.now)
    if context is None or read is None:
        return None
    records, several = read
    decisions = query.check_from_memory(records, context)
    if decisions is None:
        return None
    return _encoded(decisions, several)


def _encoded(decisions: list[Decision], several: bool) -> bytes:
    return decisions_bytes(decisions) if several else decision_bytes(decisions[0])


ROUTES = [
    RouteSpec(
        method="POST",
        path="/v1/checks",
        endpoint=check,
        tag="checks",
        response_models=(
            schemas.Decision,
            schemas.Decisions,
        ),
        parameters=(CHECK_KNOWN_AT, AT_LEAST),
        request_models=(
            schemas.RequestRecord,
            schemas.RequestRecords,
        ),
        examples=schemas.CHECK_EXAMPLES,
        problems=(
            *("bad_json", "body_too_slow", "body_too_large", "unsupported_media_type", "bad_record"),
            *("bad_time", *AT_LEAST_PROBLEMS),
        ),
    )
]
