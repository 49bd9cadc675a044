"""A lock file beside a SQLite ledger: chooses one of the processes that use the ledger. See `LeaderLock`.

The kernel releases it when its holder ends, even by a kill. The file stays, because deleting it would let two processes
hold locks on two files of one name. Proved by tests/contracts/test_log.py.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from ledger.errors import LedgerUnavailable
from ledger.private_files import FILE_MODE


class SQLiteLeaderLock:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def acquire(self) -> bool:
        if self._file is not None:
            return True
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        except OSError as error:
            raise LedgerUnavailable(f"the lock file {self._path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        except OSError as error:
            os.close(file)
            raise LedgerUnavailable(f"the lock file {self._path} cannot be locked: {error.strerror}") from error
        self._file = file
        return True

    def release(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)
