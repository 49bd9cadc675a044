"""Changes and retractions: what the fold takes, read from an event's leaf.

A definition is a change too: the setting's definition on `catalog:settings`, from its effective_from on, without end.

Timelines hold no large value: a `LargeValue` stands in its place, and names the event that has it. So the memory of a
subject grows with the number of its events, not with their values. `query.large_values` reads the value for an answer.
Proved by tests/temporal/test_changes.py and tests/query/test_large_values.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import msgspec
from msgspec import UNSET
from msgspec.msgpack import Ext
from msgspec.structs import replace

from ledger import codec
from ledger.codec import Leaf, parse_leaf
from ledger.errors import BadTime, LedgerCorrupt
from ledger.times import parse_time

LargeValue = Ext
"""In the place of a large value: the position of the event that has it, and the size of its JSON."""
JsonValue = bool | int | str | list[str] | dict[str, Any] | LargeValue | None

LARGE_BYTES: Final = 1_000
"""By `value_bytes`. A larger text or set is large. Definitions never are: few, and read at every question."""
_MEMBER_BYTES: Final = 60
"""Of a text in a set, beside its characters."""
_LARGE_CODE: Final = 1
_POSITION_BYTES: Final = 8


class Change(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`value` None: cleared. Instants in µs; `effective_until` None: without end (see `fold`).

    The order of the members is the stored form of a timeline's steps: append, never reorder.
    """

    position: int
    version: int
    event_id: str
    recorded_at: int
    actor: str
    setting: str
    value: JsonValue
    effective_from: int
    effective_until: int | None


class Retraction(msgspec.Struct, frozen=True, gc=False):
    """Removes the change with event id `retracts`, from `recorded_at` (µs) on."""

    position: int
    version: int
    event_id: str
    recorded_at: int
    actor: str
    setting: str
    retracts: str


Assertion = Change | Retraction


def without_large_value(assertion: Assertion) -> Assertion:
    """The assertion as timelines hold it."""
    if not isinstance(assertion, Change) or not isinstance(assertion.value, str | list):
        return assertion
    if value_bytes(assertion.value) <= LARGE_BYTES:
        return assertion
    size = len(_encode(assertion.value))
    data = assertion.position.to_bytes(_POSITION_BYTES, "big") + size.to_bytes(_POSITION_BYTES, "big")
    return replace(assertion, value=Ext(_LARGE_CODE, data))


def large_value_position(value: LargeValue) -> int:
    """Of the event that has the value."""
    return int.from_bytes(bytes(value.data)[:_POSITION_BYTES], "big")


def large_value_bytes(value: LargeValue) -> int:
    """The size of its JSON."""
    return int.from_bytes(bytes(value.data)[_POSITION_BYTES:], "big")


def large_value_json(value: object) -> dict[str, int]:
    """As a hook of an encoder: shows a `LargeValue` as what it is."""
    if not isinstance(value, Ext):
        raise TypeError(f"{type(value).__name__} has no JSON")
    return {"in_event": large_value_position(value), "bytes": large_value_bytes(value)}


def same_change(one: Change | None, other: Change | None) -> bool:
    """Whether both are one event's change. A position names an event, and comparing it is cheaper than all members."""
    return one is other or (one is not None and other is not None and one.position == other.position)


class _LeafData(msgspec.Struct, gc=False):
    position: int
    version: int
    actor: str
    setting: str
    value: bool | int | str | list[str] | msgspec.UnsetType = msgspec.UNSET
    effective_from: datetime | msgspec.UnsetType = msgspec.UNSET
    effective_until: datetime | msgspec.UnsetType | None = msgspec.UNSET
    retracts: str | msgspec.UnsetType = msgspec.UNSET
    definition: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class _LeafMembers(msgspec.Struct, gc=False):
    """The members of a leaf that the fold uses: parsing these costs half as much as parsing all."""

    id: str
    type: str
    time: datetime
    data: _LeafData


_parse: Final = msgspec.json.Decoder(_LeafMembers).decode
_encode: Final = msgspec.json.Encoder().encode
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def read_assertion(leaf: bytes) -> Assertion:
    """The change or retraction in a leaf. Raises `LedgerCorrupt`."""
    try:
        members = _parse(leaf)
        data = members.data
        if members.type in codec.VERSIONS.current:  # type: ignore[attr-defined] # looked up where tests set it
            recorded_at = (members.time - _EPOCH) // _MICROSECOND
            value, start, until, retracts = data.value, data.effective_from, data.effective_until, data.retracts
            if start is not UNSET:
                return Change(
                    data.position,
                    data.version,
                    members.id,
                    recorded_at,
                    data.actor,
                    data.setting,
                    value if value is not UNSET else None if data.definition is UNSET else data.definition,
                    # Most changes hold from their recording on, and converting an instant is a tenth of the cost.
                    recorded_at if start == members.time else (start - _EPOCH) // _MICROSECOND,
                    (until - _EPOCH) // _MICROSECOND if until is not UNSET and until is not None else None,
                )
            if retracts is not UNSET:
                event_id, actor, setting = members.id, data.actor, data.setting
                return Retraction(data.position, data.version, event_id, recorded_at, actor, setting, retracts)
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
        # Comparing a time that has an offset with one that has none raises TypeError.
        pass
    # Either an old version of an event, which `parse_leaf` upcasts, or an unreadable leaf, which it refuses.
    return _from_leaf(parse_leaf(leaf))


def _from_leaf(leaf: Leaf) -> Assertion:
    data = leaf.data
    value, start, until = data.value, data.effective_from, data.effective_until
    try:
        recorded_at = parse_time(leaf.time)
        if isinstance(data.retracts, str):
            setting = data.setting
            return Retraction(data.position, data.version, leaf.id, recorded_at, data.actor, setting, data.retracts)
        return Change(
            position=data.position,
            version=data.version,
            event_id=leaf.id,
            recorded_at=recorded_at,
            actor=data.actor,
            setting=data.setting,
            value=value if value is not UNSET else None if data.definition is UNSET else data.definition,
            effective_from=parse_time(start),
            effective_until=parse_time(until) if isinstance(until, str) else None,
        )
    except BadTime as error:
        raise LedgerCorrupt(
            f"the event stored at position {data.position} has an unreadable time: {error.detail}"
        ) from error


class StoredEvent(Protocol):
    """An entry of the ledger, as far as reading its change needs it."""

    @property
    def position(self) -> int: ...

    @property
    def leaf(self) -> bytes: ...


def read_entry(position: int, version: int, leaf: bytes) -> Assertion:
    """The change or retraction of the event stored at `position`. Raises `LedgerCorrupt`, naming the position."""
    try:
        assertion = read_assertion(leaf)
    except LedgerCorrupt as error:
        raise LedgerCorrupt(
            f"the event at position {position} cannot be projected, and so nothing after it: {error.detail}"
        ) from error
    if assertion.position != position or assertion.version != version:
        raise LedgerCorrupt(f"the event stored at position {position} names another position or version")
    return assertion


def read_entries(entries: Iterable[StoredEvent]) -> list[Assertion]:
    """The changes and retractions of a subject's events. Raises `LedgerCorrupt`, naming the position."""
    return list(map(read_stored, entries))


def read_timeline_entries(entries: Iterable[StoredEvent]) -> Iterator[Assertion]:
    """`read_entries`, one by one and as timelines hold them."""
    return map(without_large_value, map(read_stored, entries))


def read_stored(entry: StoredEvent) -> Assertion:
    """The change or retraction of an event. Raises `LedgerCorrupt`, naming the position."""
    try:
        return read_assertion(entry.leaf)
    except LedgerCorrupt as error:
        raise LedgerCorrupt(f"the event at position {entry.position} cannot be read: {error.detail}") from error


def value_bytes(value: object) -> int:
    """About the memory of a value and of its JSON, for caches: 0 for one that is small whatever it is."""
    if isinstance(value, str):
        return 2 * len(value)
    if isinstance(value, tuple | list):
        return sum(_MEMBER_BYTES + 2 * len(member) for member in value)
    return 0
