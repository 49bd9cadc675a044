"""Two real servers on one ledger: a token made, used and revoked holds and ends on both, on both databases."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from ledger.opening import open_ledger
from tests.api.access.world import change, make_token
from tests.api.server_process import talk
from tests.support.waiting import GIVE_UP_S

SERVE = "import sys; from api.server import serve; serve(sys.argv[1], port=0)"
HOLDS_WITHIN_S = 1.0


@contextlib.contextmanager
def server(url: str) -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[3],
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline().rsplit(":", 1)[1])
    finally:
        process.terminate()
        process.communicate(timeout=GIVE_UP_S)


@pytest.fixture
def servers(database_url: str) -> Iterator[tuple[int, int, str]]:
    """(a port, another port, the operator's secret)."""
    with open_ledger(database_url, create=True) as ledger:
        secret = make_token(ledger, "operator", ("operator",))[1]
    with server(database_url) as one, server(database_url) as other:
        yield one, other, secret


def call(port: int, secret: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    sent = None if body is None else json.dumps(body).encode()
    status, _, answer = talk(port, method, path, sent, Authorization=f"Bearer {secret}")
    return status, json.loads(answer)


def ends_within(seconds: float, ended: Callable[[], bool]) -> bool:
    """Whether it ended in time, or the machine was too busy to tell: then it must have ended by now."""
    began = time.monotonic()
    while not ended():
        if time.monotonic() - began > seconds:
            return ended()
        time.sleep(0.02)
    return True


def test_a_change_of_access_holds_at_once_here_and_within_a_second_there(
    servers: tuple[int, int, str], database_url: str
) -> None:
    here, there, operator = servers
    with open_ledger(database_url, write=True) as ledger:
        token, secret = make_token(ledger, "anna", ("auditor",))
    path = "/v1/subjects/principal:anna/state"
    # Both have it in memory.
    for port in (here, there, here, there):
        assert ends_within(HOLDS_WITHIN_S, lambda p=port: call(p, secret, "GET", path)[0] == 200)  # type: ignore[misc]

    # Another role: what it may do changes on both.
    roles = change("principal:anna", "access.roles", ["gateway"])
    assert call(here, operator, "POST", "/v1/events", roles)[0] == 201
    assert call(here, secret, "GET", "/v1/audits")[0] == 403
    assert ends_within(HOLDS_WITHIN_S, lambda: call(there, secret, "GET", "/v1/audits")[0] == 403)
    assert call(there, secret, "GET", path)[0] == 200

    # Blocked, and free again.
    for disabled, status in ((True, 401), (False, 200)):
        event = change("principal:anna", "access.disabled", disabled)
        assert call(there, operator, "POST", "/v1/events", event)[0] == 201
        assert call(there, secret, "GET", path)[0] == status
        assert ends_within(HOLDS_WITHIN_S, lambda s=status: call(here, secret, "GET", path)[0] == s)  # type: ignore[misc]

    # Revoked.
    event = {"type": "setting.cleared", "subject": token, "setting": "token.secret_sha256"}
    status, receipts = call(here, operator, "POST", "/v1/events", event)
    assert status == 201
    assert call(here, secret, "GET", path)[0] == 401
    assert ends_within(HOLDS_WITHIN_S, lambda: call(there, secret, "GET", path)[0] == 401)

    # The ledger keeps for ever what each of them could do then.
    before = receipts["receipts"][0]["recorded_at"].replace("Z", "")[:-1]
    state = call(there, operator, "GET", f"/v1/subjects/{token}/state?at={before}0Z")[1]["settings"]
    assert state["token.principal"]["value"] == "principal:anna"
    actors = {event["data"]["actor"] for event in call(there, operator, "GET", "/v1/events?limit=1000")[1]["events"]}
    assert "principal:operator" in actors
    assert "anonymous" not in actors


def test_a_stream_ends_within_a_second_of_its_revocation_on_another_server(
    servers: tuple[int, int, str], database_url: str
) -> None:
    here, there, operator = servers
    with open_ledger(database_url, write=True) as ledger:
        token, secret = make_token(ledger, "anna", ("gateway",))
    connection = HTTPConnection("127.0.0.1", there, timeout=GIVE_UP_S)
    with contextlib.closing(connection):
        connection.request("GET", "/v1/events/stream", headers={"Authorization": f"Bearer {secret}"})
        stream = connection.getresponse()
        assert stream.status == 200
        event = {"type": "setting.cleared", "subject": token, "setting": "token.secret_sha256"}
        status, receipts = call(here, operator, "POST", "/v1/events", event)
        assert status == 201
        revoked = receipts["position"]
        time.sleep(HOLDS_WITHIN_S)
        assert call(here, operator, "POST", "/v1/events", change("org:acme", "training.opt_in", True))[0] == 201
        # The stream ends by itself, and holds nothing from after a second behind the revocation.
        text = stream.read().decode()
    ids = [int(line[4:]) for line in text.splitlines() if line.startswith("id: ")]
    assert ids == list(range(1, len(ids) + 1))
    assert revoked - 1 <= len(ids) <= revoked


def test_a_token_of_another_ledger_opens_nothing(servers: tuple[int, int, str], tmp_path: Path) -> None:
    with open_ledger(f"sqlite:///{tmp_path}/other.db", create=True) as other:
        secret = make_token(other, "operator", ("operator",))[1]
    assert call(servers[0], secret, "GET", "/v1/catalog")[0] == 401
