"""Watching a PostgreSQL ledger grow: a dedicated connection LISTENs to the channel that every append NOTIFYs."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg.rows import tuple_row

from ledger.errors import LedgerUnavailable
from ledger.recorders.contract import Head
from ledger.recorders.postgres_schema import HEAD
from ledger.recorders.postgres_server import CHANNEL, first_line
from ledger.recorders.wakeup import sleep_until_wakeup

_DEFAULTS: Final = {"application_name": "inforce follow"}


class PostgresWatch:
    """See `Watch`. `parameters`: libpq's, of the ledger's database."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._notified = False
        try:
            # Without prepared statements, because a pooler may send each statement to another backend.
            self._connection = psycopg.connect(
                **{**_DEFAULTS, **parameters}, row_factory=tuple_row, autocommit=True, prepare_threshold=None
            )
        except psycopg.Error as error:
            raise _unavailable(error) from error
        # A notification can also arrive with an answer, for a commit that happened while the head was being read.
        self._connection.add_notify_handler(self._on_notify)
        try:
            self._connection.execute(f"LISTEN {CHANNEL}")
        except psycopg.Error as error:
            self.close()
            raise _unavailable(error) from error

    def _on_notify(self, _: psycopg.Notify) -> None:
        # Only a reason to read the head: anybody can send a payload, and it may be outdated.
        self._notified = True

    def head(self) -> Head:
        self._notified = False
        try:
            row = self._connection.execute(HEAD).fetchone()
        except psycopg.Error as error:
            raise _unavailable(error) from error
        return Head(0, None) if row is None else Head(*row)

    def wait(self, timeout_s: float, wakeup: socket.socket) -> None:
        pgconn = self._connection.pgconn
        try:
            # libpq may hold a notification that came at the end of an answer; then the socket has nothing to read.
            if not self._notified and pgconn.notifies() is None:
                sleep_until_wakeup(timeout_s, wakeup, self._connection.fileno())
                pgconn.consume_input()
            while pgconn.notifies():
                pass
        except psycopg.Error as error:
            raise _unavailable(error) from error

    def close(self) -> None:
        with suppress(psycopg.Error):
            self._connection.close()


def _unavailable(error: psycopg.Error) -> LedgerUnavailable:
    return LedgerUnavailable(f"PostgreSQL sends no notifications: {first_line(error)}")
