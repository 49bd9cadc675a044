"""Seeing a PostgreSQL ledger grow: a connection of its own that LISTENs to what every append NOTIFYs."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg.rows import tuple_row

from ledger.errors import LedgerUnavailable
from ledger.recorders.contract import Head
from ledger.recorders.postgres_schema import EVENTS
from ledger.recorders.postgres_server import first_line
from ledger.recorders.waking import pause

CHANNEL: Final = "inforce"
"""Every append notifies it, with its last position."""

_DEFAULTS: Final = {"application_name": "inforce follow"}
_HEAD: Final = f"SELECT position, recorded_at FROM {EVENTS} ORDER BY position DESC LIMIT 1"


class PostgresWatch:
    """See `Watch`. `parameters`: libpq's, of the ledger's database."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._news = False
        try:
            # Statements are not prepared: a pooler between may send them to another backend each time.
            self._connection = psycopg.connect(
                **{**_DEFAULTS, **parameters}, row_factory=tuple_row, autocommit=True, prepare_threshold=None
            )
        except psycopg.Error as error:
            raise _unavailable(error) from error
        # Notifications also arrive beside an answer: of what was committed while the head was being read.
        self._connection.add_notify_handler(self._heard)
        try:
            self._connection.execute(f"LISTEN {CHANNEL}")
        except psycopg.Error as error:
            self.close()
            raise _unavailable(error) from error

    def _heard(self, _: psycopg.Notify) -> None:
        # Only a reason to look: what it says may be anybody's, and of a moment before.
        self._news = True

    def head(self) -> Head:
        self._news = False
        try:
            row = self._connection.execute(_HEAD).fetchone()
        except psycopg.Error as error:
            raise _unavailable(error) from error
        return Head(0, None) if row is None else Head(*row)

    def wait(self, timeout_s: float, woken: socket.socket) -> None:
        pgconn = self._connection.pgconn
        try:
            # libpq may hold one that came with the end of an answer: then nothing more is to be read.
            if not self._news and pgconn.notifies() is None:
                pause(timeout_s, woken, self._connection.fileno())
                pgconn.consume_input()
            while pgconn.notifies():
                pass
        except psycopg.Error as error:
            raise _unavailable(error) from error

    def close(self) -> None:
        with suppress(psycopg.Error):
            self._connection.close()


def _unavailable(error: psycopg.Error) -> LedgerUnavailable:
    return LedgerUnavailable(f"PostgreSQL does not tell of news: {first_line(error)}")
