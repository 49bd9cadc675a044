"""Deleted rows of a SQLite ledger leave no bytes in its file, whatever SQLite does by default."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger.backup import back_up
from ledger.errors import LedgerUnavailable
from ledger.opening import open_ledger
from ledger.recorders.sqlite import SQLiteLedgerRecorder
from projections.query.query import Query
from tests.support.ledgers import GENESIS, change, submit

REASON = "a-reason-that-is-erased-" * 40
Connect = Callable[..., sqlite3.Connection]


def careless(*args: Any, **more: Any) -> sqlite3.Connection:
    """A SQLite that was built without SECURE_DELETE."""
    connection = REAL_CONNECT(*args, **more)
    connection.execute("PRAGMA secure_delete=OFF")
    return connection


REAL_CONNECT: Connect = sqlite3.connect


@pytest.fixture
def careless_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "connect", careless)


def test_every_connection_that_can_write_has_it_set(careless_sqlite: None, tmp_path: Path) -> None:
    with open_ledger(f"sqlite:///{tmp_path}/ledger.db", create=True) as ledger:
        submit(ledger, change())
        Query(ledger).context()
        recorder = ledger.recorder
        assert isinstance(recorder, SQLiteLedgerRecorder)
        with recorder.transaction(commit=True) as cursor:
            assert cursor.execute("PRAGMA secure_delete").fetchone() == (1,)
        with recorder.transaction(commit=False) as cursor:
            assert cursor.execute("PRAGMA secure_delete").fetchone() == (1,)
        with recorder.datastore.reading() as cursor:
            assert cursor.execute("PRAGMA secure_delete").fetchone() == (1,)
        with recorder.exclusive(), recorder.transaction(commit=True) as cursor:
            assert cursor.execute("PRAGMA secure_delete").fetchone() == (1,)


def test_a_deleted_reason_is_in_no_file(careless_sqlite: None, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with open_ledger(f"sqlite:///{path}", create=True) as ledger:
        submit(ledger, change(reason=REASON))
        assert any(REASON[:24].encode() in file.read_bytes() for file in tmp_path.iterdir())
        with ledger.recorder.transaction(commit=True) as cursor:
            cursor.execute("DELETE FROM personal_data WHERE position = ?", (GENESIS + 1,))
    # Closing the last connection writes the -wal back and deletes it.
    assert [file.name for file in tmp_path.iterdir() if file.name.endswith("-wal")] == []
    assert REASON[:24].encode() not in path.read_bytes()
    back_up(f"sqlite:///{path}", tmp_path / "copy.db")
    assert REASON[:24].encode() not in (tmp_path / "copy.db").read_bytes()


def test_a_sqlite_that_cannot_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Refusing(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            return super().execute("SELECT 0" if "secure_delete" in sql else sql, *args)

    def refusing(*args: Any, **more: Any) -> sqlite3.Connection:
        return REAL_CONNECT(*args, factory=Refusing, **more)

    monkeypatch.setattr(sqlite3, "connect", refusing)
    with pytest.raises(LedgerUnavailable, match="does not overwrite deleted rows") as refused:
        open_ledger(f"sqlite:///{tmp_path}/ledger.db", create=True)
    assert "\n" not in refused.value.detail
