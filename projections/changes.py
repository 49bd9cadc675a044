"""The one thing that is folded: a change, read from a leaf.

A definition is a change too: the setting's definition on `catalog:settings`, from its effective_from on, without end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Protocol

import msgspec

from ledger.codec import Leaf, parse_leaf
from ledger.events import ChangeRetracted
from ledger.times import parse_time

JsonValue = bool | int | str | list[str] | dict[str, Any] | None


class Change(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`value` None: cleared. Instants in µs; `effective_until` None: without end (see `fold`).

    The order of members is the stored form of a timeline's steps: append, never reorder.
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
    """From `recorded_at` (µs) on, the change with event id `retracts` does not count."""

    position: int
    version: int
    event_id: str
    recorded_at: int
    actor: str
    setting: str
    retracts: str


Assertion = Change | Retraction

_RETRACTED: Final = ChangeRetracted.TOPIC


def read_assertion(leaf: bytes) -> Assertion:
    """What an event says to the fold. Raises `LedgerCorrupt`."""
    return assertion_of(parse_leaf(leaf))


def assertion_of(leaf: Leaf) -> Assertion:
    data = leaf.data
    recorded_at = parse_time(leaf.time)
    if isinstance(data.retracts, str):
        return Retraction(data.position, data.version, leaf.id, recorded_at, data.actor, data.setting, data.retracts)
    value: JsonValue = None
    if data.value is not msgspec.UNSET:
        value = data.value
    elif data.definition is not msgspec.UNSET:
        value = data.definition
    start, until = data.effective_from, data.effective_until
    return Change(
        position=data.position,
        version=data.version,
        event_id=leaf.id,
        recorded_at=recorded_at,
        actor=data.actor,
        setting=data.setting,
        value=value,
        effective_from=recorded_at if start == leaf.time else parse_time(start),
        effective_until=parse_time(until) if isinstance(until, str) else None,
    )


class HasLeaf(Protocol):
    @property
    def leaf(self) -> bytes: ...


def read_assertions(entries: Iterable[HasLeaf]) -> list[Assertion]:
    return [read_assertion(entry.leaf) for entry in entries]
