"""POST /v1/checks: one record, many, in force by default, hindsight on demand."""

import json
from typing import Any

import pytest
from freezegun import freeze_time
from starlette.testclient import TestClient

from api.app import create_app
from ledger.append.submissions import parse_submissions
from ledger.clock import ManualClock, SystemClock
from ledger.opening import open_ledger
from ledger.times import format_time
from tests.api.client import GENESIS, changed, head, problem, submit


def check(client: TestClient, body: Any, query: str = "") -> Any:
    answer = client.post(f"/v1/checks{query}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_decision_has_every_member_of_the_contract(client: TestClient) -> None:
    submit(client, {"events": [changed("key:k1", "owner", "org:acme"), changed("model:m", "model.hosting", "hosted")]})
    decision = check(client, {"request_id": "r1", "key_id": "k1", "model_id": "m"})
    assert set(decision) == {"request_id", "verdict", "governed_by", "handling", "reasons", "evidence", "as_of"}
    assert (decision["verdict"], decision["governed_by"]) == (
        "allowed",
        {"subject": "org:acme", "via": ["key:k1", "org:acme"], "known": False},
    )
    assert check(client, {"org_id": "typo"})["governed_by"] == {
        "subject": "org:typo",
        "via": ["org:typo"],
        "known": False,
    }
    (fault,) = problem(client.post("/v1/checks", json={"org_id": "org:acme"}), "bad_record")["errors"]
    assert (fault["pointer"], fault["detail"]) == ("/org_id", "org_id holds its kind, org; send acme")
    assert decision["as_of"]["position"] == GENESIS + 2
    assert decision["as_of"]["at"] == decision["as_of"]["known_at"]


def test_a_check_is_in_force_by_default_and_includes_hindsight(client: TestClient) -> None:
    with freeze_time("2099-01-01T00:00:00Z"):
        submit(client, changed("org:acme", "training.opt_in", False))
    with freeze_time("2099-03-01T00:00:00Z"):
        late = changed(
            "org:acme", "training.opt_in", True, effective_from="2099-01-15T00:00:00Z", reason="consent found"
        )
        submit(client, late)
    record = {"org_id": "acme", "at": "2099-02-01T00:00:00Z", "handling": {"trained": True}}
    decision = check(client, record)
    assert (decision["verdict"], decision["reasons"]) == ("violation", ["trained_without_opt_in"])
    assert decision["hindsight"]["verdict"] == "compliant"
    assert [by["position"] for by in decision["hindsight"]["changed_by"]] == [GENESIS + 2]
    assert check(client, record, "?known_at=2099-03-02T00:00:00Z")["verdict"] == "compliant"
    assert check(client, record, "?known_at=at") == decision


def test_a_record_without_a_time_is_decided_now(client: TestClient) -> None:
    with freeze_time("2099-01-01T00:00:00Z"):
        submit(client, changed("org:acme", "training.opt_in", True))
        decision = check(client, {"org_id": "acme"})
        assert decision["as_of"]["at"] == "2099-01-01T00:00:00.000000Z"
        assert decision["handling"]["may_train"] is True


@pytest.mark.parametrize("several", [False, True])
def test_a_record_without_a_time_is_not_before_the_events_of_a_faster_clock(database_url: str, several: bool) -> None:
    """The other machine's clock is an hour ahead, and this process has not read its events before the question."""
    ahead = ManualClock(SystemClock().now() + 3_600_000_000)
    record = {"org_id": "acme"}
    with TestClient(create_app(database_url, sign_in=False)) as client, open_ledger(database_url, clock=ahead) as other:
        for value in (True, False):
            ahead.now_us += 1
            (receipt,) = other.submit(parse_submissions(changed("org:acme", "training.opt_in", value)), actor="ops")
            # The second time the basis is cached, so the event loop may answer.
            for _ in range(2):
                answer = check(client, {"requests": [record, record]} if several else record)
                for decision in answer["decisions"] if several else [answer]:
                    assert decision["handling"]["may_train"] is value
                    assert decision["as_of"]["at"] == decision["as_of"]["known_at"] == format_time(receipt.recorded_at)


def test_many_records_are_decided_in_order_at_one_position(client: TestClient) -> None:
    submit(client, {"events": [changed(f"org:o{n}", "training.opt_in", bool(n % 2)) for n in range(20)]})
    records = [{"request_id": str(n), "org_id": f"o{n % 20}"} for n in range(1000)]
    answer = check(client, {"requests": records})
    assert [decision["request_id"] for decision in answer["decisions"]] == [str(n) for n in range(1000)]
    assert [d["handling"]["may_train"] for d in answer["decisions"][:20]] == [bool(n % 2) for n in range(20)]
    assert {decision["as_of"]["position"] for decision in answer["decisions"]} == {answer["position"]} == {GENESIS + 20}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, ""),
        ([], ""),
        ("org:acme", ""),
        ({"org_id": "a b"}, "/org_id"),
        ({"org_id": 7}, "/org_id"),
        ({"org_id": "a", "at": 1767225600}, "/at"),
        ({"org_id": "a", "at": "2026-01-01T00:00:00"}, "/at"),
        ({"org_id": "a", "handling": {"stored": "yes"}}, "/handling/stored"),
        ({"org_id": "a", "handling": {"network": "lan"}}, "/handling/network"),
        ({"org_id": "a", "colour": "red"}, "/colour"),
        ({"org_id": "a", "enforced_position": -1}, "/enforced_position"),
        ({"requests": []}, "/requests"),
        ({"requests": [{"org_id": "a"}, {"org_id": "a", "at": "x"}]}, "/requests/1/at"),
        ({"requests": [{"org_id": "a"}], "known_at": "at"}, ""),
        ({"requests": [{"org_id": "a"}] * 10_001}, "/requests"),
    ],
)
def test_a_bad_record_names_its_fault(shared_client: TestClient, body: Any, pointer: str) -> None:
    answer = problem(shared_client.post("/v1/checks", json=body), "bad_record")
    assert [fault["pointer"] for fault in answer["errors"]] == [pointer]


def test_thousands_of_faults_are_not_all_listed(shared_client: TestClient) -> None:
    answer = problem(shared_client.post("/v1/checks", json={"requests": [{}] * 10_000}), "bad_record")
    assert len(answer["errors"]) == 100
    assert "9999 more" in answer["detail"]


def test_checks_may_have_larger_bodies_than_submissions(shared_client: TestClient) -> None:
    body = {"requests": [{"request_id": "r" * 200, "org_id": "a"}] * 8_000}
    assert len(json.dumps(body)) > 1024 * 1024
    assert len(check(shared_client, body)["decisions"]) == 8_000
    answer = shared_client.post(
        "/v1/checks", content=b" " * (8 * 1024 * 1024 + 1), headers={"Content-Type": "application/json"}
    )
    problem(answer, "body_too_large")
    assert head(shared_client) == GENESIS
