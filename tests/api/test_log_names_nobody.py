"""The log names no subject and holds nothing of a caller's: not of valid requests, refused ones, or failing ones."""

import json
import logging
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.audits.service import AuditSettings
from api.http.logs import JsonFormatter, TextFormatter
from api.service import Service
from ledger.opening import sqlite_path
from projections.query.query import Query
from tests.api.test_server import raw
from tests.contracts.test_read_back import execute
from tests.support.waiting import GIVE_UP_S

MARK = "zzmarked"
"""Part of every id, value, reason, key and path that a caller sends."""
ORG, ACCOUNT = f"org:{MARK}-acme", f"account:{MARK}-anna"
LOG = b'{"request_id":"zzmarked-1","at":"2026-03-01T00:00:00Z","org_id":"zzmarked-acme","handling":{"trained":true}}\n'


def changed(subject: str = ORG, setting: str = "training.opt_in", value: Any = True, **more: Any) -> dict[str, Any]:
    body = {"type": "setting.changed", "subject": subject, "setting": setting, "value": value}
    return {**body, "reason": f"{MARK} reason", **more}


def post(client: TestClient, path: str, body: Any, **headers: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    client.post(path, content=content, headers={"Content-Type": "application/json", **headers})


def valid(client: TestClient) -> None:
    key = {"Idempotency-Key": f'"{MARK}"'}
    for _ in range(2):
        post(client, "/v1/events", changed(), **key)
    author = changed(f"model:{MARK}/m", "model.author", f"{MARK} Inc.")
    post(client, "/v1/events", {"events": [changed(ACCOUNT), author]})
    for path in (f"/v1/subjects/{ORG}/state", f"/v1/subjects/{ORG}/history", f"/v1/subjects/{ORG}/timeline"):
        client.get(path)
    client.get("/v1/events", params={"subject": ORG})
    client.get("/v1/subjects", params={"kind": "org", "prefix": f"org:{MARK}"})
    post(client, "/v1/checks", {"requests": [{"org_id": f"{MARK}-acme", "model_id": f"{MARK}/m"}]})


def refused(client: TestClient) -> None:
    post(client, "/v1/events", f'{{"{MARK}": '.encode())
    post(client, "/v1/events", changed(value=MARK))
    post(client, "/v1/events", changed(setting=MARK))
    post(client, "/v1/events", changed(f"org:{MARK} with spaces"))
    post(client, "/v1/events", changed(**{MARK: MARK}))
    post(client, "/v1/events", changed(effective_from=MARK))
    post(client, "/v1/events", changed(expected_version=99))
    post(client, "/v1/events", changed(value=False), **{"Idempotency-Key": f'"{MARK}"'})
    post(client, "/v1/events", changed(), **{"Idempotency-Key": MARK})
    post(client, "/v1/events", {"type": "change.retracted", "event_id": MARK, "reason": MARK})
    post(client, "/v1/checks", {"org_id": f"org:{MARK}"})
    post(client, "/v1/checks", {MARK: MARK})
    post(client, "/v1/checks", {"org_id": f"{MARK}-acme", "at": MARK})
    for path in (
        f"/v1/subjects/{ORG}/nothing",
        f"/v1/subjects/nobody:{MARK}/state",
        f"/v1/subjects/org:{MARK}-unknown/state",
        f"/v1/subjects/{ORG}/state?at={MARK}&{MARK}=1",
        f"/v1/subjects/{ORG}/state?setting={MARK}",
        f"/v1/events/{MARK}",
        f"/v1/events?after={MARK}",
        f"/{MARK}",
    ):
        client.get(path)
    client.request("DELETE", f"/v1/subjects/{ORG}/state")
    client.get(f"/v1/subjects/{ORG}/state", headers={"Host": f"{MARK}.example"})


def audited(client: TestClient) -> None:
    for body in (LOG, b"zzmarked is no JSON\n", LOG * 5):
        answer = client.post("/v1/audits", content=body, headers={"Content-Type": "application/x-ndjson"})
        if answer.status_code == 503:
            continue
        assert answer.status_code == 202, answer.text
        audit = answer.headers["location"]
        until = time.monotonic() + GIVE_UP_S
        while client.get(audit).json()["state"] not in ("done", "failed"):
            assert time.monotonic() < until
            time.sleep(0.1)
        client.get(f"{audit}/findings")
        client.get(f"{audit}/rejects")


def failing(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error whose message holds what the caller sent."""
    with monkeypatch.context() as patch:

        def fails(*_args: Any, **_more: Any) -> None:
            raise ValueError(f"{ORG} {MARK}")

        for method in ("state", "history", "check"):
            patch.setattr(Query, method, fails, raising=False)
        client.get(f"/v1/subjects/{ORG}/state")
        client.get(f"/v1/subjects/{ORG}/history")
        post(client, "/v1/checks", {"org_id": f"{MARK}-acme"})


def damage(url: str) -> None:
    """Events, reasons, keys and timelines of marked subjects that are not what they were."""
    where = "originator_id = '{}'".format
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(sqlite_path(url)[0], isolation_level=None)) as file:
            file.execute("DROP TRIGGER events_no_update")
            altered = "CAST(replace(state, 'training', 'trailing') AS BLOB)"
            file.execute(f"UPDATE events SET state = {altered} WHERE {where(ORG)}")
            file.execute(
                "UPDATE events SET originator_id = CAST(CAST(originator_id AS BLOB) || x'ff' AS TEXT) WHERE"
                f" {where(ACCOUNT)}"
            )
            file.execute("UPDATE timelines_subjects SET settings = x'00'")
            file.execute('UPDATE personal_data SET content = \'{"reason":"zzmarked other"}\'')
        return
    with psycopg.connect(url) as server:
        server.execute("ALTER TABLE inforce.events DISABLE TRIGGER ALL")
        for statement in (
            f"UPDATE inforce.events SET state = state || 'zzmarked' WHERE {where(ORG)}",
            f"UPDATE inforce.events SET originator_version = 77 WHERE {where(ACCOUNT)}",
            "UPDATE inforce.timelines_subjects SET settings = 'zzmarked'",
            'UPDATE inforce.personal_data SET content = \'{"reason":"zzmarked other"}\'',
        ):
            server.execute(statement.encode())


def tables_dropped(url: str) -> str:
    return f"DROP TABLE {'' if url.startswith('sqlite') else 'inforce.'}submissions"


@pytest.fixture
def output(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Everything that was logged, at every level of our loggers, and everything that was printed."""
    caplog.set_level(logging.DEBUG, "inforce")

    def read() -> str:
        printed = capfd.readouterr()
        formatters = logging.Formatter("%(levelname)s %(name)s %(message)s"), TextFormatter(), JsonFormatter()
        records = [record for record in caplog.records if not record.name.startswith("httpx")]
        lines = [formatter.format(record) for formatter in formatters for record in records]
        return "\n".join([*lines, printed.out, printed.err])

    return read


def test_no_log_line_holds_anything_of_a_callers(
    database_url: str, tmp_path: Path, output: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service.open(database_url, audits=AuditSettings(folder=tmp_path / "audits"))
    app = create_app(service, access_log=True, sign_in=False)
    with closing(service), TestClient(app, raise_server_exceptions=False) as client:
        valid(client)
        refused(client)
        failing(client, monkeypatch)
        audited(client)
        metrics = client.get("/metrics").text
        damage(database_url)
    # Another process, with nothing in memory.
    service = Service.open(database_url, audits=AuditSettings(folder=tmp_path / "audits"))
    app = create_app(service, access_log=True, sign_in=False)
    with closing(service), TestClient(app, raise_server_exceptions=False) as client:
        valid(client)
        audited(client)
        execute(database_url, tables_dropped(database_url))
        valid(client)
        metrics += client.get("/metrics").text
    assert 'code="ledger_unavailable"' in metrics
    assert MARK not in metrics
    log = output()
    # It caught what it is about.
    for code in (
        "ledger_corrupt",
        "ledger_unavailable",
        "unexpected ValueError",
        "/v1/subjects/{subject}/state: 200 in ",
    ):
        assert code in log
    assert MARK not in log, [line[:300] for line in log.splitlines() if MARK in line]


@pytest.mark.parametrize("options", [(), ("--verbose", "--access-log"), ("--log-format", "json", "--access-log")])
def test_neither_does_the_server_of_a_process(options: tuple[str, ...], database_url: str) -> None:
    with served(database_url, *options) as (process, port):
        for request in (
            f"GET /v1/subjects/{ORG}/state?{MARK} HTTP/1.1\r\nHost: localhost\r\n\r\n",
            f"GET /{MARK}\x01 HTTP/1.1\r\nHost: localhost\r\n\r\n",
            f"{MARK} / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            f"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n{MARK}: {MARK}\r\n\r\n{MARK}",
            f"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{MARK}\r\n",
            f"GET / HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: {MARK} with spaces\r\ntraceparent: {MARK}\r\n\r\n",
        ):
            raw(port, request.encode("latin-1"))
        process.terminate()
        printed, log = process.communicate(timeout=30)
    assert MARK not in printed + log
    if "--access-log" in options:
        assert log.count(" in ") >= 4
    if "json" in options:
        lines = [json.loads(line) for line in log.splitlines()]
        assert {line["level"] for line in lines} <= {"info", "warning"}
        assert {"time", "logger", "message"} <= set.intersection(*map(set, lines))


@contextmanager
def served(url: str, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.main", "serve", "--no-auth", "--port", "0", "--db", url, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert process.stdout is not None
        yield process, int(process.stdout.readline().rsplit(":", 1)[1])
    finally:
        process.kill()
        process.communicate()
