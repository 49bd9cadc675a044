"""The test set-up itself: a real PostgreSQL, a database for each test, and nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import hypothesis
import psycopg
import pytest

from tests.support.postgres import fresh_database
from tests.support.postgres_restart import RestartablePostgres, terminate_backends
from tests.support.waiting import GIVE_UP_S

RUN_THAT_STARTS_A_SERVER = """
import sys
from tests.support.postgres import PostgresRun

run = PostgresRun.begin()
try:
    print(run.url(), flush=True)
    sys.stdin.read()
finally:
    run.end()
"""


def test_the_server_is_a_real_and_durable_postgresql(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        (version,) = connection.execute("SELECT version()").fetchone() or ("",)
        settings = {str(name): setting for name, setting in connection.execute("SELECT name, setting FROM pg_settings")}
    assert version.startswith("PostgreSQL ")
    assert (settings["fsync"], settings["synchronous_commit"]) == ("on", "on")


def test_two_databases_share_nothing(postgres_url: str, postgres_server_url: str) -> None:
    with fresh_database(postgres_server_url) as other_url:
        with psycopg.connect(postgres_url) as connection:
            connection.execute("CREATE TABLE mine ()")
        with psycopg.connect(other_url) as other:
            assert other.execute("SELECT to_regclass('mine')").fetchone() == (None,)


def test_a_database_is_dropped_while_somebody_is_still_connected(postgres_server_url: str) -> None:
    with fresh_database(postgres_server_url) as url:
        left_open = psycopg.connect(url)
    with pytest.raises(psycopg.OperationalError):
        left_open.execute("SELECT 1")
    left_open.close()


def test_database_url_names_both_databases(database_url: str) -> None:
    parts = urlsplit(database_url)
    assert parts.scheme in {"sqlite", "postgresql"}
    if parts.scheme == "sqlite":
        assert Path(parts.path.removeprefix("/")).parent.is_dir()


@pytest.mark.postgres
@pytest.mark.skipif("INFORCE_TEST_POSTGRES" in os.environ, reason="the server named there is not ours to stop")
@pytest.mark.parametrize("ended_by", [signal.SIGKILL, None], ids=["killed", "ended"])
def test_no_server_outlives_the_run_that_started_it(ended_by: signal.Signals | None) -> None:
    _assert_nothing_is_left(RUN_THAT_STARTS_A_SERVER, ended_by)


def _assert_nothing_is_left(program: str, ended_by: signal.Signals | None) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        url = run.stdout.readline().strip()
        folder = Path(parse_qs(urlsplit(url).query)["host"][0])
        psycopg.connect(url).close()
        if ended_by is not None:
            run.send_signal(ended_by)
    deadline = time.monotonic() + GIVE_UP_S
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not folder.exists()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)


RUN_WITH_A_SERVER_OF_ITS_OWN = """
import sys
from tests.support.postgres_restart import RestartablePostgres

with RestartablePostgres() as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""


@pytest.mark.postgres
def test_a_server_of_ones_own_keeps_what_was_committed_when_it_is_stopped_like_a_crash() -> None:
    with RestartablePostgres(max_connections="7") as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
            assert terminate_backends(server.url) == 1
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        server.restart("immediate")
        assert "not properly shut down" in (server.folder / "log").read_text()
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT one FROM kept").fetchone() == (1,)
            assert connection.execute("SHOW max_connections").fetchone() == ("7",)
            assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
        server.stop("fast")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.url)
    assert not server.folder.exists()


@pytest.mark.postgres
@pytest.mark.parametrize("ended_by", [signal.SIGKILL, None], ids=["killed", "ended"])
def test_no_server_of_ones_own_outlives_its_owner(ended_by: signal.Signals | None) -> None:
    _assert_nothing_is_left(RUN_WITH_A_SERVER_OF_ITS_OWN, ended_by)


def test_the_examples_of_a_property_are_the_same_on_every_run_unless_new_ones_are_searched_for(
    pytestconfig: pytest.Config,
) -> None:
    assert hypothesis.settings().derandomize is not pytestconfig.getoption("--search")
    assert hypothesis.settings.get_profile("fixed").derandomize
    assert not hypothesis.settings.get_profile("search").derandomize
