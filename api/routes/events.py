"""POST /v1/events, GET /v1/events, GET /v1/events/{event_id}: saying things, and the feed of what was said."""

from __future__ import annotations

import hashlib
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from api import schemas
from api.answers import encode, feed_json, receipts_json
from api.bodies import read_json_body
from api.parameters import (
    AFTER_POSITION,
    EVENT_ID,
    IDEMPOTENCY_KEY,
    LIMIT,
    OF_SUBJECT,
    read_idempotency_key,
    read_query,
)
from api.routing import ASKS_LEDGER, JSON, Call, asked, service_of
from api.service import ANONYMOUS
from ledger import strict_json
from ledger.drafts import Idempotency
from ledger.store import Receipt
from ledger.strict_json import MAX_BYTES
from ledger.submissions import canonical_json, parse_submissions

CLOUDEVENT: Final = "application/cloudevents+json"
_FOR_EVER: Final = "private, max-age=31536000, immutable"


async def submit(request: Request) -> Response:
    """Record one submission, or a batch as one.

    Recorded durably, all of it or nothing. A retry with the same `Idempotency-Key` and body answers the first receipts
    again, with 201.
    """
    read_query(request)
    key = read_idempotency_key(request)
    sent = await read_json_body(request, MAX_BYTES)
    service = service_of(request)

    def submission() -> tuple[Receipt, ...]:
        body = strict_json.loads(sent, MAX_BYTES)
        idempotency = None
        if key is not None:
            idempotency = Idempotency(ANONYMOUS, key, hashlib.sha256(canonical_json(body)).digest())
        return service.submit(parse_submissions(body), idempotency, batch="events" in body)

    receipts = await service.record(submission)
    headers = {"Location": f"/v1/events/{receipts[0].event_id}"} if len(receipts) == 1 else None
    return Response(encode(receipts_json(receipts)), 201, headers, JSON)


async def feed(request: Request) -> Response:
    """The feed: events in the order of their positions, none skipped.

    Each event is the exact text that was recorded. Send `next_after` as `after` to go on.
    """
    asks = read_query(request, AFTER_POSITION, LIMIT, OF_SUBJECT)
    service = service_of(request)
    return await asked(request, lambda: feed_json(*service.feed(asks["after"], asks["limit"], asks["subject"])))


async def event(request: Request) -> Response:
    """One event, in the exact bytes that were recorded and hashed."""
    read_query(request)
    service = service_of(request)
    event_id = request.path_params["event_id"]
    entry = await service.ask(lambda: service.ledger.event(event_id))
    return Response(entry.leaf, 200, {"Cache-Control": _FOR_EVER}, CLOUDEVENT)


calls = [
    Call(
        method="POST",
        path="/v1/events",
        endpoint=submit,
        tag="events",
        status=201,
        answers=(schemas.Receipts,),
        parameters=(IDEMPOTENCY_KEY,),
        takes=(
            schemas.SettingChange,
            schemas.SettingClear,
            schemas.ChangeRetraction,
            schemas.SettingDefined,
            schemas.SubmissionBatch,
        ),
        examples=schemas.SUBMISSION_EXAMPLES,
        problems=(
            *("bad_json", "bad_idempotency_key", "body_too_slow", "version_conflict", "idempotency_key_in_flight"),
            *("body_too_large", "unsupported_media_type", "bad_submission", "bad_parameter", "idempotency_key_reused"),
            *ASKS_LEDGER,
        ),
        headers={"Location": {"description": "Of the event, where it is one.", "schema": {"type": "string"}}},
    ),
    Call(
        method="GET",
        path="/v1/events",
        endpoint=feed,
        tag="events",
        answers=(schemas.EventPage,),
        parameters=(
            AFTER_POSITION,
            LIMIT,
            OF_SUBJECT,
        ),
        problems=("bad_parameter", *ASKS_LEDGER),
    ),
    Call(
        method="GET",
        path="/v1/events/{event_id}",
        endpoint=event,
        tag="events",
        answers=(schemas.Event,),
        media_type=CLOUDEVENT,
        parameters=(EVENT_ID,),
        problems=("not_found", "bad_parameter", *ASKS_LEDGER),
    ),
]
