"""POST and GET /v1/events: receipts, idempotency, conflicts, and the feed in exact bytes."""

import hashlib
import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from ledger.codec import leaf_hash
from tests.api.client import GENESIS, changed, get, head, problem, submit

OPT_IN = changed("org:acme", "training.opt_in", True)


def test_a_submission_is_answered_with_receipt_and_location(client: TestClient) -> None:
    answer = client.post("/v1/events", json=OPT_IN | {"reason": "ticket 4711", "expected_version": 0})
    assert answer.status_code == 201
    body = answer.json()
    (receipt,) = body["receipts"]
    assert list(receipt) == [
        *("event_id", "position", "subject", "version", "recorded_at", "effective_from", "effective_until"),
        *("holds_until", "still_scheduled", "still_scheduled_left_out", "retracts", "warnings"),
    ]
    assert (receipt["position"], receipt["subject"], receipt["version"]) == (GENESIS + 1, "org:acme", 1)
    assert receipt["effective_from"] == receipt["recorded_at"]
    assert receipt["effective_until"] is None
    assert body["position"] == GENESIS + 1
    assert answer.headers["location"] == f"/v1/events/{receipt['event_id']}"
    assert client.get(answer.headers["location"]).status_code == 200


def test_a_batch_is_recorded_atomically(client: TestClient) -> None:
    receipts = submit(client, {"events": [OPT_IN, changed("key:k1", "owner", "org:acme")]})
    assert [receipt["position"] for receipt in receipts] == [GENESIS + 1, GENESIS + 2]
    assert receipts[0]["recorded_at"] == receipts[1]["recorded_at"]


def test_a_bad_tenth_item_writes_nothing(client: TestClient) -> None:
    events = [changed(f"org:o{n}", "training.opt_in", True) for n in range(9)]
    answer = client.post("/v1/events", json={"events": [*events, changed("org:o9", "training.opt_in", 1)]})
    body = problem(answer, "bad_submission")
    assert [fault["pointer"] for fault in body["errors"]] == ["/events/9/value"]
    assert head(client) == GENESIS


def test_the_pointer_of_a_fault_in_a_batch_of_one_includes_the_batch(shared_client: TestClient) -> None:
    wrong = changed("org:acme", "training.opt_in", 1)
    for body, pointer in ((wrong, "/value"), ({"events": [wrong]}, "/events/0/value")):
        answer = shared_client.post("/v1/events", json=body)
        assert [fault["pointer"] for fault in problem(answer, "bad_submission")["errors"]] == [pointer]


def test_every_kind_of_submission_is_recorded(client: TestClient) -> None:
    (first,) = submit(client, OPT_IN)
    submit(client, {"type": "setting.cleared", "subject": "org:acme", "setting": "training.opt_in"})
    (taken_back,) = submit(
        client, {"type": "change.retracted", "event_id": first["event_id"], "reason": "for the wrong organization"}
    )
    assert (taken_back["subject"], taken_back["version"], taken_back["effective_from"]) == ("org:acme", 3, None)
    definition = get(client, "/v1/catalog")["settings"]["training.opt_in"]
    members = {key: definition[key] for key in ("kinds", "value_type", "default", "protective", "writable_by")}
    texts = dict.fromkeys(("title", "description", "source"), "beta")
    submit(client, {"type": "setting.defined", "setting": "beta.search", "definition": members | texts})
    submit(client, changed("org:acme", "beta.search", True))


def test_a_retry_gets_the_first_receipts(client: TestClient) -> None:
    key = {"Idempotency_Key": '"8e03978e-40d5-43dd-bc93-6894a57f9324"'}
    first = submit(client, OPT_IN, **key)
    assert submit(client, dict(reversed(OPT_IN.items())), **key) == first
    answer = client.post(
        "/v1/events", json=OPT_IN | {"value": False}, headers={"Idempotency-Key": key["Idempotency_Key"]}
    )
    problem(answer, "idempotency_key_reused")
    assert head(client) == GENESIS + 1


@pytest.mark.parametrize(
    "key", ["plain", '"', '"a', 'a"', '"a" "b"', '"a", "b"', '"a";x=1', '"\\a"', '""', f'"{"a" * 256}"', ":YQ==:", "1"]
)
def test_a_malformed_idempotency_key_is_refused(shared_client: TestClient, key: str) -> None:
    answer = shared_client.post("/v1/events", json=OPT_IN, headers={"Idempotency-Key": key})
    assert problem(answer, "bad_idempotency_key")["errors"][0]["in"] == "header"
    assert head(shared_client) == GENESIS


def test_two_idempotency_keys_are_refused(shared_client: TestClient) -> None:
    headers = [("Idempotency-Key", '"a"'), ("Idempotency-Key", '"b"')]
    problem(shared_client.post("/v1/events", json=OPT_IN, headers=headers), "bad_idempotency_key")


def test_a_conflict_names_the_current_version(client: TestClient) -> None:
    submit(client, OPT_IN)
    answer = client.post("/v1/events", json=OPT_IN | {"value": False, "expected_version": 0})
    body = problem(answer, "version_conflict")
    assert (body["subject"], body["expected_version"], body["current_version"]) == ("org:acme", 0, 1)
    submit(client, OPT_IN | {"value": False, "expected_version": body["current_version"]})


def test_the_feed_has_exact_bytes_and_the_next_position(client: TestClient) -> None:
    for n in range(5):
        submit(client, changed(f"org:o{n}", "training.opt_in", True))
    positions: list[int] = []
    after = 0
    while True:
        page = get(client, f"/v1/events?after={after}&limit=4")
        assert page["head"] == GENESIS + 5
        positions += [event["data"]["position"] for event in page["events"]]
        after = page["next_after"]
        if not page["events"]:
            break
    assert positions == list(range(1, GENESIS + 6))
    assert after == GENESIS + 5

    text = client.get(f"/v1/events?after={GENESIS}&limit=1").text
    event_id = json.loads(text)["events"][0]["id"]
    one = client.get(f"/v1/events/{event_id}")
    assert one.headers["content-type"] == "application/cloudevents+json"
    assert "immutable" in one.headers["cache-control"]
    assert text == f'{{"events":[{one.text}],"next_after":{GENESIS + 1},"head":{GENESIS + 5}}}'
    service: Any = client.app.state.service  # type: ignore[attr-defined]  # TestClient says only ASGI app
    entry = service.ledger.event(event_id)
    assert one.content == entry.leaf
    assert leaf_hash(one.content) == entry.leaf_hash == hashlib.sha256(b"\x00" + one.content).digest()


def test_the_feed_of_one_subject(client: TestClient) -> None:
    for subject in ("org:a", "org:b", "org:a", "org:b", "org:a"):
        submit(client, changed(subject, "training.opt_in", True))
    first = get(client, "/v1/events?subject=org:a&limit=2")
    assert [event["data"]["version"] for event in first["events"]] == [1, 2]
    rest = get(client, f"/v1/events?subject=org:a&limit=2&after={first['next_after']}")
    assert [event["data"]["version"] for event in rest["events"]] == [3]
    assert rest["next_after"] == rest["head"]
    assert get(client, "/v1/events?subject=org:nobody")["events"] == []


@pytest.mark.parametrize("of", ["", "&subject=org:acme", "&subject=org:nobody", "&limit=1"])
def test_a_follower_beyond_the_head_is_told_so(client: TestClient, of: str) -> None:
    """Else it would miss the events that are recorded there later, without a word."""
    submit(client, OPT_IN)
    head = GENESIS + 1
    for after in (head - 1, head):
        assert get(client, f"/v1/events?after={after}{of}")["head"] == head
    body = problem(client.get(f"/v1/events?after={head + 1}{of}"), "ahead_of_ledger")
    assert (body["status"], body["after"], body["head"]) == (409, head + 1, head)


@pytest.mark.parametrize(
    "event_id", ["x", "00000000-0001-8000-8000-000000000000", "ffffffff-ffff-8fff-bfff-ffffffffffff"]
)
def test_an_unknown_event_is_not_found(client: TestClient, event_id: str) -> None:
    problem(client.get(f"/v1/events/{event_id}"), "not_found")


def test_receipts_say_what_follows_and_a_retry_gets_the_same_bytes(client: TestClient) -> None:
    headers = {"Idempotency-Key": '"k"'}
    later = {**OPT_IN, "effective_from": "2190-01-01T00:00:00Z", "effective_until": "2190-02-01T00:00:00Z"}
    assert client.post("/v1/events", json=later).json()["receipts"][0]["holds_until"] == "2190-02-01T00:00:00.000000Z"
    answer = client.post("/v1/events", json=OPT_IN | {"value": False}, headers=headers)
    (receipt,) = answer.json()["receipts"]
    assert receipt["holds_until"] == "2190-01-01T00:00:00.000000Z"
    assert [change["position"] for change in receipt["still_scheduled"]] == [GENESIS + 1]
    opt_out = client.post("/v1/events", json=OPT_IN | {"value": False, "cancels_scheduled": True})
    assert [one["retracts"] is None for one in opt_out.json()["receipts"]] == [True, False]
    assert opt_out.headers["location"].endswith(opt_out.json()["receipts"][0]["event_id"])
    assert opt_out.json()["receipts"][0]["still_scheduled"] == []
    again = client.post("/v1/events", json=OPT_IN | {"value": False}, headers=headers)
    assert (again.status_code, again.content) == (201, answer.content)


def test_a_large_batch_and_a_warning_are_answered_over_http(client: TestClient) -> None:
    keys = [changed(f"key:{number}", "owner", "org:typo" if number == 7 else "org:acme") for number in range(40)]
    receipts = submit(client, {"events": [OPT_IN, *keys]})
    assert [len(receipt["warnings"]) for receipt in receipts] == [0] * 8 + [1] + [0] * 32
    assert receipts[8]["warnings"][0]["code"] == "unknown_subject"
