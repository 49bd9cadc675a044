"""Helpers for tests of the HTTP API: submit, ask, and check a problem."""

from typing import Any

import httpx2
from starlette.testclient import TestClient

from api.http.problems import PROBLEM_CODES
from api.schemas.responses import Problem
from tests.support.ledgers import GENESIS

__all__ = ["GENESIS", "changed", "get", "head", "problem", "submit"]


def changed(subject: str, setting: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"type": "setting.changed", "subject": subject, "setting": setting, "value": value, **more}


def submit(client: TestClient, body: Any, **headers: str) -> list[dict[str, Any]]:
    answer = client.post("/v1/events", json=body, headers={key.replace("_", "-"): v for key, v in headers.items()})
    assert answer.status_code == 201, answer.text
    receipts: list[dict[str, Any]] = answer.json()["receipts"]
    return receipts


def get(client: TestClient, path: str) -> Any:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def head(client: TestClient) -> int:
    position: int = get(client, "/readyz")["position"]
    return position


def problem(answer: httpx2.Response, code: str) -> dict[str, Any]:
    """The problem document of `answer`, after checking that it has this code."""
    assert answer.headers["content-type"] == "application/problem+json", (answer.status_code, answer.text)
    body: dict[str, Any] = answer.json()
    Problem.model_validate(body)
    assert body["code"] == code, body
    assert answer.status_code == body["status"] == PROBLEM_CODES[code].status
    assert body["type"] == f"/problems/{code}"
    assert body["title"] == PROBLEM_CODES[code].title
    assert body["instance"] == f"urn:inforce:request:{answer.headers['x-request-id']}"
    return body
