"""Two equal change tokens mean that nobody has committed anything in between."""

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ledger.errors import LedgerUnavailable
from ledger.opening import open_ledger
from ledger.recorders.sqlite_watch import WalIndex
from ledger.store import Ledger
from tests.support.ledgers import change, submit


def test_the_token_changes_with_every_commit_of_any_process(database_url: str, ledger: Ledger) -> None:
    marks = [ledger.recorder.change_token()]
    assert ledger.recorder.change_token() == marks[0]
    with open_ledger(database_url, clock=ledger.clock) as other:
        for writer in (ledger, other, ledger, other):
            submit(writer, change())
            marks.append(ledger.recorder.change_token())
            ledger.page(0)
            assert ledger.recorder.change_token() == marks[-1]
    assert len(set(marks)) == 5


def test_without_the_wal_index_the_data_version_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WalIndex, "of", staticmethod(lambda path: None))
    url = f"sqlite:///{tmp_path}/ledger.db"
    with open_ledger(url, create=True) as ledger:
        test_the_token_changes_with_every_commit_of_any_process(url, ledger)
        test_a_rolled_back_append_does_not_change_the_token(url, ledger)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not tell whose a descriptor is")
def test_the_wal_index_shows_every_commit_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with open_ledger(f"sqlite:///{path}", create=True) as ledger:
        index = WalIndex.of(path)
        assert index is not None
        headers = [index.header()]
        for _ in range(50):
            submit(ledger, change())
            headers.append(index.header())
            ledger.page(0)
            assert index.header() == headers[-1]
        with sqlite3.connect(path) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        submit(ledger, change())
        headers.append(index.header())
    assert None not in headers
    assert len(set(headers)) == 52


def test_a_descriptor_of_other_code_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    assert WalIndex.of(path) is None
    with open_ledger(f"sqlite:///{path}", create=True), Path(f"{path}-shm").open("rb"):
        assert WalIndex.of(path) is None


def test_a_rolled_back_append_does_not_change_the_token(database_url: str, ledger: Ledger) -> None:
    mark = ledger.recorder.change_token()
    table = "personal_data" if database_url.startswith("sqlite") else "inforce.personal_data"
    with suppress(ZeroDivisionError), ledger.recorder.transaction(commit=True) as cursor:
        cursor.execute(f"INSERT INTO {table} VALUES (77, 'salt', '{{}}')")
        raise ZeroDivisionError
    assert ledger.recorder.change_token() == mark


def test_a_read_only_ledger_has_tokens(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with open_ledger(url, create=True) as writer, open_ledger(f"{url}?mode=ro") as reader:
        before = reader.recorder.change_token()
        assert reader.recorder.change_token() == before
        submit(writer, change())
        assert reader.recorder.change_token() != before


def test_a_closed_ledger_has_no_token(ledger: Ledger) -> None:
    ledger.recorder.change_token()
    ledger.close()
    with pytest.raises(LedgerUnavailable, match="closed"):
        ledger.recorder.change_token()


def test_a_new_connection_never_repeats_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite counts separately on every connection, so counts of two connections cannot be compared."""
    monkeypatch.setattr(WalIndex, "of", staticmethod(lambda path: None))
    with open_ledger(f"sqlite:///{tmp_path}/ledger.db", create=True) as ledger:
        datastore: Any = ledger.recorder.datastore  # type: ignore[attr-defined]  # SQLite's own
        first = ledger.recorder.change_token()
        datastore._watch.close()
        assert ledger.recorder.change_token() != first


def test_the_token_is_read_again_after_the_server_closed_the_connection(postgres_url: str) -> None:
    with open_ledger(postgres_url, create=True) as ledger:
        mark = ledger.recorder.change_token()
        with psycopg.connect(postgres_url, autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        assert ledger.recorder.change_token() == mark
