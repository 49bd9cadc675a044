"""The session of a PostgreSQL connection: every setting that our statements rest on.

A setting can be changed for a database or a role, and then holds in every session that does not set it itself. The
settings below change the meaning of a statement or of an answer. Not set are those that an operator limits us with:
`default_transaction_read_only` and the timeouts. They fail a statement and change no answer.

A pooler that gives each transaction another session keeps none of these settings. So the statements that write need
as few as possible: arrays cross in binary form, and `append_group` sets its own.
Proved by tests/contracts/test_postgres_settings.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import psycopg

_SETTINGS: Final = {
    # Backslashes in texts, and NULL in arrays, are what the standard says.
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    # How values are written as text.
    "bytea_output": "hex",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "quote_all_identifiers": "off",
    # No function or table of another schema answers for one of PostgreSQL's.
    "search_path": "pg_catalog, pg_temp",
    # A statement behind a lock must see what the lock's last holder committed.
    "default_transaction_isolation": "'read committed'",
    "default_transaction_deferrable": "off",
    # A policy that hides rows fails the statement; it does not shorten the answer.
    "row_security": "off",
}

_SET: Final = "; ".join(f"SET {name} TO {value}" for name, value in _SETTINGS.items())

_FIRE_TRIGGERS: Final = (
    "SELECT set_config('session_replication_role', 'origin', false) FROM pg_roles"
    " WHERE rolname = current_user AND rolsuper AND current_setting('session_replication_role') <> 'origin'"
)
"""Only a superuser may set this one; ours fire in every session (`postgres_guard`)."""


def prepare_session(connection: psycopg.Connection[Any]) -> None:
    """For a connection in autocommit mode. Raises psycopg's errors."""
    connection.execute(f"{_SET}; {_FIRE_TRIGGERS}".encode())


def connect(parameters: Mapping[str, Any], **more: Any) -> psycopg.Connection[Any]:
    """A connection in autocommit mode. `parameters`: libpq's; `more`: psycopg's. Raises psycopg's errors."""
    connection = psycopg.connect(**parameters, **more, autocommit=True)
    try:
        prepare_session(connection)
    except BaseException:
        connection.close()
        raise
    return connection
