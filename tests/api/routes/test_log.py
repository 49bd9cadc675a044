"""GET /log/… as c2sp.org/tlog-tiles says, the proof of an event, and submissions that wait for a checkpoint."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api import service as service_module
from api.app import create_app
from api.service import Service
from ledger.errors import BadInput
from ledger.transparency.checkpoint import SignedCheckpoint
from ledger.transparency.note import SigningKey, VerifierKey
from ledger.transparency.tiles import decode_bundle
from ledger.transparency.tlog_proof import TlogProof
from tests.api.client import changed, get, problem
from tests.support import reference_tree
from tests.support.ledgers import GENESIS
from tests.support.waiting import until

ORIGIN = "log.example/eu"
KEY = SigningKey(ORIGIN, b"k" * 32)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    service = Service.open(f"sqlite:///{tmp_path}/ledger.db", signing_keys=[KEY])
    try:
        with TestClient(create_app(service, sign_in=False)) as client:
            yield client
    finally:
        service.close()


@pytest.fixture
def unsigned(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(f"sqlite:///{tmp_path}/unsigned.db", sign_in=False)) as client:
        yield client


def record(client: TestClient, *bodies: dict[str, Any], **more: Any) -> Any:
    answer = client.post("/v1/events?wait=checkpoint", json={"events": list(bodies)}, **more)
    assert answer.status_code == 201, answer.text
    return answer.json()


def checkpoint(client: TestClient) -> SignedCheckpoint:
    answer = client.get("/log/checkpoint")
    assert answer.status_code == 200, answer.text
    return SignedCheckpoint.verified(answer.content, ORIGIN, [KEY.verifier])


def test_a_new_ledger_has_the_origin_of_its_key(client: TestClient) -> None:
    record(client, changed("org:acme", "training.opt_in", True))
    assert get(client, "/v1/events?limit=1")["events"][0]["source"] == f"urn:inforce:{ORIGIN}"
    assert checkpoint(client).head.size == GENESIS + 1


def test_a_submission_waits_for_its_checkpoint_and_gets_the_proofs(client: TestClient) -> None:
    bodies = [changed(f"org:{number}", "training.opt_in", True) for number in range(3)]
    document = record(client, *bodies, headers={"Idempotency-Key": '"k"'})
    for receipt in document["receipts"]:
        leaf = client.get(f"/v1/events/{receipt['event_id']}").content
        proof = TlogProof.parse(receipt["proof"].encode())
        assert proof.leaf_index == receipt["position"] - 1
        assert proof.verify(leaf, ORIGIN, [KEY.verifier]).head.size >= document["position"]
    again = record(client, *bodies, headers={"Idempotency-Key": '"k"'})
    assert [one["event_id"] for one in again["receipts"]] == [one["event_id"] for one in document["receipts"]]
    plain = client.post("/v1/events", json=changed("org:acme", "training.opt_in", True)).json()
    assert "proof" not in plain["receipts"][0]


def test_a_checkpoint_that_does_not_come_leaves_the_events_recorded(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "PROOF_S_MAX", 0.0)
    service: Service = client.app.state.service  # type: ignore[attr-defined]  # the type of a bare ASGI application
    assert service.log_publisher is not None
    service.log_publisher.close()
    document = record(client, changed("org:acme", "training.opt_in", True))
    assert document["receipts"][0]["proof"] is None
    event_id = document["receipts"][0]["event_id"]
    assert client.get(f"/v1/events/{event_id}").status_code == 200
    assert (
        "not under a published checkpoint yet"
        in problem(client.get(f"/v1/events/{event_id}/proof"), "not_found")["detail"]
    )


def test_tiles_and_bundles_have_their_media_types_and_cache_headers(client: TestClient) -> None:
    record(client, *(changed(f"org:{number}", "training.opt_in", True) for number in range(300)))
    signed = checkpoint(client)
    size = signed.head.size
    answer = client.get("/log/checkpoint")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=1"
    tile = client.get("/log/tile/0/000")
    assert (tile.headers["content-type"], len(tile.content)) == ("application/octet-stream", 8192)
    assert tile.headers["cache-control"] == "public, max-age=31536000, immutable"
    rest = size - 256
    partial = client.get(f"/log/tile/0/001.p/{rest}")
    assert len(partial.content) == rest * 32
    leaves = []
    for path in ("000", f"001.p/{rest}"):
        bundle = client.get(f"/log/tile/entries/{path}", headers={"Accept-Encoding": "identity"})
        assert bundle.headers["content-type"] == "application/octet-stream"
        assert bundle.headers["cache-control"] == "private, max-age=31536000, immutable"
        assert "content-encoding" not in bundle.headers
        leaves += decode_bundle(bundle.content)
    hashes = [reference_tree.leaf(leaf) for leaf in leaves]
    assert b"".join(hashes) == tile.content + partial.content
    assert reference_tree.root(hashes) == signed.head.root
    head = client.head("/log/tile/0/000")
    assert (head.status_code, head.content) == (200, b"")


def test_bundles_are_compressed_for_those_who_accept_it(client: TestClient) -> None:
    record(client, changed("org:acme", "training.opt_in", True))
    path = f"/log/tile/entries/000.p/{checkpoint(client).head.size}"
    plain = client.get(path, headers={"Accept-Encoding": "gzip;q=0, identity"})
    assert "content-encoding" not in plain.headers
    with client.stream("GET", path, headers={"Accept-Encoding": "deflate, gzip"}) as packed:
        assert packed.headers["content-encoding"] == "gzip"
        assert packed.headers["vary"] == "Accept-Encoding"
        assert gzip.decompress(b"".join(packed.iter_raw())) == plain.content


@pytest.mark.parametrize(
    "path",
    [
        *("0/001", "0/000", "1/000.p/1", "0/000.p/200", "0/000.p/0", "0/0", "00/000", "64/000", "entries/000", "x", ""),
        *("large-entries/000.p/1", "0/000.p/256", "entries/x000/000", "-1/000"),
    ],
)
def test_there_is_nothing_at_other_paths(client: TestClient, path: str) -> None:
    record(client, changed("org:acme", "training.opt_in", True))
    answer = client.get(f"/log/tile/{path}")
    assert answer.status_code == 404
    assert answer.json()["code"] in ("not_found", "no_such_path")
    assert answer.headers["cache-control"] == "no-store"


def test_the_verifier_keys_are_listed(client: TestClient) -> None:
    record(client, changed("org:acme", "training.opt_in", True))
    lines = client.get("/log/vkeys").text.splitlines()
    assert [VerifierKey.parse(line) for line in lines] == [KEY.verifier]


def test_a_proof_of_an_event(client: TestClient) -> None:
    document = record(client, changed("org:acme", "training.opt_in", True))
    event_id = document["receipts"][0]["event_id"]
    answer = client.get(f"/v1/events/{event_id}/proof")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    TlogProof.parse(answer.content).verify(client.get(f"/v1/events/{event_id}").content, ORIGIN, [KEY.verifier])
    problem(client.get("/v1/events/00000000-0001-8000-8000-000000000000/proof"), "not_found")


def test_a_server_without_a_key_has_no_log(unsigned: TestClient) -> None:
    assert get(unsigned, "/readyz")["log"] is None
    problem(unsigned.get("/log/checkpoint"), "not_found")
    problem(unsigned.get("/log/tile/0/000.p/1"), "not_found")
    assert unsigned.get("/log/vkeys").text == ""
    answer = unsigned.post("/v1/events?wait=checkpoint", json=changed("org:acme", "training.opt_in", True))
    assert "nothing was recorded" in problem(answer, "log_not_signed")["detail"]
    assert get(unsigned, "/v1/events?after=0")["head"] == GENESIS
    problem(
        unsigned.post("/v1/events?wait=forever", json=changed("org:acme", "training.opt_in", True)),
        "bad_parameter",
    )


def test_readiness_names_why_nothing_is_signed_and_stays_ready(client: TestClient, tmp_path: Path) -> None:
    record(client, changed("org:acme", "training.opt_in", True))
    assert get(client, "/readyz")["log"] == {"size": GENESIS + 1, "integrates": True, "problem": None}
    note = tmp_path / "ledger.db-checkpoint"
    note.write_bytes(b"nonsense")
    client.post("/v1/events", json=changed("org:acme", "training.opt_in", False))
    until(lambda: get(client, "/readyz")["log"]["problem"] is not None)
    shown = get(client, "/readyz")
    assert shown["status"] == "ready"
    assert shown["log"]["problem"]["code"] == "log_damaged"
    assert "a fork could be signed" in shown["log"]["problem"]["detail"]


def test_a_key_of_another_log_stops_the_start(client: TestClient, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="an origin never changes"):
        Service.open(f"sqlite:///{tmp_path}/ledger.db", signing_keys=[SigningKey("log.example/us", bytes(32))])
