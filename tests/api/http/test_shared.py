"""The memory and the places that requests share, without a socket: budgets, places, and answers sent in pieces."""

import asyncio
import json
from typing import Any

import pytest
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from api.http import sending
from api.http.bodies import read_body
from api.http.middleware import RequestMiddleware
from api.http.problem_responses import HANDLERS
from api.http.shared import SMALL_BYTES, ByteBudget, HeldBody, SharedResources

BIG = 300_000


def call(app: Any, shared: SharedResources, *, arriving: list[Message] | None = None, **scope: Any) -> list[Message]:
    """The messages that the server gets."""
    sent: list[Message] = []
    messages = list(arriving or [{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    full = {"type": "http", "method": "GET", "path": "/v1/x", "headers": [], "client": ("::1", 1), **scope}
    asyncio.run(RequestMiddleware(app, None, shared)(full, receive, send))
    return sent


def answering(size: int, status: int = 200) -> Any:
    return Response(b"x" * size, status)


def test_a_budget_takes_what_fits_and_gets_it_back() -> None:
    budget = ByteBudget(10)
    assert budget.take(10)
    assert not budget.take(1)
    assert budget.take(5, beyond=True)
    budget.give_back(15)
    assert (budget.used, budget.take(10)) == (0, True)


def test_a_body_counts_from_its_16th_kib_on_until_it_is_answered() -> None:
    budget = ByteBudget(SMALL_BYTES + 1)
    held = HeldBody(budget)
    assert held.grow(SMALL_BYTES)
    assert budget.used == 0
    assert held.grow(SMALL_BYTES + 1)
    assert budget.used == SMALL_BYTES + 1
    assert not held.grow(SMALL_BYTES + 2)
    held.release()
    held.release()
    assert budget.used == 0


@pytest.mark.parametrize("size", [0, 1, sending.SMALL_BYTES, sending.SMALL_BYTES + 1, sending.PIECE_BYTES, BIG])
def test_an_answer_arrives_whole_whatever_its_size(size: int) -> None:
    shared = SharedResources()
    start, *parts = call(answering(size), shared)
    assert dict(start["headers"])[b"content-length"] == str(size).encode()
    assert b"x-request-id" in dict(start["headers"])
    assert b"".join(part["body"] for part in parts) == b"x" * size
    assert [part.get("more_body", False) for part in parts] == [True] * (len(parts) - 1) + [False]
    assert max(len(part["body"]) for part in parts) <= sending.PIECE_BYTES
    assert shared.answers.used == 0
    assert not shared.clients


def test_an_answer_without_room_is_a_problem_and_that_to_a_submission_is_sent() -> None:
    shared = SharedResources(answers_bytes_max=BIG - 1)
    start, part = call(answering(BIG), shared)
    assert (start["status"], dict(start["headers"])[b"retry-after"]) == (503, b"2")
    assert json.loads(part["body"])["code"] == "server_busy"
    start, *parts = call(answering(BIG, 201), shared)
    assert (start["status"], len(parts)) == (201, 2)
    start, part = call(answering(sending.SMALL_BYTES), shared)
    assert start["status"] == 200


def test_a_client_that_takes_too_little_loses_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "SECONDS_MAX", 0.0)
    monkeypatch.setattr(sending, "BYTES_PER_SECOND_MIN", 10**15)
    shared = SharedResources()
    messages = call(answering(BIG), shared)
    # The body ends early, which closes the connection.
    assert messages[-1]["more_body"] is True
    assert shared.answers.used == 0


def test_a_client_that_takes_nothing_loses_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "SECONDS_MAX", 0.05)
    shared = SharedResources()

    async def never(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def none() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "GET", "path": "/v1/x", "headers": [], "client": ("::1", 1)}
    asyncio.run(RequestMiddleware(answering(BIG), None, shared)(scope, none, never))
    assert shared.answers.used == 0
    assert not shared.clients


def test_a_request_without_a_place_is_refused_unless_it_is_a_health_check() -> None:
    shared = SharedResources(requests_max=1)
    shared.clients.add(("::1", 2))
    assert call(answering(1), shared)[0]["status"] == 503
    for path in ("/healthz", "/readyz"):
        assert call(answering(1), shared, path=path)[0]["status"] == 200
    shared.clients.clear()
    assert call(answering(1), shared)[0]["status"] == 200


def test_bodies_beyond_the_budget_are_refused_and_free_what_they_held() -> None:
    async def reads(scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(Request(scope, receive), BIG)
        await Response(str(len(body)))(scope, receive, send)

    shared = SharedResources(bodies_bytes_max=BIG - 1)
    small = [{"type": "http.request", "body": b"x" * 10, "more_body": True}] * 1000
    end = {"type": "http.request", "body": b"", "more_body": False}
    assert call(reads, shared, arriving=[*small, end])[1]["body"] == b"10000"
    large = {"type": "http.request", "body": b"x" * (BIG // 2), "more_body": True}
    start, part = call(ExceptionMiddleware(reads, HANDLERS), shared, arriving=[large, large, end])
    assert (start["status"], json.loads(part["body"])["code"]) == (503, "server_busy")
    assert shared.bodies.used == 0
    assert call(reads, shared, arriving=[large, end])[1]["body"] == str(BIG // 2).encode()
