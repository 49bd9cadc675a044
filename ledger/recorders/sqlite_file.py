"""The SQLite file of a ledger: connections, the write lock, WAL, and what its errors mean."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from eventsourcing.persistence import ConnectionUnavailableError
from eventsourcing.sqlite import SQLiteConnection, SQLiteConnectionPool, SQLiteDatastore

from ledger.errors import LedgerUnavailable, NotALedger
from ledger.recorders.sqlite_index import WalIndex

DataVersion = tuple[int, int | bytes]
"""Compared for being equal, and for nothing else."""


class _Pool(SQLiteConnectionPool):
    """Connections whose commits survive power loss, whatever this SQLite was compiled with.

    The library's own way of connecting turns any file to WAL, another program's too; ours is turned when it is made.
    """

    def _create_connection(self) -> SQLiteConnection:
        connection = connect(self.db_name, self.lock_timeout or 0)
        connection.row_factory = sqlite3.Row
        return SQLiteConnection(connection, max_age=self.max_age)


def connect(uri: str, lock_timeout: float) -> sqlite3.Connection:
    """`lock_timeout`: seconds to wait for a lock. Without transactions of the driver's own making."""
    connection = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None, timeout=lock_timeout)
    try:
        connection.execute("PRAGMA synchronous=FULL")
    except BaseException:
        connection.close()
        raise
    return connection


class SQLiteLedgerDatastore(SQLiteDatastore):
    def __init__(self, path: Path, *, read_only: bool = False, lock_timeout: int = 5) -> None:
        uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        super().__init__(uri, lock_timeout=lock_timeout, originator_id_type="text")
        self.pool = _Pool(db_name=uri, lock_timeout=lock_timeout)
        self.path = path
        # A text is looked up faster, and every write does it.
        self._name = str(path)
        self.lock_timeout = lock_timeout
        self._file: tuple[int, int] | None = None
        # Not the pool's writer lock, which stays taken for ever when a connection cannot be had.
        self._writer = threading.Lock()
        self._watch: sqlite3.Cursor | None = None
        self._index: WalIndex | None = None
        self._watches = 0
        self._watch_lock = threading.Lock()
        self._closed = False
        # Kept, because making one ready costs as much as a small transaction.
        self._write_connection: sqlite3.Connection | None = None
        self._read_connection: sqlite3.Connection | None = None
        self._read_lock = threading.Lock()

    def data_version(self) -> DataVersion:
        """Which commit the file is at, as one connection that writes nothing sees it; and which connection that was.

        A connection of its own for as long as it lasts, because SQLite's count leaves out what the asking connection
        wrote itself and starts anew with another one. Where the WAL's index can be read, that is asked instead: a
        tenth of the price, and the connection keeps the index in place.
        """
        deadline = time.monotonic() + self.lock_timeout
        while True:
            with self._watch_lock:
                if self._closed:
                    raise sqlite3.ProgrammingError("it was closed")
                try:
                    return self._data_version()
                except sqlite3.OperationalError as error:
                    if "locked" not in str(error) or time.monotonic() > deadline:
                        raise
            # Not with the lock held: `data_version_at_once` waits for nobody.
            time.sleep(0.005)

    def data_version_at_once(self) -> DataVersion | None:
        """The same, or None where it cannot be had without waiting."""
        lock = self._watch_lock
        if not lock.acquire(False):
            return None
        try:
            return None if self._watch is None or self._closed else self._data_version()
        except (sqlite3.Error, OSError):
            return None
        finally:
            lock.release()

    def _data_version(self) -> DataVersion:
        index = self._index
        if index is not None and (header := index.header()) is not None:
            return self._watches, header
        opening = self._watch is None
        if self._watch is None:
            self.require_same_file()
            # One cursor, and no waiting in SQLite itself.
            self._watch = connect(self.pool.db_name, 0).cursor()
            self._watches += 1
        try:
            # To the end of the rows: a statement that is not done keeps its moment, and the WAL from starting anew.
            ((version,),) = self._watch.execute("PRAGMA data_version").fetchall()
        except BaseException:
            self._end_watch()
            raise
        if opening:
            # Only now that the connection has read has SQLite opened the index.
            self._index = WalIndex.of(self.path)
            if self._index is not None:
                return self._data_version()
        return self._watches, version

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._index = None
            self._watch.connection.close()
            self._watch = None

    def close(self) -> None:
        # Also called by the library's __del__, of an object that may not have come to be.
        if hasattr(self, "_watch_lock"):
            self._closed = True
            with self._watch_lock:
                self._end_watch()
            with self._writer:
                if self._write_connection is not None:
                    self._write_connection.close()
                    self._write_connection = None
            with self._read_lock:
                if self._read_connection is not None:
                    self._read_connection.close()
                    self._read_connection = None
        super().close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Cursor]:
        """One moment of the file, on a kept connection of its own: for short reads, one at a time."""
        with self._read_lock:
            connection = self._read_connection
            if connection is None:
                if self._closed:
                    raise sqlite3.ProgrammingError("it was closed")
                self.require_same_file()
                connection = self._read_connection = connect(self.pool.db_name, self.lock_timeout)
            try:
                cursor = connection.cursor()
                cursor.execute("BEGIN")
                yield cursor
                cursor.execute("ROLLBACK")
            except BaseException:
                self._read_connection = None
                connection.close()
                raise

    @contextmanager
    def writing(self, *, durable: bool = True, patience_s: float | None = None) -> Iterator[sqlite3.Cursor]:
        """A transaction that holds the write lock from its first statement. Commits unless an error leaves it.

        Not `durable`: a power cut may take it away until the next durable one is committed, and leaves the file whole.
        `patience_s`: how long to wait for the lock, among the threads of this process and again among all others.
        """
        if not self._writer.acquire(timeout=self.lock_timeout if patience_s is None else patience_s):
            raise ConnectionUnavailableError("Timed out waiting for the writers before this one")
        try:
            with self._transaction("BEGIN IMMEDIATE", durable=durable, patience_s=patience_s) as cursor:
                yield cursor
        finally:
            self._writer.release()

    @contextmanager
    def deciding(self) -> Iterator[sqlite3.Cursor | None]:
        """A transaction of the connection that writes, which only reads until `lock`. Commits unless an error leaves
        it. None: somebody of this process is writing."""
        if not self._writer.acquire(False):
            yield None
            return
        try:
            with self._transaction("BEGIN") as cursor:
                yield cursor
        finally:
            self._writer.release()

    @staticmethod
    def lock(cursor: sqlite3.Cursor) -> bool:
        """Takes the write lock, in the midst of the transaction. False: what was read there is no longer how it stands,
        or may not be, and it is another transaction from here on."""
        try:
            cursor.execute(_LOCK)
            return True
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
        # Somebody else has written since it was begun, or is writing: then SQLite does not wait inside a transaction.
        cursor.execute("ROLLBACK")
        cursor.execute("BEGIN IMMEDIATE")
        return False

    @contextmanager
    def _transaction(
        self, begin: str, *, durable: bool = True, patience_s: float | None = None
    ) -> Iterator[sqlite3.Cursor]:
        connection = self._write_connection
        if connection is None:
            if self._closed:
                raise sqlite3.ProgrammingError("it was closed")
            self.require_same_file()
            connection = self._write_connection = connect(self.pool.db_name, self.lock_timeout)
            connection.row_factory = sqlite3.Row
        try:
            cursor = connection.cursor()
            if not durable:
                cursor.execute("PRAGMA synchronous=NORMAL")
            if patience_s is None:
                cursor.execute(begin)
            else:
                cursor.execute(f"PRAGMA busy_timeout={round(patience_s * 1000)}")
                cursor.execute(begin)
                cursor.execute(f"PRAGMA busy_timeout={self.lock_timeout * 1000}")
            yield cursor
            # As late as can be: up to here nobody has been told of anything.
            self.require_same_file()
            cursor.execute("COMMIT")
            if not durable:
                cursor.execute("PRAGMA synchronous=FULL")
        except BaseException:
            # Closing rolls back, too, where rolling back is what fails.
            self._write_connection = None
            with closing(connection) as ending:
                if ending.in_transaction:
                    ending.execute("ROLLBACK")
            raise

    def require_same_file(self) -> None:
        """Raises `sqlite3.OperationalError` where the path names another file than at first, or none any more: what is
        written to a file without a name is gone when it is closed, and a new one in its place is another ledger."""
        try:
            found = os.stat(self._name)
        except (FileNotFoundError, NotADirectoryError):
            found = None
        except OSError as error:
            raise sqlite3.OperationalError(f"unable to open it: {error.strerror}") from error
        file = None if found is None else (found.st_dev, found.st_ino)
        if self._file is None:
            self._file = file
        elif file != self._file:
            raise sqlite3.OperationalError(_MOVED)

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


_LOCK: Final = "DELETE FROM submissions WHERE 0"
"""Deletes nothing: a statement that could write takes the write lock before it looks at any row."""
_MOVED: Final = "the file was moved, deleted or replaced"


def is_read_only(error: BaseException | None) -> bool:
    """Whether this came of a file that may be read and not written."""
    while error is not None:
        # The low byte is the error, whatever its extended code says of the cause.
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY:
            return True
        error = error.__cause__
    return False


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
    if message == _MOVED:
        return f"{message} while it was in use; put it back, or start again what uses it"
    if "unable to open" in message:
        return f"the file cannot be opened; see that {path.parent} exists and may be written"
    return message
