"""Helpers for tests of audits: make logs, upload them, wait for the audits."""

from __future__ import annotations

import json
import time
from typing import Any

from starlette.testclient import TestClient

from tests.api.client import get
from tests.support.waiting import GIVE_UP_S

NDJSON = {"Content-Type": "application/x-ndjson"}
PATIENCE_S = GIVE_UP_S


def line(number: int, **more: Any) -> bytes:
    """A line of a log. Every other request was stored."""
    record = {
        "request_id": f"r{number}",
        "at": "2100-01-01T00:00:00Z",
        "org_id": "acme",
        "handling": {"stored": number % 2 == 0},
    }
    return json.dumps(record | more).encode() + b"\n"


def log(count: int) -> bytes:
    return b"".join(line(number) for number in range(count))


def send(client: TestClient, body: bytes, query: str = "") -> dict[str, Any]:
    answer = client.post(f"/v1/audits{query}", content=body, headers=NDJSON)
    assert answer.status_code == 202, answer.text
    audit: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/v1/audits/{audit['id']}"
    return audit


def ended(client: TestClient, id_: str) -> dict[str, Any]:
    """The audit, once it has ended."""
    until = time.monotonic() + PATIENCE_S
    while True:
        audit: dict[str, Any] = get(client, f"/v1/audits/{id_}")
        if audit["state"] in ("done", "failed"):
            return audit
        assert time.monotonic() < until, audit
        time.sleep(0.05)


def read_pages(client: TestClient, id_: str, what: str, limit: int) -> list[dict[str, Any]]:
    """All lines of all pages."""
    lines: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        page = get(client, f"/v1/audits/{id_}/{what}?after={after}&limit={limit}")
        assert len(page[what]) <= limit
        lines += page[what]
        assert page["next_after"] in (None, len(lines))
        after = page["next_after"]
    return lines
