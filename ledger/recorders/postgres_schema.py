"""The tables of a PostgreSQL ledger, format by format, in a schema of their own.

`STEPS[n]` brings a ledger of format n to n + 1, in one transaction with the number, under the append lock; format 0 is
a database without our schema. A new ledger goes through the same steps as one that an older inforce made, so the two
cannot differ. A released step is never edited: what is to be different is a further step, with a stored ledger of the
format before it among the fixtures. Proved by tests/life.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import psycopg

from ledger.errors import NotALedger
from ledger.recorders.contract import EVENTS_TABLE
from ledger.recorders.postgres_append import APPEND_FUNCTION
from ledger.recorders.postgres_server import SCHEMA

PgCursor = psycopg.Cursor[tuple[Any, ...]]

EVENTS: Final = f"{SCHEMA}.{EVENTS_TABLE}"
COLUMNS: Final = "position, originator_id, originator_version, topic, state, recorded_at, leaf_hash"
_FORMAT_FACT: Final = "format"

_FORMAT_1: Final = (
    f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}",
    f"CREATE TABLE {EVENTS} ("
    " position bigint PRIMARY KEY,"
    " originator_id text NOT NULL,"
    " originator_version bigint NOT NULL,"
    " topic text NOT NULL,"
    " state bytea NOT NULL,"
    " recorded_at bigint NOT NULL,"
    " leaf_hash bytea NOT NULL CHECK (length(leaf_hash) = 32),"
    " UNIQUE (originator_id, originator_version))",
    f"CREATE FUNCTION {SCHEMA}.refuse_change() RETURNS trigger LANGUAGE plpgsql AS"
    " $$BEGIN RAISE EXCEPTION 'the ledger is immutable: % of events is refused', TG_OP"
    " USING ERRCODE = 'integrity_constraint_violation'; END$$",
    f"CREATE TRIGGER {EVENTS_TABLE}_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON {EVENTS}"
    f" FOR EACH STATEMENT EXECUTE FUNCTION {SCHEMA}.refuse_change()",
    f"CREATE TABLE {SCHEMA}.submissions ("
    " caller text NOT NULL, key text NOT NULL, body_sha256 bytea NOT NULL,"
    " first_position bigint NOT NULL, event_count bigint NOT NULL, recorded_at bigint NOT NULL,"
    " PRIMARY KEY (caller, key))",
    f"CREATE TABLE {SCHEMA}.personal_data (position bigint PRIMARY KEY, salt bytea NOT NULL, content text NOT NULL)",
    f"CREATE TABLE {SCHEMA}.ledger_meta (name text PRIMARY KEY, value text NOT NULL)",
)

_FORMAT_2: Final = (APPEND_FUNCTION,)

STEPS: Final = (_FORMAT_1, _FORMAT_2)

FORMAT: Final = len(STEPS)
"""The version of our tables. A database with a higher one was written by a newer inforce and is left alone."""

READS_FROM: Final = 1
"""The oldest format that this code can read without any step, as a role that may not write."""

_HAS_META: Final = f"SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = '{SCHEMA}' AND tablename = 'ledger_meta'"


def require_encoding(cursor: PgCursor) -> None:
    """Raises `NotALedger` where the database cannot hold every text: a reason it cannot hold would fail all that are
    recorded together with it."""
    row = cursor.execute("SELECT current_setting('server_encoding')").fetchone()
    if row is not None and row[0] not in ("UTF8", "SQL_ASCII"):
        raise NotALedger(
            f"this database has the encoding {row[0]}, which cannot hold every text; make one with ENCODING 'UTF8' and "
            "name it with --db"
        )


def read_format(cursor: PgCursor) -> int:
    """The ledger's format, 0 where there is none. Raises `NotALedger`."""
    # Not to_regclass: it asks a cache, which behind a lock need not know yet what the lock's last holder made.
    if not cursor.execute(_HAS_META).fetchone():
        return 0
    row = cursor.execute(f"SELECT value FROM {SCHEMA}.ledger_meta WHERE name = %s", (_FORMAT_FACT,)).fetchone()
    if row is None or not row[0].isdecimal():
        raise NotALedger(f"the schema {SCHEMA} of this database is another program's; name another database with --db")
    if int(row[0]) > FORMAT:
        raise NotALedger(
            f"this database has ledger format {row[0]} and this inforce knows {FORMAT}; use a newer inforce"
        )
    return int(row[0])


def read_meta(cursor: PgCursor) -> dict[str, str]:
    """The facts about the ledger; empty where there is none. Raises `NotALedger`."""
    if not read_format(cursor):
        return {}
    meta: dict[str, str] = dict(cursor.execute(f"SELECT name, value FROM {SCHEMA}.ledger_meta").fetchall())
    del meta[_FORMAT_FACT]
    return meta


def migrate(cursor: PgCursor) -> int:
    """Takes the ledger's next step, unless another process has taken the last one since; answers the format then.
    Inside the caller's transaction, which holds the append lock. Raises `NotALedger`."""
    format_ = read_format(cursor)
    return _step(cursor, format_) if format_ < FORMAT else format_


def unreadable(format_: int) -> NotALedger:
    """What is said of an older format that cannot be read as it is, where nothing may be written."""
    return NotALedger(
        f"this database has ledger format {format_}, and from {READS_FROM} on they are read as they are; open it once "
        f"as a role that may create in the schema {SCHEMA}, which brings it to format {FORMAT}"
    )


def _step(cursor: PgCursor, format_: int) -> int:
    for statement in STEPS[format_]:
        cursor.execute(statement)
    cursor.execute(
        f"INSERT INTO {SCHEMA}.ledger_meta VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (_FORMAT_FACT, str(format_ + 1)),
    )
    return format_ + 1


def create(cursor: PgCursor, meta: Mapping[str, str]) -> None:
    """Makes the schema and its tables, inside the caller's transaction."""
    for format_ in range(FORMAT):
        _step(cursor, format_)
    for fact in meta.items():
        cursor.execute(f"INSERT INTO {SCHEMA}.ledger_meta VALUES (%s, %s)", fact)


def drop(cursor: PgCursor) -> None:
    """Takes the schema away with all that is in it, inside the caller's transaction."""
    cursor.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
