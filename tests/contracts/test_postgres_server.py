"""What a PostgreSQL server may be, and what a process that asks it."""

import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from ledger.errors import NotALedger
from ledger.opening import open_ledger
from ledger.recorders.postgres import PostgresLedgerRecorder
from tests.support.ledgers import GENESIS, change, opened, submit

FILES = 1100
"""More than select(2) takes."""


@contextmanager
def database(server_url: str, encoding: str) -> Iterator[str]:
    name = f"inforce_test_{encoding.lower()}_only"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {name}")
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'")
        try:
            yield urlsplit(server_url)._replace(path=f"/{name}").geturl()
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_database_of_bytes_is_asked_in_utf8(postgres_server_url: str) -> None:
    with database(postgres_server_url, "SQL_ASCII") as url:
        ledger, _ = opened(url)
        with ledger:
            submit(ledger, change(reason="数据"))
            assert ledger.reasons([GENESIS + 1]) == {GENESIS + 1: "数据"}


def test_a_database_that_cannot_hold_every_text_is_refused(postgres_server_url: str) -> None:
    with database(postgres_server_url, "LATIN1") as url:
        with pytest.raises(NotALedger, match="encoding LATIN1"):
            open_ledger(url, create=True)
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'inforce'").fetchone() == (0,)


def test_a_process_with_very_many_files_appends(postgres_url: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * FILES)), hard))
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(FILES):
            stack.enter_context(Path("/dev/null").open("rb"))
        ledger, _ = opened(postgres_url)
        with ledger:
            submit(ledger, change())
            assert submit(ledger, change())[0].position == GENESIS + 2


def test_a_server_that_vanishes_without_a_word_is_noticed(postgres_url: str) -> None:
    ledger, _ = opened(f"{postgres_url}{'&' if '?' in postgres_url else '?'}keepalives_idle=30")
    with ledger:
        recorder = ledger.recorder
        assert isinstance(recorder, PostgresLedgerRecorder)
        parameters = recorder.datastore.parameters
        assert (int(parameters["keepalives_idle"]), parameters["tcp_user_timeout"]) == (30, 25_000)
        assert isinstance(recorder.datastore.pool.kwargs, dict)
        assert recorder.datastore.pool.kwargs["tcp_user_timeout"] == 25_000
