"""POST /v1/events records submissions; GET /v1/events, /v1/events/stream and /v1/events/{event_id} read events back."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from api import within_reach
from api.event_stream import EventStreamResponse
from api.gate import Gate
from api.http.bodies import body_bytes_max, read_json_body
from api.http.parameters import read_query
from api.responses import encode, feed_json, proved_receipts_json, receipts_json
from api.routes.parameters import (
    AFTER_POSITION,
    AT_LEAST,
    EVENT_ID,
    IDEMPOTENCY_KEY,
    LAST_EVENT_ID,
    LIMIT,
    OF_SUBJECT,
    WAIT,
    read_idempotency_key,
    read_last_event_id,
)
from api.routing import (
    AT_LEAST_PROBLEMS,
    LEDGER_PROBLEMS,
    NOT_WRITABLE_PROBLEMS,
    EncodedResponse,
    RouteSpec,
    answer_off_loop,
    caller_of,
    service_of,
    still_admitted,
    wait_for_position,
)
from api.schemas import examples, requests, responses
from ledger.strict_json import MAX_BYTES
from projections.access.rights import Need

CLOUDEVENT: Final = "application/cloudevents+json"
_FOR_EVER: Final = "private, max-age=31536000, immutable"


async def submit(request: Request) -> Response:
    """Record one submission, or a batch atomically.

    Returns once everything is stored durably; if any part fails, nothing is recorded. A retry with the same
    `Idempotency-Key` and body returns the first receipts again, with 201. A receipt says until when its change decides
    and what stays scheduled for the same setting, both as known when it was recorded. With `wait=checkpoint` it returns
    once the events are under a published checkpoint of the log, with a proof in each receipt.
    """
    proved = read_query(request, WAIT)["wait"] is not None
    key = read_idempotency_key(request)
    service = service_of(request)
    if proved:
        service.require_log()
    submit_queue = service.submit_queue
    submit_queue.require_capacity(body_bytes_max(request, MAX_BYTES))
    body = await read_json_body(request, MAX_BYTES)
    caller = await still_admitted(request, Need.SUBMIT)
    parsed = await submit_queue.parse(body, key, caller.actor)
    authority = await service.authority(caller, parsed.submissions)
    submissions, receipts = await submit_queue.submit(parsed, caller.actor, authority)
    outlooks = await service.outlooks(submissions, receipts)
    location = [(b"location", f"/v1/events/{receipts[0].event_id}".encode())] if len(submissions) == 1 else []
    document = receipts_json(receipts, outlooks)
    if proved:
        document = proved_receipts_json(document, await service.proofs([receipt.position for receipt in receipts]))
    return EncodedResponse(encode(document), 201, *location)


async def feed(request: Request) -> Response:
    """Read the feed: all events in the order of their positions.

    Each event is the exact text that was recorded. Send `next_after` as `after` to get the next page.
    """
    query = read_query(request, AFTER_POSITION, LIMIT, OF_SUBJECT, AT_LEAST)
    service, caller = service_of(request), caller_of(request)

    def question() -> dict[str, Any]:
        return feed_json(*within_reach.feed(service, caller, query["after"], query["limit"], query["subject"]))

    return await answer_off_loop(request, question, query["at_least"])


async def event_stream(request: Request) -> Response:
    """Follow the feed as Server-Sent Events until the client hangs up.

    Sends every event after `Last-Event-ID`, or after `after` if that header is absent, in order. A client that
    reconnects gets each event once. While there are no events, the server sends comments.
    """
    after = read_query(request, AFTER_POSITION)["after"]
    last_event_id = read_last_event_id(request)
    after = after if last_event_id is None else last_event_id
    gate: Gate = request.app.state.gate
    admit = partial(gate.admit, request.scope, Need.FEED, again=True) if gate.signs_in else None
    return EventStreamResponse(service_of(request), request.app.state.streams, after, caller_of(request), admit)


async def event(request: Request) -> Response:
    """Read one event, in the exact bytes that were recorded and hashed."""
    at_least = read_query(request, AT_LEAST)["at_least"]
    service, caller = service_of(request), caller_of(request)
    event_id = request.path_params["event_id"]
    await wait_for_position(request, at_least)
    entry = await service.ask(lambda: within_reach.event(service, caller, event_id))
    return Response(entry.leaf, 200, {"Cache-Control": _FOR_EVER}, CLOUDEVENT)


ROUTES = [
    RouteSpec(
        method="POST",
        path="/v1/events",
        need=Need.SUBMIT,
        endpoint=submit,
        tag="events",
        status=201,
        response_models=(responses.Receipts,),
        parameters=(IDEMPOTENCY_KEY, WAIT),
        request_models=(
            requests.SettingChange,
            requests.SettingClear,
            requests.ChangeRetraction,
            requests.SettingDefined,
            requests.SubmissionBatch,
        ),
        examples=examples.SUBMISSION_EXAMPLES,
        problems=(
            *("bad_json", "bad_idempotency_key", "body_too_slow", "version_conflict", "idempotency_key_in_flight"),
            *("body_too_large", "unsupported_media_type", "bad_submission", "bad_parameter", "idempotency_key_reused"),
            *("ledger_busy", "log_not_signed", "not_found"),
            *NOT_WRITABLE_PROBLEMS,
            *LEDGER_PROBLEMS,
        ),
        headers={"Location": {"description": "The event's path, if it is a single one.", "schema": {"type": "string"}}},
    ),
    RouteSpec(
        method="GET",
        path="/v1/events",
        need=Need.FEED,
        endpoint=feed,
        tag="events",
        response_models=(responses.EventPage,),
        parameters=(AFTER_POSITION, LIMIT, OF_SUBJECT, AT_LEAST),
        problems=("ahead_of_ledger", *AT_LEAST_PROBLEMS),
    ),
    # Before the route of one event, whose path would match this one too.
    RouteSpec(
        method="GET",
        path="/v1/events/stream",
        need=Need.FEED,
        endpoint=event_stream,
        tag="events",
        response_models=(responses.EventStream,),
        media_type=EventStreamResponse.media_type,
        parameters=(AFTER_POSITION, LAST_EVENT_ID),
        problems=("bad_parameter", "ahead_of_ledger", "too_many_streams", *LEDGER_PROBLEMS),
    ),
    RouteSpec(
        method="GET",
        path="/v1/events/{event_id}",
        need=Need.FEED,
        endpoint=event,
        tag="events",
        response_models=(responses.Event,),
        media_type=CLOUDEVENT,
        parameters=(EVENT_ID, AT_LEAST),
        problems=("not_found", *AT_LEAST_PROBLEMS),
    ),
]
