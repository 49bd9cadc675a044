"""An unavailable database is 503 with Retry-After; nothing is recorded, and everything works once it is back."""

import sqlite3
import time
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from ledger.clock import SystemClock
from ledger.opening import open_recorder
from ledger.store import Ledger
from tests.api.client import GENESIS, changed, get, head, problem, submit
from tests.support.waiting import GIVE_UP_S

CHANGE = changed("org:acme", "training.opt_in", True)


def test_a_sqlite_ledger_that_another_program_writes_to(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    recorder = open_recorder(f"sqlite:///{path}", lock_timeout=1)
    recorder.create({"origin": "test.example"})
    with Ledger(recorder, SystemClock(), origin="test.example") as ledger:
        ledger.ensure_genesis()
        with TestClient(create_app(ledger, sign_in=False)) as client:
            get(client, "/v1/catalog")
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            answer = client.post("/v1/events", json=CHANGE)
            body = problem(answer, "ledger_unavailable")
            assert int(answer.headers["retry-after"]) > 0
            assert str(path) not in body["detail"]
            # Readers do not wait for writers.
            assert head(client) == GENESIS
            assert client.post("/v1/checks", json={"org_id": "acme"}).status_code == 200
            other.execute("ROLLBACK")
            other.close()
            submit(client, CHANGE)


def test_a_read_only_sqlite_ledger_answers_and_records_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with TestClient(create_app(url, sign_in=False)) as client:
        submit(client, CHANGE)
        # Stores the timeline while the database is still writable.
        get(client, "/v1/subjects/org:acme/state")
    recorder = open_recorder(f"{url}?mode=ro")
    with (
        Ledger(recorder, SystemClock(), origin="test.example") as ledger,
        TestClient(create_app(ledger, sign_in=False)) as client,
    ):
        problem(client.post("/v1/events", json=CHANGE), "ledger_unavailable")
        assert get(client, "/v1/subjects/org:acme/state")["settings"]["training.opt_in"]["value"] is True


def test_an_unreachable_postgresql(postgres_url: str, postgres_server_url: str) -> None:
    name = urlsplit(postgres_url).path.removeprefix("/")
    admin = psycopg.connect(postgres_server_url, autocommit=True)
    with admin, TestClient(create_app(postgres_url, sign_in=False)) as client:
        submit(client, CHANGE)
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        for _attempt in range(2):
            answers = [
                client.get("/readyz"),
                client.get("/v1/events"),
                client.post("/v1/checks", json={"org_id": "acme"}),
                client.post("/v1/events", json=CHANGE),
            ]
            for answer in answers:
                body = problem(answer, "ledger_unavailable")
                assert int(answer.headers["retry-after"]) > 0
                assert name not in answer.text
                assert "connect" not in body["detail"]
        assert client.get("/healthz").status_code == 200
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        deadline = time.monotonic() + GIVE_UP_S
        while client.get("/readyz").status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert head(client) == GENESIS + 1
        submit(client, CHANGE | {"value": False, "expected_version": 1})


@pytest.mark.parametrize("source", ["sqlite://", "mysql://x/y", "ledger.db", ""])
def test_an_invalid_database_url_is_refused(source: str) -> None:
    with pytest.raises(Exception, match="named"), TestClient(create_app(source, sign_in=False)):
        pass
