"""The PostgreSQL server of a ledger: its URL, connections, and its errors in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import psycopg
from eventsourcing.postgres import PostgresDatastore
from psycopg.conninfo import conninfo_to_dict

from ledger.errors import BadInput, LedgerUnavailable

SCHEMA: Final = "inforce"


class PostgresLedgerDatastore(PostgresDatastore):
    """The library's pool over any libpq connection string; `url` may name sockets, TLS files and the like."""

    def __init__(self, url: str, *, connections_max: int = 10, connect_timeout: float = 5.0) -> None:
        try:
            parameters: dict[str, Any] = {k: v for k, v in conninfo_to_dict(url).items() if v is not None}
        except psycopg.ProgrammingError:
            # Its message may repeat the URL, and with it a password.
            raise BadInput(
                "not a PostgreSQL URL; write postgresql://user@host/name, see libpq's connection strings"
            ) from None
        if "@" in str(parameters.get("host", "")):
            # What follows a password's own @ is taken for the host, and errors name the host.
            raise BadInput("the PostgreSQL URL has a second @; write %40 for one that belongs to the password")
        parameters.setdefault("connect_timeout", int(connect_timeout))
        self.connections_max = connections_max
        _probe(parameters)
        super().__init__(
            dbname=str(parameters.get("dbname", "")),
            host=str(parameters.get("host", "")),
            port=str(parameters.get("port", "")),
            user=str(parameters.get("user", "")),
            password=str(parameters.get("password", "")),
            connect_timeout=connect_timeout,
            idle_in_transaction_session_timeout=60,
            pool_size=1,
            max_overflow=connections_max - 1,
            schema=SCHEMA,
            originator_id_type="text",
        )
        assert isinstance(self.pool.kwargs, dict)
        row_factory = self.pool.kwargs["row_factory"]
        self.pool.kwargs.clear()
        self.pool.kwargs.update(parameters, row_factory=row_factory)


def _probe(parameters: Mapping[str, Any]) -> None:
    """Asks once, so that a server that is not there is said at once and in its own words, not by a pool's timeout."""
    try:
        psycopg.connect(**parameters).close()
    except psycopg.Error as error:
        raise LedgerUnavailable(f"PostgreSQL cannot be reached: {first_line(error)}; see --db") from None


def first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(":") if str(error).strip() else type(error).__name__
