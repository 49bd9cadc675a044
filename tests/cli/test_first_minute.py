"""serve: without a token one is printed and lasts an hour; with one none is; --no-auth says loudly what it means."""

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from api.first_token import LASTS_US, first_lines
from api.service import Service
from ledger.clock import ManualClock
from ledger.opening import open_ledger
from projections.access.sign_in import AccessIndex
from projections.query.query import Query
from tests.api.server_process import talk
from tests.cli.test_main import COMMAND, ENVIRONMENT
from tests.support.command import run
from tests.support.ledgers import NOW

LISTENS = re.compile(r"inforce listens on http://127\.0\.0\.1:(\d+)\n")

PROVIDER = '[{"alias": "corp", "issuer": "http://127.0.0.1:9/corp", "audiences": ["inforce"]}]'


@contextmanager
def serving(url: str, folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    words = [*COMMAND, "serve", "--port", "0", "--db", url, *options]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=ENVIRONMENT
    ) as server:
        try:
            assert server.stdout is not None
            listens = LISTENS.fullmatch(server.stdout.readline())
            assert listens
            yield server, int(listens[1])
        finally:
            server.send_signal(signal.SIGTERM)


def test_the_first_token_signs_the_operator_in_and_is_in_no_log(database_url: str, tmp_path: Path) -> None:
    with serving(database_url, tmp_path, "--log-level", "debug", "--access-log") as (server, port):
        assert server.stdout is not None
        period, header, advice = (server.stdout.readline() for _ in range(3))
        assert "(one hour)" in period
        assert "inforce token create NAME --role operator" in advice
        name, _, token = header.strip().partition(": ")
        assert name == "Authorization"
        assert talk(port, "GET", "/v1/subjects")[0] == 401
        status, _, body = talk(port, "GET", "/v1/subjects", Authorization=token)
        assert status == 200
        assert b"principal:first-operator" in body
        server.send_signal(signal.SIGTERM)
        assert server.stderr is not None
        log = server.stderr.read()
    assert log
    assert token.split()[1] not in log
    assert "ift_" not in log
    # It is a token like every other, and its role ends with it.
    (row,) = run("token", "list", "--db", database_url, "--format", "json").json()["tokens"]
    assert (row["principal"], row["state"], row["created_by"]) == ("principal:first-operator", "valid", "inforce serve")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", row["last_used"])
    roles = run("state", "principal:first-operator", "--db", database_url, "--format", "json").json()["settings"]
    assert roles["access.roles"]["effective_until"] == row["until"]
    # A second start has a token to sign in with, and prints none.
    with serving(database_url, tmp_path) as (second, port):
        assert talk(port, "GET", "/v1/subjects", Authorization=token)[0] == 200
        second.send_signal(signal.SIGTERM)
        assert second.stdout is not None
        assert second.stdout.read() == ""


@pytest.mark.parametrize(("offset", "printed"), [(-1, False), (0, True), (1, True)])
def test_the_first_token_lasts_an_hour_to_the_microsecond(tmp_path: Path, offset: int, printed: bool) -> None:
    clock = ManualClock(NOW)
    with open_ledger(f"sqlite:///{tmp_path}/ledger.db", create=True, clock=clock) as ledger:
        service = Service.open(ledger)
        try:
            clock.now_us = NOW + 1_000_000
            lines = first_lines(service)
            secret = lines[1].split()[-1]
            clock.now_us += LASTS_US + offset
            assert (AccessIndex(Query(ledger)).sign_in(secret).caller is None) == printed
            assert bool(first_lines(service)) == printed
        finally:
            service.close()


def test_a_ledger_with_a_token_prints_none(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    secret = run("token", "create", "gateway-eu", "--role", "gateway", "--db", url).out.strip()
    with serving(url, tmp_path) as (server, port):
        assert talk(port, "GET", "/v1/events", Authorization=f"Bearer {secret}")[0] == 200
        assert talk(port, "GET", "/v1/audits", Authorization=f"Bearer {secret}")[0] == 403
        server.send_signal(signal.SIGTERM)
        assert server.stdout is not None
        assert server.stdout.read() == ""


def test_a_server_with_providers_prints_none(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with serving(url, tmp_path, "--oidc", PROVIDER) as (server, port):
        assert talk(port, "GET", "/v1/subjects")[0] == 401
        server.send_signal(signal.SIGTERM)
        assert server.stdout is not None
        assert server.stdout.read() == ""
    assert run("token", "list", "--db", url, "--format", "json").json() == {"tokens": []}


def test_without_sign_in_everybody_is_anonymous_and_the_server_says_so(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with serving(url, tmp_path, "--no-auth") as (server, port):
        assert server.stdout is not None
        assert server.stdout.readline().startswith(
            "WARNING: without sign-in (--no-auth) every program and every person"
        )
        body = b'{"type": "setting.changed", "subject": "org:acme", "setting": "training.opt_in", "value": true}'
        assert talk(port, "POST", "/v1/events", body)[0] == 201
        assert b'"actor":"anonymous"' in talk(port, "GET", "/v1/events?after=1&limit=1000")[2]
    assert run("token", "list", "--db", url, "--format", "json").json() == {"tokens": []}


def test_without_sign_in_no_other_address_is_served(tmp_path: Path) -> None:
    refused = run("serve", "--no-auth", "--host", "192.168.1.10", "--db", f"sqlite:///{tmp_path}/ledger.db")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "without authentication the server listens on this machine only" in refused.err
