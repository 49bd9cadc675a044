"""From a URL to an open ledger, or to an error of one clear line."""

import gc
import socket
import sqlite3
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from ledger.built_in_catalog import BUILT_IN
from ledger.errors import BadInput, InforceError, LedgerCorrupt, LedgerUnavailable, NotALedger
from ledger.opening import open_ledger, open_recorder
from ledger.recorders import postgres_schema, sqlite_schema
from ledger.recorders.sqlite_schema import APPLICATION_ID
from ledger.store import Ledger
from tests.support.ledgers import ORIGIN, change, open_with_clock, submit
from tests.support.programs import start_programs


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    ledger, _ = open_with_clock(f"sqlite:///{path}")
    with ledger:
        yield ledger


def refusal(url: str, *, create: bool = False) -> InforceError:
    with pytest.raises((LedgerUnavailable, LedgerCorrupt)) as refused:
        open_ledger(url, create=create).close()
    assert "\n" not in refused.value.detail
    return refused.value


# URLs


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ledger.db",
        "mysql://host/name",
        "sqlite:ledger.db",
        "sqlite://ledger.db",
        "sqlite://host/ledger.db",
        "sqlite:///",
        "sqlite:///a.db?mode=rwc",
        "sqlite:///a.db?mode=ro&mode=rw",
        "sqlite:///a.db?cache=shared",
        "sqlite:///a.db#x",
        "postgresql://host/name?no_such_option=SECRET",
        "postgresql://[::1/SECRET",
        "postgresql://user:pass@SECRET@127.0.0.1:1/name",
    ],
)
def test_a_malformed_url_is_bad_input_and_is_not_repeated(url: str) -> None:
    with pytest.raises(BadInput) as refused:
        open_ledger(url, create=True)
    assert "SECRET" not in refused.value.detail
    assert "\n" not in refused.value.detail


@pytest.mark.parametrize("origin", ["", "https://a", "A", "a b", "a/"])
def test_a_malformed_origin_is_bad_input_and_creates_nothing(path: Path, origin: str) -> None:
    with pytest.raises(BadInput, match="origin"):
        open_ledger(f"sqlite:///{path}", create=True, origin=origin)
    assert not path.exists()


@pytest.mark.parametrize("name", ["with space.db", "per%cent.db", "hash#mark?.db", "ünï.db", ":memory:", "a'b.db"])
def test_any_file_name_can_be_given_percent_encoded(tmp_path: Path, name: str) -> None:
    url = f"sqlite:///{quote(str(tmp_path / name))}"
    open_ledger(url, create=True).close()
    open_ledger(url).close()
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_relative_path_is_relative_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_ledger("sqlite:///ledger.db", create=True).close()
    assert (tmp_path / "ledger.db").exists()


def test_a_ledger_without_an_origin_gets_a_unique_one(tmp_path: Path) -> None:
    origins = set()
    for name in "ab":
        with open_ledger(f"sqlite:///{tmp_path}/{name}.db", create=True) as ledger:
            origins.add(ledger.origin)
    assert len(origins) == 2


# Files that are not a ledger


def test_a_missing_file_is_reported_and_not_created(path: Path) -> None:
    assert f"there is no ledger at {path}" in refusal(f"sqlite:///{path}").detail
    assert not path.exists()


def test_an_empty_file_is_not_a_ledger_and_can_become_one(path: Path) -> None:
    path.touch()
    assert "no ledger in this database yet" in refusal(f"sqlite:///{path}").detail
    assert path.read_bytes() == b""
    open_ledger(f"sqlite:///{path}", create=True).close()


@pytest.mark.parametrize("content", [b"hello", b"SQLite format 4\0" * 10, b"\0" * 4096, b"{}\n" * 5000])
@pytest.mark.parametrize("create", [False, True])
def test_a_file_that_is_not_sqlite_stays_unchanged(path: Path, content: bytes, create: bool) -> None:
    path.write_bytes(content)
    error = refusal(f"sqlite:///{path}", create=create)
    assert isinstance(error, NotALedger)
    assert path.read_bytes() == content


@pytest.mark.parametrize("create", [False, True])
def test_a_damaged_file_is_reported(path: Path, create: bool) -> None:
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 4080)
    error = refusal(f"sqlite:///{path}", create=create)
    assert isinstance(error, LedgerCorrupt)
    assert "damaged" in error.detail


@pytest.mark.parametrize("create", [False, True])
def test_a_file_of_another_program_stays_unchanged(path: Path, create: bool) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE bookmarks (url TEXT)")
        other.commit()
    before = path.read_bytes()
    error = refusal(f"sqlite:///{path}", create=create)
    assert isinstance(error, NotALedger)
    assert "another program" in error.detail
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_folder_is_not_a_ledger(tmp_path: Path) -> None:
    assert "directory" in refusal(f"sqlite:///{tmp_path}", create=True).detail.lower()


def test_a_file_in_a_missing_folder_is_reported(tmp_path: Path) -> None:
    assert "cannot be opened" in refusal(f"sqlite:///{tmp_path}/no/such/ledger.db", create=True).detail


@pytest.mark.parametrize("create", [False, True])
def test_a_ledger_of_a_newer_format_is_refused(database_url: str, create: bool) -> None:
    open_ledger(database_url, create=True).close()
    if database_url.startswith("sqlite"):
        newer = sqlite_schema.FORMAT + 1
        with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as connection:
            connection.execute(f"PRAGMA user_version={newer}")
    else:
        newer = postgres_schema.FORMAT + 1
        with psycopg.connect(database_url) as server:
            server.execute("UPDATE inforce.ledger_meta SET value = %s WHERE name = 'format'", (str(newer),))
    error = refusal(database_url, create=create)
    assert isinstance(error, NotALedger)
    assert f"format {newer}" in error.detail


def test_a_creation_that_was_cut_off_before_the_catalog_can_be_continued(database_url: str) -> None:
    with closing(open_recorder(database_url)) as recorder:
        recorder.create({"origin": ORIGIN})
    assert "no ledger in this database yet" in refusal(database_url).detail
    with open_ledger(database_url, create=True) as ledger:
        assert ledger.origin == ORIGIN
        assert ledger.head().position == len(BUILT_IN)
        submit(ledger, change())
    open_ledger(database_url).close()


def test_the_file_identifies_itself_and_is_durable(path: Path, ledger: Ledger) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with ledger.recorder.transaction(commit=True) as cursor:
        assert cursor.execute("PRAGMA synchronous").fetchone()[0] == 2


# Read-only, locked, missing


def test_a_ledger_opened_read_only_answers_and_records_nothing(path: Path, ledger: Ledger) -> None:
    with open_ledger(f"sqlite:///{path}?mode=ro") as reader:
        assert reader.head() == ledger.head()
        with pytest.raises(LedgerUnavailable, match="read-only"):
            submit(reader, change())
        submit(ledger, change())
        assert reader.head() == ledger.head()


def test_no_ledger_is_created_read_only(path: Path) -> None:
    refusal(f"sqlite:///{path}?mode=ro", create=True)
    assert not path.exists()
    path.touch()
    refusal(f"sqlite:///{path}?mode=ro", create=True)
    assert path.read_bytes() == b""


def test_while_another_process_writes_readers_read_and_writers_get_an_error(path: Path, ledger: Ledger) -> None:
    with (
        start_programs(("hold", f"sqlite:///{path}")) as (process,),
        closing(open_recorder(f"sqlite:///{path}", lock_timeout=0)) as recorder,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        assert recorder.head() == ledger.head()
        with pytest.raises(LedgerUnavailable, match="another process is writing"), recorder.transaction(commit=True):
            pass
    submit(ledger, change())


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://127.0.0.1:1/name",
        "postgresql://user:SECRET@127.0.0.1:1/name",
        "postgresql:///name?host=/no/such/folder",
    ],
)
def test_a_missing_server_is_reported(url: str) -> None:
    error = refusal(url)
    assert "PostgreSQL cannot be reached" in error.detail
    assert "SECRET" not in error.detail


def test_a_missing_database_is_reported(postgres_url: str) -> None:
    assert "does not exist" in refusal(postgres_url.replace("/inforce_test_", "/no_such_")).detail


def test_an_empty_database_is_not_a_ledger(postgres_url: str) -> None:
    assert "no ledger in this database yet" in refusal(postgres_url).detail


def test_a_schema_that_was_created_beforehand_is_used(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE SCHEMA inforce")
    open_ledger(postgres_url, create=True).close()
    open_ledger(postgres_url).close()


@pytest.mark.parametrize("create", [False, True])
def test_a_schema_of_another_program_stays_unchanged(postgres_url: str, create: bool) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE SCHEMA inforce")
        connection.execute("CREATE TABLE inforce.ledger_meta (name text, value text)")
    error = refusal(postgres_url, create=create)
    assert isinstance(error, NotALedger)
    assert "another program" in error.detail


def test_writers_see_each_others_events_under_every_default_isolation(postgres_url: str) -> None:
    open_with_clock(postgres_url)[0].close()
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE \"{admin.info.dbname}\" SET default_transaction_isolation = 'serializable'")

    def write(number: int) -> None:
        with open_ledger(postgres_url) as ledger:
            for _ in range(10):
                submit(ledger, change(f"org:{number}"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    with open_ledger(postgres_url) as ledger:
        assert ledger.head().position == len(BUILT_IN) + 40


def test_connections_that_the_server_closed_are_skipped(postgres_url: str) -> None:
    ledger, _ = open_with_clock(postgres_url)
    with ledger:
        for _ in range(2):
            with psycopg.connect(postgres_url, autocommit=True) as admin:
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            submit(ledger, change())
            assert ledger.page(0)
        assert len(ledger.stream("org:acme")) == 2


def test_after_a_connection_is_lost_at_the_commit_the_outcome_is_called_unknown(postgres_url: str) -> None:
    ledger, _ = open_with_clock(postgres_url)
    with (
        ledger,
        pytest.raises(LedgerUnavailable, match=r"may or may not be recorded.*Idempotency-Key"),
        ledger.recorder.transaction(commit=True) as cursor,
        closing(socket.fromfd(cursor.connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)) as line,
    ):
        line.shutdown(socket.SHUT_RDWR)


def test_a_commit_is_durable_although_the_default_of_the_database_is_not(postgres_url: str) -> None:
    open_with_clock(postgres_url)[0].close()
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{admin.info.dbname}" SET synchronous_commit = off')
        admin.execute("CREATE TABLE seen (setting text)")
        admin.execute(
            "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN INSERT INTO public.seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END$$"
        )
        # Deferred, so that the trigger runs at the commit.
        admin.execute(
            "CREATE CONSTRAINT TRIGGER looking AFTER INSERT ON inforce.events DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION look()"
        )
        with open_ledger(postgres_url) as ledger:
            submit(ledger, change())
        assert admin.execute("SELECT setting FROM seen").fetchall() == [("on",)]


# Open files


def test_a_closed_ledger_and_a_refused_one_leave_nothing_open(database_url: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"SQLite format 3\0" + b"\xff" * 4080)
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            open_ledger(database_url, create=True).close()
            refusal(f"sqlite:///{broken}")
            gc.collect()
