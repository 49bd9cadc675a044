"""Unusual PostgreSQL databases, unusual processes, and servers that vanish."""

import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from ledger.errors import NotALedger
from ledger.opening import open_ledger
from ledger.recorders.postgres import PostgresLedgerRecorder
from ledger.recorders.postgres_server import CHANNEL
from ledger.transfer.export import export_lines
from ledger.transfer.import_ledger import import_ledger
from tests.support.ledgers import GENESIS, change, key, open_with_clock, submit
from tests.support.postgres_restart import terminate_backends
from tests.support.waiting import GIVE_UP_S

FILES = 1100
"""More than select(2) can handle."""


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


def test_a_database_without_encoding_is_used_in_utf8(postgres_server_url: str) -> None:
    with database(postgres_server_url, "SQL_ASCII") as url:
        ledger, _ = open_with_clock(url)
        with ledger:
            submit(ledger, change(reason="数据"))
            assert ledger.reasons([GENESIS + 1]) == {GENESIS + 1: "数据"}


def test_a_database_that_cannot_store_every_text_is_refused(postgres_server_url: str) -> None:
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
        ledger, _ = open_with_clock(postgres_url)
        with ledger:
            submit(ledger, change())
            assert submit(ledger, change())[0].position == GENESIS + 2


def test_a_server_that_vanishes_silently_is_noticed(postgres_url: str) -> None:
    ledger, _ = open_with_clock(f"{postgres_url}{'&' if '?' in postgres_url else '?'}keepalives_idle=30")
    with ledger:
        recorder = ledger.recorder
        assert isinstance(recorder, PostgresLedgerRecorder)
        parameters = recorder.datastore.parameters
        assert (int(parameters["keepalives_idle"]), parameters["tcp_user_timeout"]) == (30, 25_000)
        assert isinstance(recorder.datastore.pool.kwargs, dict)
        assert recorder.datastore.pool.kwargs["tcp_user_timeout"] == 25_000


def test_a_read_of_one_statement_begins_no_transaction(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it takes one round trip, not three; and transactions can then use the same connection."""
    ledger, _ = open_with_clock(postgres_url)
    with ledger:
        (receipt,) = submit(ledger, change(reason="a test"), idempotency=key("one"))
        recorder = ledger.recorder
        with monkeypatch.context() as patch:
            patch.delattr(psycopg.Connection, "transaction")
            (entry,) = recorder.page(GENESIS, 10)
            assert recorder.stream("org:acme") == [entry]
            assert (recorder.version_at("org:acme", receipt.position), recorder.versions(["org:acme"])) == (
                1,
                {"org:acme": 1},
            )
            assert recorder.personal([receipt.position]).keys() == {receipt.position}
            assert ("alice", "one") in recorder.append_preconditions((), [("alice", "one")]).known
            assert recorder.subjects_at([receipt.position]) == ["org:acme"]
        with recorder.exclusive():
            assert recorder.page(GENESIS, 10) == [entry]
        with recorder.transaction(commit=False) as cursor:
            assert cursor.execute("SHOW transaction_isolation").fetchone() == ("repeatable read",)
            assert cursor.execute("SHOW transaction_read_only").fetchone() == ("on",)
        terminate_backends(postgres_url)
        assert recorder.page(GENESIS, 10) == [entry]


def test_a_finished_import_notifies_listeners(postgres_url: str, tmp_path: Path) -> None:
    original, _ = open_with_clock(f"sqlite:///{tmp_path}/ledger.db")
    with original:
        submit(original, change())
        exported = b"".join(export_lines(original))
    with psycopg.connect(postgres_url, autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}".encode())
        import_ledger(postgres_url, BytesIO(exported))
        (notification,) = listener.notifies(timeout=GIVE_UP_S, stop_after=1)
    assert notification.payload == str(GENESIS + 1)
