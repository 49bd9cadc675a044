"""Parses the body of POST /v1/checks.

`read_records` defines the meaning: `ledger.strict_json`, then `read_record`, with a message for every fault.
`read_plain` parses the form that nearly every client sends, in 40 % of the time. It returns None whenever it is not
certain that `read_records` accepts the body with the same result; it never refuses a body. It is certain because:

- it accepts ASCII without backslashes only: no escapes, no surrogates, no byte order mark, no invalid UTF-8;
- no member is duplicated: where no white space stands between a quote and a colon, every member name ends in `":`, and
  without backslashes nothing else contains that pair. It counts these pairs and compares with the members it parsed;
- msgspec refuses unknown members and values of a wrong type, and parses a whole number written as 1.0 to a float;
- the types allow no deeper nesting, and a number in one place only.

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
from ledger.subjects import KINDS, is_id
from ledger.times import parse_time_uncached
from projections.decisions.model import NOTHING_OBSERVED, TEXT_MAX, Observed, RequestRecord, read_record

RECORDS_MAX: Final = 10_000
BYTES_MAX: Final = 8 * 1024 * 1024
"""Enough for 10,000 records of some 800 bytes. Bodies of submissions have a smaller bound."""

VALUES_MAX: Final = 250_000
"""JSON values of a body: more than 10,000 records with every member have."""
_COUNTED_BYTES: Final = 65_536
"""A body up to this size needs little memory, whatever it holds."""

Records = tuple[list[RequestRecord], bool]
"""The records, and whether the body has the member requests."""


def read_records(body: bytes, now: int) -> Records:
    """`now` (µs) replaces an absent `at`. Raises `BadJson`, and `BadRecord` with every fault and its pointer."""
    value = strict_json.loads(body, BYTES_MAX, values_max=VALUES_MAX)
    if isinstance(value, dict) and "requests" in value:
        return _read_batch(value, now), True
    return [read_record(value, now)], False


def _read_batch(value: dict[str, Any], now: int) -> list[RequestRecord]:
    items = value["requests"]
    if len(value) > 1:
        raise BadRecord("a batch of records has no member but requests", (Fault("", "only requests belongs here"),))
    if not isinstance(items, list) or not 1 <= len(items) <= RECORDS_MAX:
        detail = f"requests must be an array of 1 to {RECORDS_MAX} request records"
        raise BadRecord(detail, (Fault("/requests", detail),))
    records: list[RequestRecord] = []
    faults: list[Fault] = []
    for index, item in enumerate(items):
        try:
            records.append(read_record(item, now, f"/requests/{index}"))
        except BadRecord as error:
            faults.extend(error.faults)
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise BadRecord(f"{faults[0].pointer}: {faults[0].detail}{more}", tuple(faults))
    return records


# In the order of `Observed` and of `RequestRecord`, as the assertions below check.
_FLAG: Final[Any] = bool | UnsetType | None
_TEXT: Final[Any] = str | UnsetType | None
_HANDLING_FIELDS: Final[dict[str, Any]] = {
    "stored": _FLAG,
    "cached": _FLAG,
    "trained": _FLAG,
    "forwarded_to": _TEXT,
    "region": _TEXT,
    "network": Literal["public", "private"] | UnsetType | None,
    "precision": _TEXT,
    "distilled": _FLAG,
    "system_prompt_forced": _FLAG,
    "censored": _FLAG,
    "revision": _TEXT,
}
_RECORD_FIELDS: Final[dict[str, Any]] = {
    "at": _TEXT,
    "key_id": _TEXT,
    "account_id": _TEXT,
    "org_id": _TEXT,
    "project_id": _TEXT,
    "model_id": _TEXT,
    "request_id": _TEXT,
    # With float, so that 1.0 is parsed as a float, and not as a whole number.
    "enforced_position": int | float | UnsetType | None,
}
_KIND_PREFIXES: Final = tuple(f"{kind}:" for kind in KINDS)
"""An id may not hold its kind: `read_record` looks at these."""
_WIDTH: Final = len(RequestRecord._fields)

assert (*_RECORD_FIELDS, "handling") == RequestRecord._fields
assert tuple(_HANDLING_FIELDS) == Observed._fields


def _decoder(absent: UnsetType | None) -> Callable[[bytes], Any]:
    """Decodes bodies into structs in which `absent` marks an absent member."""

    def struct(name: str, members: dict[str, Any], *more: tuple[str, Any, Any]) -> Any:
        fields = [*((member, type_, absent) for member, type_ in members.items()), *more]
        # Frozen, so that structs can be keys of a dict.
        return msgspec.defstruct(name, fields, forbid_unknown_fields=True, gc=False, frozen=True)

    handling = ("handling", struct("Handling", _HANDLING_FIELDS) | UnsetType | None, absent)
    records = GenericAlias(list, struct("Record", _RECORD_FIELDS, handling))
    return msgspec.json.Decoder(
        struct("Body", _RECORD_FIELDS, handling, ("requests", records | UnsetType, UNSET))
    ).decode


_decode: Final = _decoder(None)
_decode_nulls: Final = _decoder(UNSET)
_astuple: Final = msgspec.structs.astuple
_new: Final = tuple.__new__
_SPACED: Final = re.compile(rb'"[ \t\r\n]+:')


class _NotPlain(Exception):
    """`read_records` must read the body."""


def read_plain(body: bytes, now: int) -> Records | None:
    """The result of `read_records`, or None if only that function can tell."""
    if not body.isascii() or b"\\" in body or len(body) > BYTES_MAX or _SPACED.search(body) is not None:
        return None
    # Each empty record takes a hundred times its size: `read_records` refuses such a body before it is parsed.
    if len(body) > _COUNTED_BYTES and body.count(b"{") > 2 * RECORDS_MAX + 1:
        return None
    # Without a null in the body, None can mark absent members.
    has_null = b"null" in body
    try:
        value = _decode_nulls(body) if has_null else _decode(body)
        is_batch = value.requests is not UNSET
        if is_batch and not 1 <= len(value.requests) <= RECORDS_MAX:
            return None
        rows = map(_astuple, value.requests) if is_batch else [_astuple(value)[:_WIDTH]]
        records, members = _records(rows, now, has_null)
    except (ValueError, RecursionError, BadTime, _NotPlain):
        return None
    # Members beside `requests` were not counted, so they make the two sides differ.
    return (records, is_batch) if members + is_batch == body.count(b'":') else None


def _records(rows: Iterable[tuple[Any, ...]], now: int, has_null: bool) -> tuple[list[RequestRecord], int]:
    """(the records, the number of their members). `rows`: in the order of `RequestRecord`; an absent member is UNSET if
    `has_null`, else None. Raises `_NotPlain` and `BadTime`."""
    absent = UNSET if has_null else None
    records: list[RequestRecord] = []
    members = 0
    # Logs repeat ids and handlings, so each distinct one is checked once.
    valid_ids: set[str | None] = {None}
    observations: dict[Any, tuple[Observed | None, int]] = {}
    for row in rows:
        members += _WIDTH - row.count(absent)
        values = tuple([None if value is UNSET else value for value in row]) if has_null else row
        at, key, account, org, project, model, request_id, enforced, handling = values
        if key is None and account is None and org is None and project is None:
            raise _NotPlain
        ids = values[1:6]
        if not valid_ids.issuperset(ids):
            for text in ids:
                if text is not None and (not is_id(text) or text.startswith(_KIND_PREFIXES)):
                    raise _NotPlain
            valid_ids.update(ids)
        if request_id is not None and not _fits(request_id):
            raise _NotPlain
        if enforced is not None and (type(enforced) is not int or enforced < 0):
            raise _NotPlain
        if handling is not None:
            observation = observations.get(handling)
            if observation is None:
                observation = observations[handling] = _observed(_astuple(handling), absent)
            handling, handling_members = observation
            members += handling_members
        instant = now if at is None else parse_time_uncached(at)
        # Builds what RequestRecord(…) builds, at less than half the cost.
        record = (instant, key, account, org, project, model, request_id, enforced, handling)
        records.append(_new(RequestRecord, record))
    return records, members


def _observed(row: tuple[Any, ...], absent: UnsetType | None) -> tuple[Observed | None, int]:
    """(the observed handling, the number of its members). Raises `_NotPlain`."""
    members = len(row) - row.count(absent)
    observed = Observed._make([None if value is UNSET else value for value in row])
    texts = (observed.forwarded_to, observed.region, observed.precision, observed.revision)
    if not all(text is None or _fits(text) for text in texts):
        raise _NotPlain
    return None if observed == NOTHING_OBSERVED else observed, members


def _fits(text: str) -> bool:
    return 1 <= len(text) <= TEXT_MAX
