"""A secret that is sent in every place is in no log, no answer, no metric and no file."""

import logging
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from ledger.opening import open_ledger
from tests.api.access.world import change, make_token

LEAKED = "ift_" + "LEAKED-" * 6 + "x"


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_a_planted_secret_is_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    assert len(LEAKED) == 47
    with open_ledger(url, create=True) as ledger:
        _, secret = make_token(ledger, "anna", ("operator", "corrector"))
    texts: list[str] = []
    caplog.set_level(logging.DEBUG)
    with TestClient(create_app(url, access_log=True), raise_server_exceptions=False) as client:

        def send(method: str, path: str, **more: Any) -> None:
            answer = client.request(method, path, **more)
            texts.extend((answer.text, str(dict(answer.headers))))

        for one in (secret, LEAKED):
            send("GET", "/v1/catalog", headers=bearer(one))
            send("GET", "/v1/catalog", headers={"Authorization": f"Basic {one}"})
            send("GET", "/v1/catalog", headers=[("Authorization", f"Bearer {one}"), ("Authorization", f"Bearer {one}")])
            send("GET", f"/v1/catalog?token={one}", headers=bearer(secret))
            send("GET", f"/v1/{one}", headers=bearer(one))
            send("GET", f"/v1/audits/{one}", headers=bearer(secret))
            send("GET", f"/v1/events/{one}", headers=bearer(secret))
            send("GET", f"/v1/subjects?prefix={one}", headers=bearer(secret))
            send("POST", "/v1/events", json={one: one}, headers=bearer(secret))
            wrong = change("token:t1", "token.secret_sha256", one)
            send("POST", "/v1/events", json=wrong, headers=bearer(secret))
            send("POST", "/v1/events", json=change("org:acme", one, True), headers=bearer(secret))
            send(
                "POST",
                "/v1/events",
                json={**change("org:acme", "training.opt_in", True), "actor": one},
                headers=bearer(secret),
            )
            send("POST", "/v1/events", content=one, headers=bearer(secret) | {"Content-Type": "application/json"})
            send("POST", "/v1/checks", json={"org_id": "acme", one: one}, headers=bearer(secret))
        send("GET", "/metrics")
        send("GET", "/v1/events?limit=1000", headers=bearer(secret))
    ours = [record.getMessage() for record in caplog.records if record.name.partition(".")[0] != "httpx2"]
    assert len(ours) > 20
    everything = "\n".join([*texts, *ours])
    assert "LEAKED" not in everything
    assert secret not in everything
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"LEAKED" not in content, path
            assert secret.encode() not in content, path


def test_a_body_names_no_actor(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with open_ledger(url, create=True) as ledger:
        _, secret = make_token(ledger, "anna", ("operator",))
    with TestClient(create_app(url)) as client:
        event = change("org:acme", "training.opt_in", True)
        refused = client.post("/v1/events", json={**event, "actor": "principal:bert"}, headers=bearer(secret))
        assert refused.status_code == 422
        assert refused.json()["errors"] == [
            {"in": "body", "pointer": "/actor", "detail": "this member does not belong here"}
        ]
        receipt = client.post("/v1/events", json=event, headers=bearer(secret)).json()["receipts"][0]
        stored = client.get(f"/v1/events/{receipt['event_id']}", headers=bearer(secret)).json()
        assert stored["data"]["actor"] == "principal:anna"


def test_an_idempotency_key_belongs_to_its_principal(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with open_ledger(url, create=True) as ledger:
        secrets = [make_token(ledger, name, ("operator",))[1] for name in ("anna", "bert")]
        again = make_token(ledger, "anna", None)[1]
    event = change("org:acme", "training.opt_in", True)
    with TestClient(create_app(url)) as client:
        answers = [
            client.post("/v1/events", json=event, headers=bearer(one) | {"Idempotency-Key": '"same"'}).json()
            for one in (*secrets, again)
        ]
        assert answers[0]["position"] != answers[1]["position"]
        # Another token of the same principal: the same caller.
        assert answers[2]["receipts"][0]["event_id"] == answers[0]["receipts"][0]["event_id"]
        other = client.post(
            "/v1/events",
            json={**event, "value": False},
            headers=bearer(secrets[1]) | {"Idempotency-Key": '"same"'},
        )
        assert other.json()["code"] == "idempotency_key_reused"


def test_keys_of_a_ledger_without_sign_in_stay_readable(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    event = change("org:acme", "training.opt_in", True)
    with TestClient(create_app(url, sign_in=False)) as client:
        first = client.post("/v1/events", json=event, headers={"Idempotency-Key": '"k"'}).json()
    with open_ledger(url, write=True) as ledger:
        _, secret = make_token(ledger, "anna", ("operator",))
    with TestClient(create_app(url)) as client:
        own = client.post("/v1/events", json=event, headers=bearer(secret) | {"Idempotency-Key": '"k"'}).json()
        assert own["position"] > first["position"]
    with TestClient(create_app(url, sign_in=False)) as client:
        again = client.post("/v1/events", json=event, headers={"Idempotency-Key": '"k"'}).json()
        assert again["receipts"][0]["event_id"] == first["receipts"][0]["event_id"]
