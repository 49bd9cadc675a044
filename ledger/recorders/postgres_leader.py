"""An advisory lock of a PostgreSQL session: chooses one of the processes that use the ledger. See `LeaderLock`.

The server releases it when the session ends. A holder that lost its session finds out at the next `acquire`; until then
another process may hold the lock, so its holder also compares and swaps what it writes.
Proved by tests/contracts/test_log.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import psycopg

from ledger.errors import LedgerUnavailable
from ledger.recorders.postgres_server import first_line
from ledger.recorders.postgres_session import connect

INTEGRATOR_LOCK: Final = 0x494E464F52434506


class PostgresLeaderLock:
    """`parameters`: libpq's."""

    def __init__(self, parameters: Mapping[str, Any], lock: int) -> None:
        self._parameters = parameters
        self._lock = lock
        self._connection: psycopg.Connection[Any] | None = None

    def acquire(self) -> bool:
        if self._connection is not None:
            try:
                self._connection.execute("SELECT 1")
                return True
            except psycopg.Error:
                self.release()
        try:
            connection = connect({"application_name": "inforce log", **self._parameters}, prepare_threshold=None)
            try:
                row = connection.execute("SELECT pg_try_advisory_lock(%s)", (self._lock,)).fetchone()
            except BaseException:
                connection.close()
                raise
        except psycopg.Error as error:
            raise LedgerUnavailable(f"PostgreSQL did not answer: {first_line(error)}; try again") from error
        if row is None or not row[0]:
            connection.close()
            return False
        self._connection = connection
        return True

    def release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()
