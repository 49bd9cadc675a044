"""A poisoned event: one that this version cannot read, or whose columns differ from it, written to the database
without our code.

Errors name its position. Answers about earlier events and reads that do not need it still work. The projector stops
before it and reports it. With a version that can read it, everything works again without help.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from ledger.codec import leaf_hash
from ledger.errors import LedgerCorrupt
from ledger.opening import open_ledger
from ledger.recorders.common import COLUMNS
from ledger.recorders.contract import Entry
from ledger.recorders.postgres import PostgresLedgerRecorder
from ledger.store import Ledger
from ledger.times import format_time
from projections.query.query import Query
from projections.timelines.projector import Projector
from projections.timelines.rebuild.rebuild import rebuild
from projections.timelines.store import open_timelines
from tests.api.client import get, problem
from tests.api.server_process import running
from tests.api.stream_client import listening
from tests.faults.server import training
from tests.support.command import run
from tests.support.ledgers import GENESIS
from tests.support.random_history import assert_timelines, recreate_tables

POISON = GENESIS + 2
"""The position of the poisoned event."""


@pytest.fixture(params=["not JSON at all", "a type of the future", "an invalid time"])
def poison(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(database_url: str, poison: str) -> str:
    """An event of org:acme, then the poisoned event of org:acme, then an event of org:beta."""
    with open_ledger(database_url, create=True) as ledger, TestClient(create_app(ledger, sign_in=False)) as client:
        for subject in ("org:acme", "org:acme", "org:beta"):
            assert client.post("/v1/events", json=training(subject, True)).status_code == 201
        (entry,) = ledger.page(POISON - 1, 1)
        alter(ledger, entry.position, poisoned(entry, poison))
    return database_url


def poisoned(entry: Entry, how: str) -> bytes:
    leaf: dict[str, Any] = json.loads(entry.leaf)
    match how:
        case "not JSON at all":
            return b"\xff\x00 not JSON"
        case "a type of the future":
            leaf["type"] = "inforce.setting.changed.v9"
        case _:
            leaf["time"] = "yesterday"
    return json.dumps(leaf, separators=(",", ":")).encode()


def alter(ledger: Ledger, position: int, leaf: bytes) -> None:
    """Overwrites an event. Only the owner of the database can do so, after dropping its triggers."""
    digest = leaf_hash(leaf)
    if isinstance(ledger.recorder, PostgresLedgerRecorder):
        with ledger.recorder.transaction(commit=True) as cursor:
            cursor.execute("ALTER TABLE inforce.events DISABLE TRIGGER ALL")
            statement = "UPDATE inforce.events SET state = %s, leaf_hash = %s WHERE position = %s"
            cursor.execute(statement, (leaf, digest, position))
            cursor.execute("ALTER TABLE inforce.events ENABLE TRIGGER ALL")
        return
    with ledger.recorder.transaction(commit=True) as cursor:
        triggers = cursor.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            cursor.execute(f"DROP TRIGGER {name}")
        cursor.execute("UPDATE events SET state = ?, leaf_hash = ? WHERE position = ?", (leaf, digest, position))
        for _, statement in triggers:
            cursor.execute(statement)


def stored(ledger: Ledger) -> list[Entry]:
    """All events as they are stored, sound or not."""
    recorder = ledger.recorder
    with recorder.transaction(commit=False) as cursor:
        rows = cursor.execute(f"SELECT {COLUMNS} FROM {recorder.events_table} ORDER BY position").fetchall()
    return [Entry._make(row) for row in rows]


@pytest.fixture
def client(url: str) -> Iterator[TestClient]:
    """A server that starts after the damage, with empty timelines."""
    with open_ledger(url) as ledger:
        recreate_tables(open_timelines(ledger))
    with TestClient(create_app(url, sign_in=False)) as client:
        yield client


def test_queries_that_need_it_are_refused_with_its_position(client: TestClient) -> None:
    """Every time: an answer without the unreadable event would be silently wrong."""
    for _ in range(2):
        for subject in ("org:acme", "org:beta"):
            for path in (f"/v1/subjects/{subject}/state", f"/v1/subjects/{subject}/timeline"):
                body = problem(client.get(path), "ledger_corrupt")
                assert f"position {POISON} cannot be projected" in body["detail"]
        answer = client.post("/v1/checks", json={"org_id": "beta", "handling": {"trained": True}})
        assert f"position {POISON}" in problem(answer, "ledger_corrupt")["detail"]
        assert int(answer.headers["retry-after"]) > 0


def test_other_events_stay_readable(client: TestClient, url: str, poison: str) -> None:
    with open_ledger(url) as ledger:
        leaves = [entry.leaf for entry in stored(ledger)]
    assert client.get("/healthz").status_code == 200
    assert get(client, "/readyz")["position"] == len(leaves)
    assert len(get(client, f"/v1/events?limit={POISON - 1}")["events"]) == POISON - 1
    assert [event["subject"] for event in get(client, f"/v1/events?after={POISON}")["events"]] == ["org:beta"]
    assert [row["event"]["subject"] for row in get(client, "/v1/subjects/org:beta/history")["events"]] == ["org:beta"]
    assert len(get(client, "/v1/events?subject=org:acme&limit=1")["events"]) == 1
    if poison == "a type of the future":
        # Served as stored, for clients that can read it.
        assert leaves[POISON - 1] in client.get("/v1/events").content
        assert run("export", "--db", url).out.count("\n") == len(leaves)
        return
    for path in ("/v1/events", "/v1/events?subject=org:acme", "/v1/subjects/org:acme/history"):
        assert f"position {POISON}" in problem(client.get(path), "ledger_corrupt")["detail"]
    for verb in (("export",), ("replay", "--format", "ndjson")):
        result = run(*verb, "--db", url)
        # The lines before it are exact, and no partial line follows.
        assert (result.code, result.out.splitlines()) == (3, [leaf.decode() for leaf in leaves[: POISON - 1]])
        assert f"position {POISON}" in result.err
    # The damaged event may be the retraction of the one before it.
    earlier = client.get("/v1/subjects/org:acme/history?after=2")
    assert f"position {POISON}" in problem(earlier, "ledger_corrupt")["detail"]


def test_a_stream_ends_before_an_event_that_cannot_be_sent(url: str, poison: str) -> None:
    with running(url) as (_, port), listening(port) as listener:
        sent = listener.take(POISON - 1)
        assert [one.position for one in sent] == list(range(1, POISON))
        following = listener.next()
    if poison == "a type of the future":
        assert following is not None
        assert following.position == POISON
        return
    assert following is None


def test_submissions_are_still_recorded(client: TestClient, url: str) -> None:
    """Users can still change their settings, although queries fail."""
    for subject in ("org:gamma", "org:beta", "org:acme"):
        assert client.post("/v1/events", json=training(subject, False)).status_code == 201
    with open_ledger(url) as ledger:
        assert ledger.head().position == POISON + 4
    assert client.post("/v1/checks", json={"org_id": "beta"}).status_code == 503


def test_stored_timelines_from_before_the_damage_still_answer(url: str, poison: str) -> None:
    """Only queries that fold the events themselves are refused."""
    with open_ledger(url) as ledger:
        poisoned_entry = stored(ledger)[POISON - 1]
        alter(ledger, POISON, readable(ledger))
        recreate_tables(open_timelines(ledger))
        Query(ledger).context()
        alter(ledger, POISON, poisoned_entry.leaf)
    before = format_time(poisoned_entry.recorded_at)
    with TestClient(create_app(url, sign_in=False)) as client:
        assert get(client, "/v1/subjects/org:acme/state")["settings"]["training.opt_in"]["version"] == 2
        earlier = f"/v1/subjects/org:acme/state?at={before}&known_at=2200-01-01T00:00:00Z"
        assert client.get(earlier).status_code == 200
        body = problem(client.get(f"/v1/subjects/org:acme/timeline?known_at={before}"), "ledger_corrupt")
        if poison != "not JSON at all":
            assert f"position {POISON}" in body["detail"]


def test_the_projector_stops_before_it_and_names_it(client: TestClient, url: str) -> None:
    assert client.get("/readyz").status_code == 200
    with open_ledger(url) as ledger:
        store = open_timelines(ledger)
        projector = Projector(ledger, store)
        # Projects the events before it; every later attempt names it.
        with suppress(LedgerCorrupt):
            projector.catch_up()
        for _ in range(2):
            with pytest.raises(LedgerCorrupt, match=f"position {POISON} cannot be projected, and so nothing after it"):
                projector.catch_up()
            assert store.tracked() == POISON - 1
        with pytest.raises(LedgerCorrupt, match=f"position {POISON}"):
            rebuild(projector)
        assert store.tracked() == POISON - 1
    for verb in (("state", "org:beta"), ("check", "--org", "beta"), ("rebuild",), ("rebuild", "--check")):
        result = run(*verb, "--db", url)
        assert (result.code, result.out) == (3, ""), verb
        assert (result.err.startswith("inforce: "), result.err.count("\n")) == (True, 1)
        assert f"position {POISON}" in result.err


def test_the_server_recovers_once_the_event_is_readable(client: TestClient, url: str) -> None:
    """Without a restart. The test restores the original bytes, in place of a newer version that reads the damaged
    ones."""
    assert client.get("/v1/subjects/org:beta/state").status_code == 503
    with open_ledger(url) as ledger:
        alter(ledger, POISON, readable(ledger))
    state = get(client, "/v1/subjects/org:beta/state")
    assert (state["position"], state["settings"]["training.opt_in"]["value"]) == (POISON + 1, True)
    assert get(client, "/v1/subjects/org:acme/state")["settings"]["training.opt_in"]["version"] == 2
    with open_ledger(url) as ledger:
        assert_timelines(ledger, open_timelines(ledger))


def readable(ledger: Ledger) -> bytes:
    """The original event, rebuilt from the one before it, which has the same content."""
    before, poisoned_entry = stored(ledger)[POISON - 2 : POISON]
    leaf: dict[str, Any] = json.loads(before.leaf)
    head = f"{POISON:012x}"
    leaf["id"] = f"{head[:8]}-{head[8:]}{leaf['id'][13:]}"
    leaf["time"], leaf["sequence"] = format_time(poisoned_entry.recorded_at), f"{POISON:020}"
    leaf["data"] |= {"position": POISON, "version": 2, "effective_from": leaf["time"]}
    return json.dumps(leaf, separators=(",", ":")).encode()
