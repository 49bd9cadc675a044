"""The body of POST /v1/checks, read.

`read_records` is the meaning: `ledger.strict_json`, then `read_record`, with every fault in its own words. `read_plain`
reads what nearly every client sends, several times faster, and answers None wherever it is not certain that
`read_records` would take the body and come to the same records. It refuses nothing itself. Why it can be certain:

- ASCII without a backslash: so no escapes, no surrogates, no byte order mark, nothing that is not UTF-8;
- members twice: where no white space stands between a quote and a colon, every member's name ends in `":`, and nothing
  else can hold that pair without a backslash. As many of them as members that were found: so each was found;
- unknown members, and values of another type, msgspec refuses; a whole number that is written 1.0 it shows as a float;
- nesting is what the shape allows, and numbers stand in one place only.

Proved by tests/api/test_check_requests.py: both readers on valid, invalid and mutated bodies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from types import GenericAlias
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from ledger import strict_json
from ledger.errors import BadRecord, BadTime, Fault
from ledger.subjects import is_id
from ledger.times import parse_time_once
from projections.decisions.model import NOTHING_OBSERVED, TEXT_MAX, Observed, RequestRecord, read_record

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


# In the order of `Observed` and of `RequestRecord`.
_FLAG: Final[Any] = bool | UnsetType | None
_TEXT: Final[Any] = str | UnsetType | None
_DONE: Final[dict[str, Any]] = {
    "stored": _FLAG,
    "cached": _FLAG,
    "trained": _FLAG,
    "forwarded_to": _TEXT,
    "region": _TEXT,
    "network": Literal["public", "private"] | UnsetType | None,
}
_SAID: Final[dict[str, Any]] = {
    "at": _TEXT,
    "key_id": _TEXT,
    "account_id": _TEXT,
    "org_id": _TEXT,
    "project_id": _TEXT,
    "model_id": _TEXT,
    "request_id": _TEXT,
    # A float too, so that one is seen for what it is.
    "enforced_position": int | float | UnsetType | None,
}
_WIDTH: Final = len(RequestRecord._fields)

assert (*_SAID, "handling") == RequestRecord._fields
assert tuple(_DONE) == Observed._fields


def _decoder(absent: UnsetType | None) -> Callable[[bytes], Any]:
    """Reads bodies into structs where `absent` stands for a member that is not there."""

    def struct(name: str, members: dict[str, Any], *more: tuple[str, Any, Any]) -> Any:
        fields = [*((member, type_, absent) for member, type_ in members.items()), *more]
        # Frozen, so that those of one kind can be found in a dict.
        return msgspec.defstruct(name, fields, forbid_unknown_fields=True, gc=False, frozen=True)

    handling = ("handling", struct("Handling", _DONE) | UnsetType | None, absent)
    records = GenericAlias(list, struct("Record", _SAID, handling))
    return msgspec.json.Decoder(struct("Body", _SAID, handling, ("requests", records | UnsetType, UNSET))).decode


_decode: Final = _decoder(None)
_decode_nulls: Final = _decoder(UNSET)
_astuple: Final = msgspec.structs.astuple
_new: Final = tuple.__new__
_SPACED: Final = re.compile(rb'"[ \t\r\n]+:')


class _Unusual(Exception):
    """Left to `read_records`."""


def read_plain(sent: bytes, now: int) -> Records | None:
    """The same as `read_records`, or None where that has to look."""
    if not sent.isascii() or b"\\" in sent or len(sent) > BYTES_MAX or _SPACED.search(sent) is not None:
        return None
    # Without a null, None is what is not there, and nothing has to be told from it.
    nulls = b"null" in sent
    try:
        body = _decode_nulls(sent) if nulls else _decode(sent)
        several = body.requests is not UNSET
        if several and not 1 <= len(body.requests) <= RECORDS_MAX:
            return None
        values = map(_astuple, body.requests) if several else [_astuple(body)[:_WIDTH]]
        records, members = _records(values, now, nulls)
    except (ValueError, RecursionError, BadTime, _Unusual):
        return None
    # What stands beside `requests` counts as a member that was not found.
    return (records, several) if members + several == sent.count(b'":') else None


def _records(values: Iterable[tuple[Any, ...]], now: int, nulls: bool) -> tuple[list[RequestRecord], int]:
    """The records, and how many members were found. `values`: in the order of `RequestRecord`; what is absent is UNSET
    if there are `nulls`, else None. Raises `_Unusual` and `BadTime`."""
    absent = UNSET if nulls else None
    records: list[RequestRecord] = []
    members = 0
    # Logs name the same ids and the same doings again and again: each is looked at once.
    ids: set[str | None] = {None}
    done: dict[Any, tuple[Observed | None, int]] = {}
    for sent in values:
        members += _WIDTH - sent.count(absent)
        said = tuple([None if value is UNSET else value for value in sent]) if nulls else sent
        at, key, account, org, project, model, request_id, enforced, handling = said
        if key is None and account is None and org is None and project is None:
            raise _Unusual
        named = said[1:6]
        if not ids.issuperset(named):
            for text in named:
                if text is not None and not is_id(text):
                    raise _Unusual
            ids.update(named)
        if request_id is not None and not _fits(request_id):
            raise _Unusual
        if enforced is not None and (type(enforced) is not int or enforced < 0):
            raise _Unusual
        if handling is not None:
            seen = done.get(handling)
            if seen is None:
                seen = done[handling] = _observed(_astuple(handling), absent)
            handling, found = seen
            members += found
        instant = now if at is None else parse_time_once(at)
        # As RequestRecord(…) does it, at less than half the price.
        record = (instant, key, account, org, project, model, request_id, enforced, handling)
        records.append(_new(RequestRecord, record))
    return records, members


def _observed(doings: tuple[Any, ...], absent: UnsetType | None) -> tuple[Observed | None, int]:
    """What was done, and how many members said it. Raises `_Unusual`."""
    found = len(doings) - doings.count(absent)
    observed = Observed._make([None if value is UNSET else value for value in doings])
    if not all(text is None or _fits(text) for text in (observed.forwarded_to, observed.region)):
        raise _Unusual
    return None if observed == NOTHING_OBSERVED else observed, found


def _fits(text: str) -> bool:
    return 1 <= len(text) <= TEXT_MAX
