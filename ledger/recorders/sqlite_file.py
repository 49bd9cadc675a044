"""The SQLite file of a ledger: connections, the write lock, WAL, and what its errors mean."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eventsourcing.persistence import ConnectionUnavailableError
from eventsourcing.sqlite import SQLiteConnection, SQLiteConnectionPool, SQLiteCursor, SQLiteDatastore

from ledger.errors import LedgerUnavailable, NotALedger


class _Pool(SQLiteConnectionPool):
    """Connections whose commits survive power loss, whatever this SQLite was compiled with.

    The library's own way of connecting turns any file to WAL, another program's too; ours is turned when it is made.
    """

    def _create_connection(self) -> SQLiteConnection:
        connection = sqlite3.connect(
            self.db_name,
            uri=True,
            check_same_thread=False,
            isolation_level=None,
            timeout=self.lock_timeout or 0,
        )
        connection.row_factory = sqlite3.Row
        try:
            connection.execute("PRAGMA synchronous=FULL")
        except BaseException:
            connection.close()
            raise
        return SQLiteConnection(connection, max_age=self.max_age)


class SQLiteLedgerDatastore(SQLiteDatastore):
    def __init__(self, path: Path, *, read_only: bool = False, lock_timeout: int = 5) -> None:
        uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        super().__init__(uri, lock_timeout=lock_timeout, originator_id_type="text")
        self.pool = _Pool(db_name=uri, lock_timeout=lock_timeout)
        self.path = path
        self.lock_timeout = lock_timeout
        # Not the pool's writer lock, which stays taken for ever when a connection cannot be had.
        self._writer = threading.Lock()

    @contextmanager
    def writing(self) -> Iterator[SQLiteCursor]:
        """A transaction that holds the write lock from its first statement. Commits unless an error leaves it."""
        if not self._writer.acquire(timeout=self.lock_timeout):
            raise ConnectionUnavailableError("Timed out waiting for the writers before this one")
        try:
            with self.get_connection(commit=False) as connection:
                cursor = connection.cursor()
                cursor.execute("BEGIN IMMEDIATE")
                try:
                    yield cursor
                    connection.commit()
                except BaseException:
                    connection.rollback()
                    raise
        finally:
            self._writer.release()

    def make_wal(self) -> None:
        """Turns the file to WAL, for good. Not to be had inside a transaction, nor beside another connection's."""
        deadline = time.monotonic() + self.lock_timeout
        with self.get_connection(commit=False) as connection:
            while True:
                try:
                    connection.cursor().execute("PRAGMA journal_mode=WAL")
                    return
                except sqlite3.OperationalError as error:
                    # SQLite does not wait here by itself.
                    if "locked" not in str(error) or time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)

    def check_header(self) -> None:
        """Raises `NotALedger` where there is a file of another kind, `LedgerUnavailable` where it cannot be read."""
        path = self.path
        try:
            with path.open("rb") as file:
                header = file.read(100)
        except FileNotFoundError:
            return
        except OSError as error:
            raise LedgerUnavailable(f"{path} cannot be read ({error.strerror}); mend that or name another") from None
        if header and header[:16] != b"SQLite format 3\x00":
            raise NotALedger(f"{path} is no SQLite file, so no ledger; name another with --db")


def advice(message: str, path: Path) -> str:
    if "locked" in message:
        return "another process is writing to it; try again in a moment"
    if "Timed out" in message:
        return "too many callers want it at once; try again in a moment"
    if "readonly" in message:
        return "it is read-only; open it for writing or name another with --db"
    if "full" in message or "disk I/O" in message:
        return f"the disk is full or failing ({message}); nothing was written"
    if "not a database" in message or "malformed" in message:
        return f"the file is damaged ({message}); restore it from a backup or an export"
    if "unable to open" in message:
        return f"the file cannot be opened; see that {path.parent} exists and may be written"
    return message
