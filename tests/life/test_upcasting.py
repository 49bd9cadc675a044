"""Every version of an event is read as the newest version, and its bytes never change."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from ledger.catalog import Definition
from ledger.clock import ManualClock
from ledger.codec import decode, is_exact_encoding, leaf_hash, parse_leaf
from ledger.errors import BadImport, LedgerCorrupt
from ledger.events import ChangeRetracted, SettingChanged, SettingCleared, SettingDefined
from ledger.opening import open_ledger
from ledger.store import Ledger
from ledger.times import BEGINNING, parse_time
from ledger.transfer.export import export_lines
from ledger.transfer.import_ledger import import_ledger
from ledger.upcasting import NEWEST, VERSIONS, EventVersions, Upcaster
from projections.query.query import Query
from projections.temporal.changes import Change, Retraction, read_assertion
from projections.timelines.projector import Projector
from projections.timelines.rebuild.rebuild import rebuild
from projections.timelines.store import open_timelines
from tests.life.stored import FIXTURES, Stored
from tests.support.ledgers import change, key, submit

LEAVES = (FIXTURES / "leaves.jsonl").read_bytes().splitlines()
SOURCE = "urn:inforce:stored.example/ledger"

OPT_IN = Definition(
    kinds=("account", "org"),
    value_type="bool",
    default=False,
    protective=False,
    writable_by="admin",
    title="Training opt-in",
    description="Data sharing for training other models is opt-in.",
    source="Published data privacy rules",
)
BETA = Definition(
    kinds=("account", "org"),
    value_type="bool",
    default=True,
    protective=False,
    writable_by="admin",
    title="Beta search",
    description="Whether the new search is used.",
    source="Product notes",
)


def event_members(position: int, tail: str, subject: str, version: int, time: str, **more: Any) -> dict[str, Any]:
    event_id = f"00000000-{position:04x}-{tail}"
    common = {"event_id": event_id, "position": position, "subject": subject, "version": version}
    return {**common, "recorded_at": parse_time(time), "actor": "operator:stored", **more}


EVENTS = [
    SettingChanged(
        **event_members(19, "8df1-91a3-b3df245ad023", "org:acme", 1, "2026-03-01T12:00:00.000001Z"),
        commitment="f1ea80bb82ceaee777c2a6c882cfb9cc6e9b89d46c6bc48e98a8f1cbf47f7643",
        setting="training.opt_in",
        value=True,
        effective_from=parse_time("2026-03-01T12:00:00.000001Z"),
        effective_until=None,
    ),
    SettingChanged(
        **event_members(21, "8aa2-82f4-ad9892fed800", "org:acme", 2, "2026-03-01T13:00:00.000001Z"),
        setting="residency.regions",
        value=("ap", "eu", "us"),
        effective_from=parse_time("2026-03-01T13:00:00.000001Z"),
        effective_until=None,
    ),
    SettingChanged(
        **event_members(25, "8a83-bb3b-84e0f27f910b", "org:acme", 3, "2026-03-01T14:00:00.000001Z"),
        setting="training.opt_in",
        value=False,
        effective_from=parse_time("2026-03-05T00:00:00Z"),
        effective_until=parse_time("2026-03-08T00:00:00.5Z"),
    ),
    SettingCleared(
        **event_members(28, "8bc2-bf07-ae334243e65b", "account:anna", 2, "2026-03-03T14:00:00.000002Z"),
        setting="training.opt_in",
        effective_from=parse_time("2026-03-03T14:00:00.000002Z"),
        effective_until=None,
    ),
    SettingCleared(
        **event_members(29, "858a-b22c-cbd6c7f67106", "org:acme", 5, "2026-03-03T14:00:00.000003Z"),
        setting="residency.regions",
        effective_from=parse_time("2027-01-01T00:00:00Z"),
        effective_until=parse_time("2027-02-01T00:00:00Z"),
    ),
    ChangeRetracted(
        **event_members(27, "819d-ac89-6481471dad60", "org:acme", 4, "2026-03-03T14:00:00.000001Z"),
        commitment="f9d44bdab666abb943fdb0ca3488306499b7f663a39f68e3163c8ac937b384d8",
        setting="training.opt_in",
        retracts="00000000-0019-8a83-bb3b-84e0f27f910b",
    ),
    SettingDefined(
        **event_members(1, "8f5b-9652-24a58b791f1d", "catalog:settings", 1, "2026-03-01T12:00:00Z")
        | {"actor": "inforce"},
        setting="training.opt_in",
        definition=OPT_IN,
        effective_from=BEGINNING,
    ),
    SettingDefined(
        **event_members(32, "8156-aa11-be30348c7e82", "catalog:settings", 20, "2026-03-04T16:00:00.000003Z"),
        commitment="7835d1d685191c93fda9cf76ee7b06381d8ad873016fa5b134ed962aa29fa9b6",
        setting="beta.search",
        definition=BETA,
        effective_from=parse_time("2027-01-01T00:00:00Z"),
    ),
    SettingChanged(
        **event_members(19, "8a29-9fe2-2d4489a829e8", "org:acme", 1, "2025-01-01T00:00:00Z") | {"actor": "import"},
        commitment="9fbe8cffb7becd34ab2b2ed29e34a624b67541e82e58db5574910ffdb18cc9ff",
        imported=True,
        setting="training.opt_in",
        value=True,
        effective_from=parse_time("2024-06-01T00:00:00Z"),
        effective_until=parse_time("2024-07-01T00:00:00Z"),
    ),
]
"""The meaning of each line of fixtures/leaves.jsonl, which no later version may change."""


def test_there_is_a_stored_leaf_of_every_version_of_every_type() -> None:
    assert {json.loads(leaf)["type"] for leaf in LEAVES} == VERSIONS.all


@pytest.mark.parametrize("number", range(len(LEAVES)))
def test_a_stored_leaf_keeps_its_meaning(number: int) -> None:
    assert len(LEAVES) == len(EVENTS)
    leaf, event = LEAVES[number], EVENTS[number]
    assert decode(leaf) == event
    source = json.loads(leaf)["source"]
    assert is_exact_encoding(leaf, event, source)
    assertion = read_assertion(leaf)
    assert (assertion.position, assertion.setting, assertion.actor) == (event.position, event.setting, event.actor)


# An invented newer version: changes are negated, definitions have other defaults, and all have a title.


def negated(leaf: dict[str, Any]) -> dict[str, Any]:
    if isinstance(leaf["data"]["value"], bool):
        leaf["data"]["value"] = not leaf["data"]["value"]
    return leaf


def titled(title: str) -> Upcaster:
    def up(leaf: dict[str, Any]) -> dict[str, Any]:
        # The last member, which the newest version has and the version before had not.
        leaf["data"]["actor"] = f"{title} {leaf['data'].pop('actor')}"
        return leaf

    def back(leaf: dict[str, Any]) -> dict[str, Any]:
        leaf["data"]["actor"] = leaf["data"]["actor"].removeprefix(f"{title} ")
        return leaf

    return Upcaster(up, back)


def other_default(leaf: dict[str, Any]) -> dict[str, Any]:
    definition = leaf["data"]["definition"]
    if isinstance(definition["default"], bool):
        definition["default"] = not definition["default"]
    return leaf


NEWER = EventVersions(
    {**NEWEST, "setting.changed": 2, "setting.defined": 2, "change.retracted": 3},
    {
        "inforce.setting.changed.v1": Upcaster(negated, negated),
        "inforce.setting.defined.v1": Upcaster(other_default, other_default),
        "inforce.change.retracted.v1": titled("Dr"),
        "inforce.change.retracted.v2": titled("Prof"),
    },
)


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.codec.VERSIONS", NEWER)


@pytest.fixture
def upgraded(database_url: str) -> str:
    """The stored ledger of the first release, with timelines rebuilt by code that writes newer versions."""
    Stored("0.1.0").put(database_url)
    with open_ledger(database_url) as ledger:
        rebuild(Projector(ledger, open_timelines(ledger)))
    return database_url


NOON = parse_time("2026-03-02T12:00:00Z")


def value(ledger: Ledger, subject: str = "org:acme", at: int = NOON) -> Any:
    return Query(ledger).state(subject, at=at).settings["training.opt_in"].value


@pytest.mark.usefixtures("newer")
def test_every_reader_sees_the_newest_version() -> None:
    changed, retracted, defined = LEAVES[0], LEAVES[5], LEAVES[6]
    assert parse_leaf(changed).type == "inforce.setting.changed.v2"
    assert parse_leaf(changed).data.value is False
    assert parse_leaf(retracted).type == "inforce.change.retracted.v3"
    assert decode(retracted) == EVENTS[5].model_copy(update={"actor": "Prof Dr operator:stored"})
    assertions = [read_assertion(leaf) for leaf in (changed, retracted, defined)]
    assert isinstance(assertions[0], Change)
    assert assertions[0].value is False
    assert isinstance(assertions[1], Retraction)
    assert assertions[1].actor == "Prof Dr operator:stored"
    assert isinstance(assertions[2], Change)
    assert isinstance(assertions[2].value, dict)
    assert assertions[2].value["default"] is True


@pytest.mark.usefixtures("newer")
@pytest.mark.parametrize("number", range(len(LEAVES)))
def test_an_older_version_is_encoded_exactly_and_nothing_else_passes_for_it(number: int) -> None:
    leaf = LEAVES[number]
    source = json.loads(leaf)["source"]
    assert is_exact_encoding(leaf, decode(leaf), source)
    spaced = leaf.replace(b'"data":{', b'"data": {', 1)
    assert not is_exact_encoding(spaced, decode(spaced), source)
    elsewhere = leaf.replace(b'000000Z","seq', b'000000+00:00","seq') if b'000000Z","seq' in leaf else leaf + b" "
    assert not is_exact_encoding(elsewhere, decode(elsewhere), source)


@pytest.mark.usefixtures("newer")
def test_the_ledger_answers_in_the_newest_version_and_keeps_the_bytes(upgraded: str) -> None:
    stored = Stored("0.1.0")
    clock = ManualClock(parse_time("2026-04-01T00:00:00Z"))
    with open_ledger(upgraded, clock=clock) as ledger:
        assert ledger.catalog().definition_at("training.opt_in", NOON).definition.default is True  # type: ignore[union-attr]
        # Receipts, reasons and a retraction of events in the older version.
        lines = stored.events.count(b"\n")
        first = stored.submitted[0]["receipts"][0]["event_id"]
        assert ledger.event(first).leaf == stored.events.splitlines()[18]
        assert ledger.reasons([19])[19].startswith("ticket 1")
        (again,) = submit(ledger, change("org:acme", True), idempotency=key("new"))
        assert submit(ledger, change("org:acme", True), idempotency=key("new")) == (again,)
        clock.now_us += 1
        submit(ledger, {"type": "change.retracted", "event_id": first, "reason": "a slip"})
        assert [json.loads(entry.leaf)["type"] for entry in ledger.page(lines)] == [
            "inforce.setting.changed.v2",
            "inforce.change.retracted.v3",
        ]
        assert b"".join(export_lines(ledger, until=lines)) == stored.events
        assert all(leaf_hash(entry.leaf) == entry.leaf_hash for entry in ledger.page(0))
        checked = rebuild(Projector(ledger, open_timelines(ledger)), check_only=True)
        assert checked.live_equal


def test_the_projector_and_the_questions_go_through_the_upcaster(
    upgraded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_ledger(upgraded) as ledger:
        assert (value(ledger), value(ledger, "account:anna", NOON)) == (True, True)
    monkeypatch.setattr("ledger.codec.VERSIONS", NEWER)
    with open_ledger(upgraded) as ledger:
        rebuilt = rebuild(Projector(ledger, open_timelines(ledger)))
        assert rebuilt.swapped
        # This newer version gives the same values another meaning, so the timelines from before differ.
        assert rebuilt.differences
        assert (value(ledger), value(ledger, "account:anna", NOON)) == (False, False)
        # Folded from the events, as are only questions about what was known in between.
        known = Query(ledger).state("org:acme", at=NOON, known_at=NOON + 1)
        assert known.settings["training.opt_in"].value is False


@pytest.mark.usefixtures("newer")
def test_the_server_sends_the_stored_bytes_and_answers_in_the_newest_version(upgraded: str) -> None:
    stored = Stored("0.1.0")
    leaves = stored.events.splitlines()
    with TestClient(create_app(upgraded, sign_in=False)) as client:
        receipt = stored.submitted[0]["receipts"][0]
        assert client.get(f"/v1/events/{receipt['event_id']}").content == leaves[receipt["position"] - 1]
        page = client.get("/v1/events", params={"after": 18, "limit": 3}).content
        assert all(leaf in page for leaf in leaves[18:21])
        state = client.get("/v1/subjects/org:acme/state", params={"at": "2026-03-02T12:00:00Z"}).json()
        assert state["settings"]["training.opt_in"]["value"] is False
        history = client.get("/v1/subjects/org:acme/history").content
        assert leaves[18] in history


@pytest.mark.usefixtures("newer")
def test_an_export_of_both_versions_is_imported_byte_for_byte(upgraded: str, tmp_path: Path) -> None:
    with open_ledger(upgraded) as ledger:
        submit(ledger, change("org:acme", True))
        exported = b"".join(export_lines(ledger))
    assert exported.count(b"setting.changed.v1") > 1
    assert exported.count(b"setting.changed.v2") == 1
    copy = f"sqlite:///{tmp_path}/copy.db"
    import_ledger(copy, io.BytesIO(exported))
    with open_ledger(copy) as ledger:
        assert b"".join(export_lines(ledger)) == exported
        assert value(ledger) is False
    changed = exported.replace(b'"type":"inforce.setting.changed.v1"', b'"type":"inforce.setting.changed.v1" ', 1)
    with pytest.raises(BadImport, match="line 19: these are not the bytes"):
        import_ledger(f"sqlite:///{tmp_path}/no.db", io.BytesIO(changed))


# Unreadable events


def refusal(leaf: bytes) -> str:
    message = set()
    for read in (parse_leaf, decode, read_assertion):
        with pytest.raises(LedgerCorrupt) as refused:
            read(leaf)
        message.add(refused.value.detail)
    (detail,) = message
    return detail


@pytest.mark.usefixtures("newer")
@pytest.mark.parametrize(
    "type_", ["inforce.setting.changed.v3", "inforce.setting.changed.v0", "inforce.setting.lost.v1", "x", "", 1]
)
def test_an_unknown_type_or_version_is_corrupt_and_names_its_position(
    type_: object,
) -> None:
    leaf = json.dumps(json.loads(LEAVES[2]) | {"type": type_}).encode()
    message = refusal(leaf)
    assert message.startswith("the event stored at position 25 has a type that this inforce does not know")


@pytest.mark.usefixtures("newer")
@pytest.mark.parametrize("harm", ["value", "actor", "subject"])
def test_an_older_version_that_lacks_a_member_is_corrupt_and_names_its_position(
    harm: str,
) -> None:
    leaf = json.loads(LEAVES[2])
    del (leaf if harm == "subject" else leaf["data"])[harm]
    message = refusal(json.dumps(leaf).encode())
    assert message == "the event stored at position 25 cannot be read: it does not have the form of its type"


def test_a_version_without_an_upcaster_is_refused() -> None:
    up = Upcaster(negated, negated)
    with pytest.raises(ValueError, match=r"setting\.changed\.v1"):
        EventVersions({"setting.changed": 2}, {})
    with pytest.raises(ValueError, match=r"setting\.changed\.v2"):
        EventVersions({"setting.changed": 2}, {"inforce.setting.changed.v1": up, "inforce.setting.changed.v2": up})
