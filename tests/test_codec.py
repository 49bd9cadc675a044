"""Events to exact bytes and back; the bytes are CloudEvents."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.built_in_catalog import BUILT_IN
from ledger.codec import (
    decode,
    encode,
    fill_templates,
    id_tail,
    leaf_bytes,
    leaf_hash,
    leaf_template,
    parse_leaf,
    position_of,
)
from ledger.drafts import AT_RECORDING, Draft
from ledger.errors import LedgerCorrupt
from ledger.events import AnyEvent, ChangeRetracted, SettingChanged, SettingCleared, SettingDefined
from ledger.times import BEGINNING, END

SOURCE = "urn:inforce:test.example"
# Placeholders of the codec, controls, quotes, non-characters, the edges of the planes.
NASTY = [
    "\x01P",
    "\x01T",
    "\x01S",
    "\x01I",
    "\\u0001T",
    '"',
    "\\",
    "\x00",
    "\x7f",
    "\u2028",
    "\ufeff",
    "\uffff",
    "🙂",
    "é",
]
TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.lists(st.sampled_from(NASTY)).map("".join)
INSTANTS = st.integers(BEGINNING, END - 1)
STARTS = INSTANTS | st.just(AT_RECORDING)
VALUES = (
    st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | TEXT
    | st.lists(TEXT, unique=True).map(lambda members: tuple(sorted(members)))
)
SETTINGS = st.from_regex(r"[A-Za-z0-9._-]{1,128}", fullmatch=True)
TAILS = st.binary(min_size=10, max_size=10).map(id_tail)
POSITIONS = st.integers(1, 2**48 - 1)
EVENT_IDS = st.builds(lambda place, tail: f"{place >> 16:08x}-{place & 0xFFFF:04x}{tail}", POSITIONS, TAILS)
SUBJECTS = st.from_regex(r"(account|org|project|key|model):[A-Za-z0-9._~@/+:-]{1,40}", fullmatch=True)

BODIES = st.one_of(
    st.tuples(
        st.just("setting.changed"),
        st.fixed_dictionaries(
            {"setting": SETTINGS, "value": VALUES, "effective_from": STARTS, "effective_until": st.none() | INSTANTS}
        ),
    ),
    st.tuples(
        st.just("setting.cleared"),
        st.fixed_dictionaries({"setting": SETTINGS, "effective_from": STARTS, "effective_until": st.none() | INSTANTS}),
    ),
    st.tuples(st.just("change.retracted"), st.fixed_dictionaries({"retracts": EVENT_IDS, "setting": SETTINGS})),
    st.tuples(
        st.just("setting.defined"),
        st.fixed_dictionaries(
            {
                "setting": SETTINGS,
                "definition": st.sampled_from([built_in.as_json() for built_in in BUILT_IN.values()]),
                "effective_from": STARTS,
            }
        ),
    ),
)


MEMBERS = ("retracts", "setting", "value", "definition", "effective_from", "effective_until")


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    topic, members = draw(BODIES)
    # Sorted into the order of the wire format, which Hypothesis does not preserve.
    body = {name: members[name] for name in MEMBERS if name in members}
    return Draft(
        topic=topic,
        subject=draw(SUBJECTS),
        version=draw(st.integers(1, 2**53)),
        body=body,
        actor=draw(TEXT),
        id_tail=draw(TAILS),
        commitment=draw(st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex)),
        imported=draw(st.booleans()),
    )


def own_members(event: AnyEvent) -> dict[str, Any]:
    """The event's own members, in the form of a draft's body."""
    match event:
        case SettingChanged():
            return {
                "setting": event.setting,
                "value": event.value,
                "effective_from": event.effective_from,
                "effective_until": event.effective_until,
            }
        case SettingCleared():
            return {
                "setting": event.setting,
                "effective_from": event.effective_from,
                "effective_until": event.effective_until,
            }
        case ChangeRetracted():
            return {"retracts": event.retracts, "setting": event.setting}
        case SettingDefined():
            return {
                "setting": event.setting,
                "definition": event.definition.as_json(),
                "effective_from": event.effective_from,
            }


def leaf_of(draft: Draft, position: int, recorded_at: int) -> bytes:
    """The leaf, made from a template as the recorder makes it."""
    return fill_templates([leaf_template(draft, SOURCE)], position, recorded_at)[0]


@given(drafts(), POSITIONS, INSTANTS)
def test_a_decoded_event_equals_its_draft(draft: Draft, position: int, recorded_at: int) -> None:
    leaf = leaf_of(draft, position, recorded_at)
    event = decode(leaf)
    body = {
        name: recorded_at if value == AT_RECORDING and name == "effective_from" else value
        for name, value in draft.body.items()
    }
    assert own_members(event) == body
    assert type(own_members(event).get("value")) is type(body.get("value"))
    assert (event.TOPIC, event.subject, event.version) == (draft.topic, draft.subject, draft.version)
    assert (event.actor, event.commitment, event.imported) == (draft.actor, draft.commitment, draft.imported)
    assert (event.position, event.recorded_at) == (position, recorded_at)
    assert event.event_id.endswith(draft.id_tail)
    assert position_of(event.event_id) == position


@given(drafts(), POSITIONS, INSTANTS)
def test_encoding_a_decoded_event_gives_the_same_bytes(draft: Draft, position: int, recorded_at: int) -> None:
    leaf = leaf_of(draft, position, recorded_at)
    assert encode(decode(leaf), SOURCE) == leaf
    assert leaf_bytes(draft, SOURCE, position, recorded_at) == leaf


@given(drafts(), POSITIONS, INSTANTS)
def test_a_leaf_is_plain_json_on_one_line(draft: Draft, position: int, recorded_at: int) -> None:
    leaf = leaf_of(draft, position, recorded_at)
    assert not any(byte < 0x20 for byte in leaf)
    parsed = json.loads(leaf)
    assert json.loads(json.dumps(parsed)) == parsed
    assert msgspec.json.encode(msgspec.json.decode(leaf)) == leaf


def test_the_bytes_are_those_of_the_wire_format() -> None:
    draft = Draft(
        topic="setting.changed",
        subject="org:acme",
        version=4,
        body={"setting": "training.opt_in", "value": True, "effective_from": AT_RECORDING, "effective_until": None},
        actor="alice",
        id_tail="-8000-8000-000000000000",
        commitment="ab" * 32,
    )
    assert leaf_of(draft, 42, 1_767_225_600_000_000) == (
        b'{"specversion":"1.0","id":"00000000-002a-8000-8000-000000000000","source":"urn:inforce:test.example",'
        b'"type":"inforce.setting.changed.v1","subject":"org:acme","time":"2026-01-01T00:00:00.000000Z",'
        b'"sequence":"00000000000000000042","datacontenttype":"application/json",'
        b'"data":{"position":42,"version":4,"setting":"training.opt_in","value":true,'
        b'"effective_from":"2026-01-01T00:00:00.000000Z","effective_until":null,"actor":"alice",'
        b'"personal":{"commitment":"' + b"ab" * 32 + b'"}}}'
    )


@pytest.fixture(scope="module")
def cloudevents(real_data: Callable[[str], Path]) -> Any:
    schema = json.loads(real_data("standards/cloudevents.schema.json").read_text())
    return jsonschema.validators.validator_for(schema)(schema, format_checker=jsonschema.FormatChecker())


def test_every_leaf_is_a_cloudevent(cloudevents: Any) -> None:
    @given(drafts(), POSITIONS, INSTANTS)
    def holds(draft: Draft, position: int, recorded_at: int) -> None:
        cloudevents.validate(json.loads(leaf_of(draft, position, recorded_at)))

    holds()
    with pytest.raises(jsonschema.ValidationError):
        cloudevents.validate({"specversion": "1.0"})


@given(st.binary(min_size=10, max_size=10), POSITIONS)
def test_an_event_id_is_a_version_8_uuid_that_carries_its_position(entropy: bytes, position: int) -> None:
    event_id = f"{position >> 16:08x}-{position & 0xFFFF:04x}{id_tail(entropy)}"
    assert position_of(event_id) == position
    assert (event_id[14], event_id[19] in "89ab", len(event_id)) == ("8", True, 36)


@pytest.mark.parametrize(
    "text", ["", "x", "00000000-0001-4000-8000-000000000000", "00000000-0001-8000-c000-000000000000"]
)
def test_a_malformed_event_id_has_no_position(text: str) -> None:
    assert position_of(text) is None


def test_the_leaf_hash_is_that_of_rfc_6962() -> None:
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert leaf_hash(b"leaf") == hashlib.sha256(b"\x00leaf").digest()


def leaf(**more: Any) -> bytes:
    draft = Draft(
        topic="setting.cleared",
        subject="org:a",
        version=1,
        body={"setting": "x", "effective_from": AT_RECORDING, "effective_until": None},
        actor="a",
        id_tail="-8000-8000-000000000000",
    )
    parsed = json.loads(leaf_of(draft, 1, 0))
    parsed.update(more.pop("top", {}))
    parsed["data"].update(more)
    return json.dumps(parsed).encode()


UNREADABLE: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "an array": b"[]",
    "a number": b"7",
    "not UTF-8": b'{"type":"\xff"}',
    "no type": b"{}",
    "a type that is a list": leaf(top={"type": ["x"]}),
    "an unknown type": leaf(top={"type": "inforce.setting.lost.v1"}),
    "a newer type": leaf(top={"type": "inforce.setting.cleared.v2"}),
    "an unknown attribute": leaf(top={"x": 1}),
    "an unknown member": leaf(x=1),
    "a member of another type": leaf(value=True),
    "a wrong time": leaf(effective_from="yesterday"),
    "no time": leaf(effective_from=None),
    "a position of nothing": leaf(position=0),
    "a text for a position": leaf(position="1"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_bytes_that_are_not_an_event_are_corrupt(name: str) -> None:
    decode(leaf())
    with pytest.raises(LedgerCorrupt):
        decode(UNREADABLE[name])


@given(st.binary(max_size=80))
def test_any_bytes_are_an_event_or_corrupt(garbage: bytes) -> None:
    with pytest.raises(LedgerCorrupt):
        parse_leaf(garbage)
