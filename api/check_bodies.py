"""The body of POST /v1/checks, read.

`read_records` is the meaning: `ledger.strict_json`, then `read_record`, with every fault in its own words. `read_plain`
reads what nearly every client sends, several times faster, and answers None wherever it is not certain that
`read_records` would take the body and come to the same records. It refuses nothing itself. Why it can be certain:

- ASCII without a backslash: so no escapes, no surrogates, no byte order mark, nothing that is not UTF-8;
- members twice: where no white space stands between a quote and a colon, every member's name ends in `":`, and nothing
  else can hold that pair without a backslash. As many of them as members that were found: so each was found;
- unknown members, and values of another type, msgspec refuses; a whole number that is written 1.0 it shows as a float;
- nesting is what the shape allows, and numbers stand in one place only.

Proved by tests/api/test_check_bodies.py: both readers on valid, invalid and mutated bodies.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from ledger import strict_json
from ledger.errors import BadRecord, BadTime, Fault
from ledger.subjects import is_id
from ledger.times import parse_time
from projections.decision import NOTHING_OBSERVED, TEXT_MAX, Observed, RequestRecord, read_record

RECORDS_MAX: Final = 10_000
BYTES_MAX: Final = 8 * 1024 * 1024
"""Room for 10,000 records of some 800 bytes; a submission is larger than a record and gets less."""

Records = tuple[list[RequestRecord], bool]
"""The records, and whether they came as several."""


def read_records(sent: bytes, now: int) -> Records:
    """`now` (µs) stands in for an absent `at`. Raises `BadJson`, and `BadRecord` naming every fault by its place."""
    body = strict_json.loads(sent, BYTES_MAX)
    if isinstance(body, dict) and "requests" in body:
        return _several(body, now), True
    return [read_record(body, now)], False


def _several(body: dict[str, Any], now: int) -> list[RequestRecord]:
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


class _Observed(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """In the order of `Observed`."""

    stored: bool | UnsetType | None = UNSET
    cached: bool | UnsetType | None = UNSET
    trained: bool | UnsetType | None = UNSET
    forwarded_to: str | UnsetType | None = UNSET
    region: str | UnsetType | None = UNSET
    network: Literal["public", "private"] | UnsetType | None = UNSET


class _Record(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    at: str | UnsetType | None = UNSET
    key_id: str | UnsetType | None = UNSET
    account_id: str | UnsetType | None = UNSET
    org_id: str | UnsetType | None = UNSET
    project_id: str | UnsetType | None = UNSET
    model_id: str | UnsetType | None = UNSET
    request_id: str | UnsetType | None = UNSET
    # A float too, so that one is seen for what it is.
    enforced_position: int | float | UnsetType | None = UNSET
    handling: _Observed | UnsetType | None = UNSET


class _Body(_Record, forbid_unknown_fields=True, gc=False):
    requests: list[_Record] | UnsetType = UNSET


assert _Record.__struct_fields__ == RequestRecord._fields
assert _Observed.__struct_fields__ == Observed._fields

_decode: Final = msgspec.json.Decoder(_Body).decode
_astuple: Final = msgspec.structs.astuple
_SPACED: Final = re.compile(rb'"[ \t\r\n]+:')


class _Unusual(Exception):
    """Left to `read_records`."""


def read_plain(sent: bytes, now: int) -> Records | None:
    """The same as `read_records`, or None where that has to look."""
    if not sent.isascii() or b"\\" in sent or len(sent) > BYTES_MAX or _SPACED.search(sent) is not None:
        return None
    try:
        body = _decode(sent)
        if body.requests is UNSET:
            members = [0]
            records = [_record(body, now, members)]
            several = False
        else:
            if not 1 <= len(body.requests) <= RECORDS_MAX:
                return None
            # What stands beside it counts as a member that was not found.
            members = [1]
            records = [_record(one, now, members) for one in body.requests]
            several = True
    except (ValueError, RecursionError, BadTime, _Unusual):
        return None
    return (records, several) if members[0] == sent.count(b'":') else None


def _record(said: _Record, now: int, members: list[int]) -> RequestRecord:
    """Adds the members that were found to `members`. Raises `_Unusual` and `BadTime`."""
    values = _astuple(said)[: len(_Record.__struct_fields__)]
    absent = values.count(UNSET)
    found = len(values) - absent
    if absent:
        values = tuple([None if value is UNSET else value for value in values])
    at, key, account, org, project, model, request_id, enforced, handling = values
    if key is None and account is None and org is None and project is None:
        raise _Unusual
    for text in (key, account, org, project, model):
        if text is not None and not is_id(text):
            raise _Unusual
    if enforced is not None and (type(enforced) is not int or enforced < 0):
        raise _Unusual
    observed = None
    if handling is not None:
        done = _astuple(handling)
        found += len(done) - done.count(UNSET)
        observed = Observed._make([None if value is UNSET else value for value in done])
        if observed == NOTHING_OBSERVED:
            observed = None
        elif not (_fits(observed.forwarded_to) and _fits(observed.region)):
            raise _Unusual
    if not _fits(request_id):
        raise _Unusual
    members[0] += found
    instant = now if at is None else parse_time(at)
    return RequestRecord(instant, key, account, org, project, model, request_id, enforced, observed)


def _fits(text: str | None) -> bool:
    return text is None or 1 <= len(text) <= TEXT_MAX
