"""POST /v1/checks decides one request record or many, pinned to one ledger position.

Proved by tests/api/routes/test_checks.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from api.check_requests import BYTES_MAX, read_plain, read_records
from api.http.bodies import read_json_body
from api.http.parameters import read_query
from api.routes.parameters import AT_LEAST, CHECK_KNOWN_AT
from api.routing import AT_LEAST_PROBLEMS, EncodedResponse, RouteSpec, caller_of, service_of, wait_for_position
from api.schemas import decisions, examples, requests
from projections.access.reach import require_records
from projections.access.rights import Need
from projections.decisions.encoding import decision_bytes, decisions_bytes
from projections.decisions.model import Decision, Verdict
from projections.query.decide import decide, decide_from_memory
from projections.query.query import IN_FORCE, Query

MEMORY_BYTES_MAX: Final = 16_384
"""Size of a body that the event loop may answer from memory, which takes at most a millisecond."""
LARGE_BYTES: Final = 262_144
"""Bodies over this size are decided one at a time, because parsed they take several times their size."""


async def check(request: Request) -> Response:
    """Decide one request record, or up to 10,000 in order.

    A record without observed handling is a question: its verdict is allowed or denied. With observed handling the
    verdict is compliant, violation or indeterminate. By default the settings in force at the record's own time decide.
    An answer to many records that is larger than 1 MiB gives each piece of evidence once; one that reaches 8 MiB ends
    early with `next_after`.
    """
    query = read_query(request, CHECK_KNOWN_AT, AT_LEAST)
    known_at = query["known_at"]
    body = await read_json_body(request, BYTES_MAX)
    await wait_for_position(request, query["at_least"])
    service, caller = service_of(request), caller_of(request)
    everywhere = caller.extent(Need.CHECK) == "all"
    if everywhere and known_at == IN_FORCE and len(body) <= MEMORY_BYTES_MAX:
        answer = _answer_from_memory(service.query, body)
        if answer is not None:
            return _respond(request, answer)

    def question() -> _Answer:
        # Created only now, when the ledger has reached at_least. Its present, which replaces an absent `at`, is never
        # before the last event, even if another writer's clock was ahead.
        context = service.query.context()
        records, is_batch = read_plain(body, context.now) or read_records(body, context.now)
        if not everywhere:
            require_records(caller, context, records, known_at, is_batch)
        return _encode(decide(records, known_at, context), context.position, is_batch, len(records))

    ask = service.ask if len(body) <= LARGE_BYTES else service.ask_large
    return _respond(request, await ask(question))


class _Answer(NamedTuple):
    encoded: bytes
    verdicts: list[Verdict]
    """Of the records that it decides."""


def _respond(request: Request, answer: _Answer) -> Response:
    # Here, on the event loop, because counters have no lock.
    checks = request.app.state.metrics.checks
    for verdict in answer.verdicts:
        checks[verdict] += 1
    return EncodedResponse(answer.encoded)


def _answer_from_memory(query: Query, body: bytes) -> _Answer | None:
    """The encoded answer, or None if it may have to wait for the database or a lock."""
    context = query.context_nowait()
    parsed = None if context is None else read_plain(body, context.now)
    if context is None or parsed is None:
        return None
    records, is_batch = parsed
    decisions = decide_from_memory(records, context)
    return None if decisions is None else _encode(decisions, context.position, is_batch, len(records))


def _encode(decisions: Iterable[Decision], position: int, is_batch: bool, count: int) -> _Answer:
    if not is_batch:
        decision = next(iter(decisions))
        return _Answer(decision_bytes(decision), [decision.outcome.verdict])
    verdicts: list[Verdict] = []

    def counted() -> Iterator[Decision]:
        for decision in decisions:
            verdicts.append(decision.outcome.verdict)
            yield decision

    return _Answer(decisions_bytes(counted(), position, count), verdicts)


ROUTES = [
    RouteSpec(
        method="POST",
        path="/v1/checks",
        need=Need.CHECK,
        endpoint=check,
        tag="checks",
        response_models=(decisions.Decision, decisions.Decisions),
        parameters=(CHECK_KNOWN_AT, AT_LEAST),
        request_models=(requests.RequestRecord, requests.RequestRecords),
        examples=examples.CHECK_EXAMPLES,
        problems=(
            *("bad_json", "body_too_slow", "body_too_large", "unsupported_media_type", "bad_record"),
            *("bad_time", "not_found", *AT_LEAST_PROBLEMS),
        ),
    )
]
