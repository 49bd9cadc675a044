"""The SQLite file of a ledger: its connections, the write lock, WAL mode, and advice for its errors."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from eventsourcing.persistence import ConnectionUnavailableError
from eventsourcing.sqlite import SQLiteConnection, SQLiteConnectionPool, SQLiteDatastore

from ledger.private_files import make_private_file
from ledger.recorders.contract import EVENTS_TABLE, INCARNATION
from ledger.recorders.sqlite_place import check_header, database_uri
from ledger.recorders.sqlite_watch import WalIndex

DataVersion = tuple[int, int | bytes]
"""Compare two of them for equality only."""


class _Pool(SQLiteConnectionPool):
    """Connections whose commits survive power loss, however this SQLite was compiled.

    The library's own way to connect turns every file to WAL, also another program's; ours is turned when it is created.
    """

    new_file: Path | None = None
    """The file to make if it is not there: SQLite would make it with the mode that the umask leaves. It gives a -wal
    and a -shm the mode of the file."""

    def _create_connection(self) -> SQLiteConnection:
        if self.new_file is not None:
            # An error here is SQLite's error, too, and it has the better words.
            with suppress(OSError):
                make_private_file(self.new_file)
        connection = connect(self.db_name, self.lock_timeout or 0)
        # The library reads columns by name.
        connection.row_factory = sqlite3.Row
        return SQLiteConnection(connection, max_age=self.max_age)


def connect(uri: str, lock_timeout: float) -> sqlite3.Connection:
    """A connection on which the driver begins no transactions by itself. `lock_timeout`: seconds to wait for a lock."""
    connection = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None, timeout=lock_timeout)
    try:
        connection.execute("PRAGMA synchronous=FULL")
        delete_securely(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def delete_securely(connection: sqlite3.Connection) -> None:
    """Makes SQLite overwrite deleted rows with zeros, whatever it does by default. Raises `sqlite3.OperationalError`
    if this SQLite cannot: an erased reason would stay in the file."""
    if connection.execute("PRAGMA secure_delete=ON").fetchone() != (1,):
        raise sqlite3.OperationalError("this SQLite does not overwrite deleted rows; use one that has secure_delete")


class SQLiteLedgerDatastore(SQLiteDatastore):
    def __init__(self, path: Path, *, read_only: bool = False, untouched: bool = False, lock_timeout: int = 5) -> None:
        """`untouched`: for a file that nobody writes to; reading creates nothing beside it."""
        uri = database_uri(path, read_only=read_only or untouched)
        if untouched and "immutable" not in uri:
            uri += "&immutable=1"
        super().__init__(uri, lock_timeout=lock_timeout, originator_id_type="text")
        self.pool = pool = _Pool(db_name=uri, lock_timeout=lock_timeout)
        pool.new_file = None if read_only else path
        self.path = path
        self.read_only = read_only or untouched
        # Every write stats the file, and a str is faster to stat than a Path.
        self._name = str(path)
        self.lock_timeout = lock_timeout
        self._file_id: tuple[int, int] | None = None
        self.stamp: tuple[int, int] | None = None
        """The file's time of change (ns) and its size, as last seen. Only checkpoints change them."""
        # Not the pool's writer lock, which stays locked for ever if a connection cannot be opened.
        self._writer = threading.Lock()
        self._watch: sqlite3.Cursor | None = None
        self._index: WalIndex | None = None
        self._watches = 0
        self._watch_lock = threading.Lock()
        self._closed = False
        # Kept open, because opening a connection costs as much as a small transaction.
        self._write_connection: sqlite3.Connection | None = None
        self._read_connection: sqlite3.Connection | None = None
        self._read_lock = threading.Lock()

    def data_version(self) -> DataVersion:
        """The number of a connection that never writes, and of the file's last commit as that connection sees it.

        The connection stays open, because SQLite's count leaves out the asking connection's own writes and starts anew
        with another connection. If the WAL's index can be read, it is used instead at a tenth of the price; the
        connection then keeps the index in place.
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
            # Sleep without the lock, because `data_version_nowait` must not wait for it.
            time.sleep(0.005)

    def data_version_nowait(self) -> DataVersion | None:
        """The same, or None if reading it would wait."""
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
            # Timeout 0: the caller waits, not SQLite.
            self._watch = connect(self.pool.db_name, 0).cursor()
            self._watches += 1
        try:
            # Fetch all rows: an unfinished statement keeps its read transaction open and the WAL from starting over.
            ((version,),) = self._watch.execute("PRAGMA data_version").fetchall()
        except BaseException:
            self._end_watch()
            raise
        if opening:
            # SQLite opens the index when the connection first reads.
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
        # The library's __del__ calls this too, even if __init__ failed early.
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
        """A read transaction on a connection that stays open: for short reads, one at a time."""
        with self._read_lock:
            connection = self._read_connection = self._read_connection or self._connect()
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
        """A transaction that holds the write lock from the start. Commits unless an error leaves the block.

        `durable` False: a power cut may undo it until the next durable commit, and leaves the file intact.
        `patience_s`: how long to wait for the lock, among the threads of this process and again among all processes.
        """
        if not self._writer.acquire(timeout=self.lock_timeout if patience_s is None else patience_s):
            raise ConnectionUnavailableError("Timed out waiting for the writers before this one")
        try:
            with self._transaction("BEGIN IMMEDIATE", durable=durable, patience_s=patience_s) as cursor:
                yield cursor
        finally:
            self._writer.release()

    @contextmanager
    def optimistic(self) -> Iterator[sqlite3.Cursor | None]:
        """A transaction of the writing connection that only reads until `upgrade_to_write`. Commits unless an error
        leaves the block. None: another thread of this process is writing."""
        if not self._writer.acquire(False):
            yield None
            return
        try:
            with self._transaction("BEGIN") as cursor:
                yield cursor
        finally:
            self._writer.release()

    @staticmethod
    def upgrade_to_write(cursor: sqlite3.Cursor) -> bool:
        """Takes the write lock within the transaction. False: another process has written, or may have, so the
        transaction was begun anew and everything read in it is out of date."""
        try:
            cursor.execute(_LOCK)
            return True
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
        # SQLite does not wait for the write lock inside a read transaction whose snapshot is old.
        cursor.execute("ROLLBACK")
        cursor.execute("BEGIN IMMEDIATE")
        return False

    @contextmanager
    def _transaction(
        self, begin: str, *, durable: bool = True, patience_s: float | None = None
    ) -> Iterator[sqlite3.Cursor]:
        connection = self._write_connection = self._write_connection or self._connect()
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
            # As late as possible: no caller has been told of success yet.
            self.require_same_file()
            cursor.execute("COMMIT")
            if not durable:
                cursor.execute("PRAGMA synchronous=FULL")
        except BaseException:
            # Closing rolls back even if the ROLLBACK fails.
            self._write_connection = None
            with closing(connection) as ending:
                if ending.in_transaction:
                    ending.execute("ROLLBACK")
            raise

    def _connect(self) -> sqlite3.Connection:
        if self._closed:
            raise sqlite3.ProgrammingError("it was closed")
        self.require_same_file()
        return connect(self.pool.db_name, self.lock_timeout)

    def require_same_file(self) -> None:
        """Raises `sqlite3.OperationalError` if the path names another file than at first, or none: data written to an
        unlinked file is lost when it is closed, and a new file in its place is another ledger."""
        try:
            stat = os.stat(self._name)
        except (FileNotFoundError, NotADirectoryError):
            stat = None
        except OSError as error:
            raise sqlite3.OperationalError(f"unable to open it: {error.strerror}") from error
        file_id = None if stat is None else (stat.st_dev, stat.st_ino)
        if self._file_id is None:
            self._file_id = file_id
        elif file_id != self._file_id:
            raise sqlite3.OperationalError(_MOVED)
        self.stamp = None if stat is None else (stat.st_mtime_ns, stat.st_size)

    def reread(self, position: int) -> tuple[str | None, bytes | None]:
        """The file's incarnation, and the leaf at `position`: with a new connection, whose page cache is empty. A file
        that is overwritten in place goes unnoticed by the connections that have read it."""
        with closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            cursor = connection.cursor()
            row = cursor.execute("SELECT value FROM ledger_meta WHERE name = ?", (INCARNATION,)).fetchone()
            leaf = cursor.execute(f"SELECT state FROM {EVENTS_TABLE} WHERE position = ?", (position,)).fetchone()
        return (row[0] if row else None), (leaf[0] if leaf else None)

    def make_wal(self) -> None:
        """Turns the file to WAL mode for good. Impossible inside a transaction or while another one is open."""
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
        """See `sqlite_place.check_header`."""
        check_header(self.path)


_LOCK: Final = "DELETE FROM submissions WHERE 0"
"""Deletes nothing: a statement that could write takes the write lock before it reads any row."""
_MOVED: Final = "the file was moved, deleted or replaced"


def is_read_only(error: BaseException | None) -> bool:
    """Whether the error came from a file that may be read but not written."""
    while error is not None:
        # The low byte is the primary error code, whatever the extended code adds.
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY:
            return True
        error = error.__cause__
    return False


def is_damage(error: BaseException | None) -> bool:
    """Whether the error came from a file whose content cannot be right."""
    while error is not None:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if isinstance(error, sqlite3.Error) and (
            code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "decode" in str(error)
        ):
            return True
        error = error.__cause__
    return False


def advice(message: str, path: Path) -> str:
    """The advice for an error of SQLite or of the pool, by its message."""
    if "locked" in message:
        return "another process is writing to it; try again in a moment"
    if "Timed out" in message:
        return "too many callers use it at once; try again in a moment"
    if "readonly" in message:
        return "it is read-only; open it for writing, name another with --db, or only read it with ?mode=ro"
    if "full" in message or "disk I/O" in message:
        return f"the disk is full or failing ({message}); nothing was written"
    if "not a database" in message or "malformed" in message or "decode" in message:
        # The driver quotes a text that it cannot decode, which may be a subject or a reason.
        return f"the file is damaged ({message.partition(' with text ')[0]}); restore it from a backup or an export"
    if message == _MOVED:
        return f"{message} while it was in use; put it back, or restart the processes that use it"
    if "unable to open" in message:
        return (
            f"the file cannot be opened; check that {path.parent} exists and is writable (a ledger that nothing can "
            "write is read with ?mode=ro)"
        )
    return message
