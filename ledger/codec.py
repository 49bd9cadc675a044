"""Encoding events: event ↔ exact bytes. These bytes, the leaf, are stored, served, exported, hashed and later signed.

A leaf is CloudEvents 1.0 JSON (see "Wire contract" in api/README.md), with its members in one order and no white space.
A draft is encoded as a template: it has placeholders for the position and the time, which only the append lock fixes.
A placeholder begins with U+0001, which JSON never contains unescaped, so no submitted text can look like one.

An event id is a version 8 UUID (RFC 9562): 48 bits of position, then random bits. It finds its event without an
index, and an id of another ledger never fits by accident. Proved by tests/test_codec.py.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

import msgspec
from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import JSONTranscoder, Mapper, StoredEvent
from pydantic import ValidationError

from ledger.catalog import Definition
from ledger.drafts import AT_RECORDING, Draft
from ledger.errors import BadTime, LedgerCorrupt
from ledger.events import EVENT_TYPES, AnyEvent, ChangeRetracted, SettingChanged, SettingCleared, SettingDefined
from ledger.times import format_time, parse_time
from ledger.upcasting import VERSIONS

SOURCE_PREFIX: Final = "urn:inforce:"
_POSITION: Final = "\x01P"
_SEQUENCE: Final = "\x01S"
_TIME: Final = "\x01T"
_ID: Final = "\x01I"
_EVENT_ID: Final = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def leaf_hash(leaf: bytes) -> bytes:
    """RFC 6962 section 2.1: SHA-256(0x00 ‖ leaf), 32 bytes."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def id_tail(entropy: bytes) -> str:
    """Ten random bytes in the form of a version 8 UUID's second half, with its leading hyphen."""
    random = entropy.hex()
    return f"-8{random[:3]}-{'89ab'[int(random[3], 16) & 3]}{random[4:7]}-{random[7:19]}"


def position_of(event_id: str) -> int | None:
    """The position that an event id carries, or None for a text that is no event id."""
    match = _EVENT_ID.fullmatch(event_id)
    return int(match[1] + match[2], 16) if match else None


def event_id(position: int, id_tail: str) -> str:
    """The id of the event at `position` whose random part is `id_tail`."""
    return _id_head(position) + id_tail


def is_of_origin(leaf: bytes, origin: str) -> bool:
    """Whether the event was recorded by the ledger with this origin, or restored from it."""
    return f'","source":{_json(SOURCE_PREFIX + origin)},"type":"'.encode() in leaf


def leaf_template(draft: Draft, source: str) -> bytes:
    """The leaf with placeholders for position, id and time. `source` is `urn:inforce:<origin>`."""
    return _encode(draft, source, _ID, _TIME, _SEQUENCE, _POSITION)


def fill_templates(templates: Iterable[bytes], first_position: int, recorded_at: int) -> list[bytes]:
    """The leaves of one submission, at `first_position` and the positions after it; `recorded_at` in µs."""
    time = format_time(recorded_at).encode()
    return [
        template.replace(b"\x01I", b"%08x-%04x" % (position >> 16, position & 0xFFFF), 1)
        .replace(b"\x01T", time)
        .replace(b"\x01S", b"%020d" % position, 1)
        .replace(b"\x01P", b"%d" % position, 1)
        for position, template in enumerate(templates, first_position)
    ]


def leaf_bytes(draft: Draft, source: str, position: int, recorded_at: int) -> bytes:
    """The leaf of a draft whose position and time are known: `leaf_template` and `fill_templates` in one step."""
    return _encode(draft, source, _id_head(position), format_time(recorded_at), f"{position:020}", str(position))


def _encode(draft: Draft, source: str, id_head: str, time: str, sequence: str, position: str) -> bytes:
    members = dict(draft.body)
    for name in ("effective_from", "effective_until"):
        instant = members.get(name)
        if instant is not None:
            # Raw, so that a placeholder is not escaped; a time needs no escaping either.
            members[name] = msgspec.Raw(f'"{time if instant == AT_RECORDING else format_time(instant)}"'.encode())
    body = msgspec.json.encode(members).decode()[1:-1]
    personal = f',"personal":{{"commitment":"{draft.commitment}"}}' if draft.commitment else ""
    imported = ',"imported":true' if draft.imported else ""
    return (
        f'{{"specversion":"1.0","id":"{id_head}{draft.id_tail}","source":{_json(source)},'
        f'"type":"{VERSIONS.written[draft.topic]}","subject":"{draft.subject}","time":"{time}","sequence":"{sequence}",'
        f'"datacontenttype":"application/json","data":{{"position":{position},"version":{draft.version},'
        f'{body},"actor":{_json(draft.actor)}{personal}{imported}}}}}'
    ).encode()


def _id_head(position: int) -> str:
    return f"{position >> 16:08x}-{position & 0xFFFF:04x}"


@lru_cache(1024)
def _json(text: str) -> str:
    return msgspec.json.encode(text).decode()


class Personal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    commitment: str


class LeafData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `data` of a leaf of any type; members that the type does not have are unset."""

    position: int
    version: int
    actor: str
    setting: str
    value: bool | int | str | list[str] | msgspec.UnsetType = msgspec.UNSET
    effective_from: str | msgspec.UnsetType = msgspec.UNSET
    effective_until: str | msgspec.UnsetType | None = msgspec.UNSET
    retracts: str | msgspec.UnsetType = msgspec.UNSET
    definition: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    personal: Personal | None = None
    imported: bool = False


class Leaf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A parsed leaf whose times are still texts: the fast way to read many."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: str
    sequence: str
    datacontenttype: str
    data: LeafData

    @property
    def topic(self) -> str:
        """The type without prefix and version: `setting.changed` of `inforce.setting.changed.v1`."""
        return self.type.removeprefix("inforce.").rpartition(".")[0]


_parse_leaf: Final = msgspec.json.Decoder(Leaf).decode


def parse_leaf(leaf: bytes) -> Leaf:
    """The leaf in the newest version of its type, whichever version it was recorded in.

    Raises `LedgerCorrupt` if this version of inforce cannot read it, naming the position if the bytes contain it.
    """
    try:
        parsed = _parse_leaf(leaf)
        if parsed.type in VERSIONS.current:
            return parsed
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass
    return _upcast(leaf)


def _upcast(leaf: bytes) -> Leaf:
    try:
        raw = msgspec.json.decode(leaf)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LedgerCorrupt("a stored event cannot be read: it is not JSON") from error
    type_ = raw.get("type") if isinstance(raw, dict) else None
    position = _position(raw)
    which = "a stored event" if position is None else f"the event stored at position {position}"
    if not isinstance(type_, str) or type_ not in VERSIONS.all:
        raise LedgerCorrupt(f"{which} has a type that this inforce does not know; use a newer inforce")
    try:
        return msgspec.convert(VERSIONS.up(raw), Leaf)
    except (msgspec.MsgspecError, LookupError, TypeError, ValueError, AttributeError) as error:
        # An upcaster expects the form that its version wrote, so an error means that another program wrote the bytes.
        raise LedgerCorrupt(f"{which} cannot be read: it does not have the form of its type") from error


def _position(raw: Any) -> int | None:
    data = raw.get("data") if isinstance(raw, dict) else None
    position = data.get("position") if isinstance(data, dict) else None
    return position if type(position) is int else None


def decode(leaf: bytes) -> AnyEvent:
    """The event that these bytes encode. Raises `LedgerCorrupt`."""
    parsed = parse_leaf(leaf)
    data = parsed.data
    try:
        fields: dict[str, Any] = {
            "event_id": parsed.id,
            "subject": parsed.subject,
            "version": data.version,
            "position": data.position,
            "recorded_at": parse_time(parsed.time),
            "actor": data.actor,
            "commitment": data.personal.commitment if data.personal else None,
            "imported": data.imported,
            "setting": data.setting,
        }
        if data.value is not msgspec.UNSET:
            fields["value"] = tuple(data.value) if isinstance(data.value, list) else data.value
        if data.effective_from is not msgspec.UNSET:
            fields["effective_from"] = parse_time(data.effective_from)
        if data.effective_until is not msgspec.UNSET:
            until = data.effective_until
            fields["effective_until"] = None if until is None else parse_time(until)
        if data.retracts is not msgspec.UNSET:
            fields["retracts"] = data.retracts
        if data.definition is not msgspec.UNSET:
            fields["definition"] = Definition.model_validate(data.definition)
        return EVENT_TYPES[parsed.topic](**fields)
    except (ValidationError, BadTime) as error:
        raise LedgerCorrupt(f"the event stored at position {data.position} cannot be read") from error


def encode(event: AnyEvent, source: str) -> bytes:
    """The exact bytes of an event in the newest version of its type: the inverse of `decode` for that version."""
    body: dict[str, Any] = {}
    match event:
        case SettingChanged():
            body = {"setting": event.setting, "value": event.value, **_period(event)}
        case SettingCleared():
            body = {"setting": event.setting, **_period(event)}
        case ChangeRetracted():
            body = {"retracts": event.retracts, "setting": event.setting}
        case SettingDefined():
            definition = event.definition.as_json()
            body = {"setting": event.setting, "definition": definition, "effective_from": event.effective_from}
    draft = Draft(
        topic=event.TOPIC,
        subject=event.subject,
        version=event.version,
        body=body,
        actor=event.actor,
        id_tail=event.event_id[len("00000000-0000") :],
        commitment=event.commitment,
        imported=event.imported,
    )
    return leaf_bytes(draft, source, event.position, event.recorded_at)


def is_exact_encoding(leaf: bytes, event: AnyEvent, source: str) -> bool:
    """Whether `event`, which was decoded from `leaf`, encodes to the same bytes in the version that `leaf` has."""
    newest = encode(event, source)
    if newest == leaf:
        return True
    type_ = msgspec.json.decode(leaf)["type"]
    if type_ in VERSIONS.current:
        return False
    return msgspec.json.encode(VERSIONS.back(msgspec.json.decode(newest), type_)) == leaf


def _period(event: SettingChanged | SettingCleared) -> dict[str, int | None]:
    return {"effective_from": event.effective_from, "effective_until": event.effective_until}


class LedgerMapper(Mapper[str]):
    """The eventsourcing library's mapper for our exact bytes: it stores drafts and answers events."""

    def __init__(self, source: str) -> None:
        super().__init__(transcoder=JSONTranscoder())
        self.source = source

    def to_stored_event(self, domain_event: DomainEventProtocol[str]) -> StoredEvent:
        assert isinstance(domain_event, Draft)
        return StoredEvent(
            originator_id=domain_event.subject,
            originator_version=domain_event.version,
            topic=domain_event.topic,
            state=leaf_template(domain_event, self.source),
        )

    def to_domain_event(self, stored_event: StoredEvent) -> DomainEventProtocol[str]:
        return decode(stored_event.state)
