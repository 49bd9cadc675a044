"""POST /v1/checks: the decision on a request record, or on many, pinned to one ledger position."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from api import schemas
from api.answers import decisions_json
from api.bodies import read_json_body
from api.parameters import CHECK_KNOWN_AT, read_query
from api.routing import ASKS_LEDGER, Call, asked, service_of
from ledger import strict_json
from ledger.errors import BadRecord, Fault
from projections.decision import RequestRecord, decision_json, read_record

RECORDS_MAX: Final = 10_000
BYTES_MAX: Final = 8 * 1024 * 1024
"""Room for 10,000 records of some 800 bytes; a submission is larger than a record and gets less."""


async def check(request: Request) -> Response:
    """Decide one request record, or up to 10,000 in order.

    A record without observed handling is a question: allowed or denied. With it, it is judged: compliant, violation
    or indeterminate. By default by what was in force at the record's own time.
    """
    known_at = read_query(request, CHECK_KNOWN_AT)["known_at"]
    sent = await read_json_body(request, BYTES_MAX)
    service = service_of(request)
    now = service.now()

    def question() -> dict[str, Any]:
        body = strict_json.loads(sent, BYTES_MAX)
        if isinstance(body, dict) and "requests" in body:
            return decisions_json(service.query.check_all(read_records(body, now), known_at))
        return decision_json(service.query.check(read_record(body, now), known_at))

    return await asked(request, question)


def read_records(body: dict[str, Any], now: int) -> list[RequestRecord]:
    """The records of `{"requests": […]}`. Raises `BadRecord`, naming every fault by its place in the body."""
    raw = body["requests"]
    if len(body) > 1:
        raise BadRecord("several records have the one member requests", (Fault("", "only requests belongs here"),))
    if not isinstance(raw, list) or not 1 <= len(raw) <= RECORDS_MAX:
        wanted = f"requests must be an array of 1 to {RECORDS_MAX} request records"
        raise BadRecord(wanted, (Fault("/requests", wanted),))
    records: list[RequestRecord] = []
    faults: list[Fault] = []
    for index, one in enumerate(raw):
        try:
            records.append(read_record(one, now, f"/requests/{index}"))
        except BadRecord as error:
            faults.extend(error.faults)
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise BadRecord(f"{faults[0].pointer}: {faults[0].detail}{more}", tuple(faults))
    return records


calls = [
    Call(
        method="POST",
        path="/v1/checks",
        endpoint=check,
        tag="checks",
        answers=(
            schemas.Decision,
            schemas.Decisions,
        ),
        parameters=(CHECK_KNOWN_AT,),
        takes=(
            schemas.RequestRecord,
            schemas.RequestRecords,
        ),
        examples=schemas.CHECK_EXAMPLES,
        problems=(
            *("bad_json", "body_too_slow", "body_too_large", "unsupported_media_type", "bad_record", "bad_parameter"),
            *("bad_time", *ASKS_LEDGER),
        ),
    )
]
