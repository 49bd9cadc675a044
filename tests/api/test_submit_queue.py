"""Submissions over HTTP that arrive together share commits, get their own answers, and are bounded."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.service import Service
from ledger.append import group_commit as writing
from ledger.strict_json import MAX_BYTES
from tests.api.client import GENESIS, changed, get, problem, submit
from tests.support.waiting import GIVE_UP_S

WAIT_S = GIVE_UP_S


@pytest.fixture
def service(database_url: str) -> Iterator[Service]:
    service = Service.open(database_url)
    yield service
    service.close()


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service, sign_in=False)) as client:
        yield client


@contextmanager
def held_up(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Blocks all commits within the block. Yields the number of submissions of each commit."""
    append = service.ledger.recorder.append
    free = threading.Event()
    sizes: list[int] = []

    def slow(proposals: Any, clock: Any) -> Any:
        sizes.append(len(proposals))
        assert free.wait(WAIT_S)
        return append(proposals, clock)

    monkeypatch.setattr(service.ledger.recorder, "append", slow)
    try:
        yield sizes
    finally:
        free.set()


def posted(pool: ThreadPoolExecutor, service: Service, client: TestClient, count: int, **more: Any) -> Any:
    """Sends `count` changes, each of another subject, and returns once all of them wait."""
    futures = []
    for number in range(count):
        waiting = service.ledger.writer.waiting
        body = changed(f"org:{number}", "training.opt_in", True, **more)
        futures.append(pool.submit(client.post, "/v1/events", json=body))
        while service.ledger.writer.waiting == waiting or not service.ledger.writer._group:
            threading.Event().wait(0.001)
    return futures


def test_submissions_that_arrive_together_share_a_commit(
    service: Service, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadPoolExecutor(9) as pool:
        with held_up(service, monkeypatch) as sizes:
            futures = posted(pool, service, client, 8)
            futures += posted(pool, service, client, 1, expected_version=5)
        answers: list[httpx2.Response] = [future.result(WAIT_S) for future in futures]
    assert sizes[0] == 1
    assert sum(sizes) == 8
    assert len(sizes) <= 3
    assert [answer.status_code for answer in answers] == [201] * 8 + [409]
    assert problem(answers[8], "version_conflict")["current_version"] == 1
    positions = [answer.json()["position"] for answer in answers[:8]]
    assert positions == list(range(GENESIS + 1, GENESIS + 9))
    assert [event["data"]["position"] for event in get(client, f"/v1/events?after={GENESIS}")["events"]] == positions


def test_beyond_the_waiting_limit_the_server_is_busy_with_retry_after(
    service: Service, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "WAITING_MAX", 2)
    with ThreadPoolExecutor(2) as pool:
        with held_up(service, monkeypatch):
            futures = posted(pool, service, client, 2)
            # Refused before the headers of the body are checked.
            answer = client.post("/v1/events", content=b"not json", headers={"Content-Type": "text/plain"})
            assert problem(answer, "ledger_busy")["detail"].startswith("2 submissions wait")
            assert int(answer.headers["retry-after"]) > 0
            assert client.get("/healthz").status_code == 200
        assert [future.result(WAIT_S).status_code for future in futures] == [201, 201]
    assert submit(client, changed("org:9", "training.opt_in", True))[0]["position"] == GENESIS + 3


def test_a_submission_beyond_the_memory_of_what_waits_is_refused_before_its_body_is_read(
    service: Service, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "WAITING_BYTES_MAX", MAX_BYTES + 50)
    body = changed("org:0", "training.opt_in", True)
    with ThreadPoolExecutor(1) as pool:
        with held_up(service, monkeypatch):
            futures = posted(pool, service, client, 1)
            # A body without a Content-Length may have the largest size.
            problem(client.post("/v1/events", content=iter([b"{}"])), "ledger_busy")
        assert futures[0].result(WAIT_S).status_code == 201
    for _ in range(3):
        answer = client.post("/v1/events", content=b"x" * 2_000_000, headers={"Content-Type": "application/json"})
        problem(answer, "body_too_large")
        submit(client, body)


def test_a_large_body_is_read_off_the_event_loop(client: TestClient) -> None:
    events = [changed(f"org:{number}", "training.opt_in", True, reason="r" * 40) for number in range(200)]
    receipts = submit(client, {"events": events}, Idempotency_Key='"large"')
    assert [receipt["position"] for receipt in receipts] == list(range(GENESIS + 1, GENESIS + 201))
    assert submit(client, {"events": events}, Idempotency_Key='"large"') == receipts
    bad = client.post("/v1/events", json={"events": [*events, {"type": "setting.changed"}]})
    assert problem(bad, "bad_submission")["errors"][0]["pointer"].startswith("/events/200")


def test_with_a_group_maximum_of_one_every_submission_has_its_own_commit(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service.open(database_url, group_max=1)
    try:
        with TestClient(create_app(service, sign_in=False)) as client, ThreadPoolExecutor(5) as pool:
            with held_up(service, monkeypatch) as sizes:
                futures = posted(pool, service, client, 5)
            assert [future.result(WAIT_S).status_code for future in futures] == [201] * 5
        assert sizes == [1] * 5
    finally:
        service.close()
