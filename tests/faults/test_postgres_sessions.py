"""PostgreSQL loses its sessions, its process or its last free connection; it blocks writers, or refuses writes.

Each response is right or 503. The server never hangs, recovers without help, and loses no acknowledged event.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import psycopg
import pytest

from tests.faults.server import Callers, ServerProcess, run_server, training
from tests.simulation import faults
from tests.support.postgres import fresh_database
from tests.support.postgres_restart import RestartablePostgres, StopMode, terminate_backends
from tests.support.waiting import GIVE_UP_S, until

pytestmark = pytest.mark.postgres
Figure = Callable[[str, object], None]


@pytest.fixture(scope="module")
def url(postgres_server_url: str) -> Iterator[str]:
    with fresh_database(postgres_server_url) as url:
        yield url


@pytest.fixture(scope="module")
def server(url: str) -> Iterator[ServerProcess]:
    """One server for all tests: it must recover from each test before the next."""
    with run_server(url) as server:
        yield server


def test_sessions_are_terminated_under_load(server: ServerProcess, url: str, record_property: Figure) -> None:
    terminated = 0
    with Callers(server) as callers:
        for round_ in range(8):
            callers.expect_progress(6)
            terminated += terminate_backends(url, None if round_ % 2 else 2)
        callers.expect_progress()
    callers.assert_nothing_lost(url)
    record_property("figure", f"faults: {terminated} sessions terminated under load, answers {dict(callers.answers)}")


def test_a_session_is_terminated_between_insert_and_commit(server: ServerProcess, url: str) -> None:
    for fault in (faults.killed_before_commit, faults.killed_at_commit):
        head = server.ask("GET", "/readyz").body["position"]
        key = fault.__name__
        with fault(url):
            server.submit(training("org:acme", True), key).unavailable()
            assert server.ask("GET", "/readyz").body["position"] == head
        receipts = server.submit(training("org:acme", True), key)
        assert (receipts.status, receipts.body["position"]) == (201, head + 1)
        assert server.submit(training("org:acme", True), key).body == receipts.body


@pytest.fixture(scope="module")
def restartable() -> Iterator[RestartablePostgres]:
    with RestartablePostgres(max_connections="20") as postgres:
        yield postgres


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_postgresql_restarts_under_load(
    restartable: RestartablePostgres, mode: StopMode, record_property: Figure
) -> None:
    with fresh_database(restartable.url) as url, run_server(url) as server:
        with Callers(server) as callers:
            for is_noticed in (False, True):
                callers.expect_progress()
                restartable.stop(mode)
                if is_noticed:
                    until(lambda: callers.answers[503])
                restartable.start()
                began = time.monotonic()
                callers.expect_progress(6)
                record_property(
                    "figure", f"faults: PostgreSQL restarted ({mode}): 6 more in {time.monotonic() - began:.2f} s"
                )
        callers.assert_nothing_lost(url)


@pytest.mark.parametrize("limited", ["the server", "the role"])
def test_no_connection_is_free(restartable: RestartablePostgres, limited: str) -> None:
    """Other clients take every connection, also those that the server lost; then they close them."""
    with fresh_database(restartable.url) as url, psycopg.connect(restartable.url, autocommit=True) as admin:
        limited_url = url
        if limited == "the role":
            admin.execute("CREATE ROLE few LOGIN CONNECTION LIMIT 6")
            admin.execute(f"ALTER DATABASE {faults.database_of(url)} OWNER TO few".encode())
            limited_url = url.replace("postgres@", "few@")
        with run_server(limited_url) as server, Callers(server) as callers:
            callers.expect_progress()
            with ExitStack() as others:
                _take_every_connection(others, limited_url, admin)
                with ThreadPoolExecutor(3) as pool:
                    refused = [
                        pool.submit(server.submit, training("org:acme", True)),
                        pool.submit(server.ask, "POST", "/v1/checks", {"org_id": "acme"}),
                        pool.submit(server.ask, "GET", "/readyz"),
                    ]
                    for answer in refused:
                        answer.result().unavailable()
                assert server.ask("GET", "/healthz").status == 200
            callers.expect_progress()
        assert callers.failures == []
        assert callers.answers[503] > 0


def _take_every_connection(others: ExitStack, url: str, admin: psycopg.Connection[Any]) -> None:
    quiet = 0
    for _ in range(2000):
        with suppress(psycopg.OperationalError):
            others.enter_context(psycopg.connect(url, application_name="other"))
            quiet = 0
            continue
        ended = admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND application_name <> 'other'",
            (faults.database_of(url),),
        )
        # A backend that ends is no longer listed and still takes a connection, for a moment.
        quiet = 0 if ended.rowcount else quiet + 1
        if quiet == 20:
            return
        time.sleep(0.01)
    raise AssertionError("the server still has a connection")


@pytest.mark.parametrize("name", ["lock_timeout", "statement_timeout"])
def test_the_append_lock_is_held_longer_than_a_session_may_wait(server: ServerProcess, url: str, name: str) -> None:
    with faults.setting(url, name, "300ms"), Callers(server, 4) as callers:
        server.wait_until_ready()
        callers.expect_progress()
        with faults.append_locked(url):
            began = time.monotonic()
            problem = server.submit(training("org:waits", True), name).unavailable()
            assert time.monotonic() - began < GIVE_UP_S
            assert problem["code"] == "ledger_unavailable"
            # A query does not wait for the lock.
            assert server.ask("POST", "/v1/checks", {"org_id": "acme"}).status == 200
        callers.expect_progress()
        assert server.submit(training("org:waits", True), name).status == 201
    assert callers.failures == []


def test_a_database_refuses_writes(server: ServerProcess, url: str) -> None:
    """As a hot standby does: queries of projected events work, submissions are refused until it is promoted."""
    assert server.submit(training("org:acme", True)).status == 201
    assert server.state("org:acme").status == 200
    with faults.read_only(url):
        server.wait_until_ready()
        server.submit(training("org:acme", False), "read-only").unavailable()
        answer = server.state("org:acme")
        assert (answer.status, answer.body["settings"]["training.opt_in"]["value"]) == (200, True)
        assert server.ask("POST", "/v1/checks", {"org_id": "acme"}).status == 200
    server.wait_until_ready()
    assert server.submit(training("org:acme", False), "read-only").status == 201
    assert server.state("org:acme").body["settings"]["training.opt_in"]["value"] is False
