"""The tables of a PostgreSQL ledger, format by format, in a schema of their own.

`STEPS[n]` brings a ledger from format n to n + 1, in one transaction with the format number, under the append lock.
Format 0 is a database without our schema. A new ledger goes through the same steps as a ledger of an older inforce, so
the two cannot differ. A released step is never edited: a difference is a further step, with a stored ledger of the
format before it among the fixtures. Proved by tests/life.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import psycopg

from ledger.drafts import SEAL_BYTES
from ledger.entropy import random_bytes
from ledger.errors import NotALedger
from ledger.recorders.contract import BODY_KEY, EVENTS_TABLE, ID_TAIL_AT, parsed_body_key
from ledger.recorders.log_tables import LOG_HEADS, LOG_KEYS, LOG_TILES
from ledger.recorders.postgres_functions import APPEND_GROUP_2, APPEND_GROUP_3, REFUSE_CHANGE
from ledger.recorders.postgres_server import EVENTS, SCHEMA

PgCursor = psycopg.Cursor[tuple[Any, ...]]

Statement = str | Callable[[PgCursor], None]
"""SQL, or a function that runs statements on the cursor."""

_FORMAT_FACT: Final = "format"

IMMUTABLE: Final = f"{EVENTS_TABLE}_immutable"
IMMUTABLE_TRIGGER: Final = (
    f"CREATE TRIGGER {IMMUTABLE} BEFORE UPDATE OR DELETE OR TRUNCATE ON {EVENTS}"
    f" FOR EACH STATEMENT EXECUTE FUNCTION {SCHEMA}.refuse_change()"
)
FIRE_ALWAYS: Final = f"ALTER TABLE {EVENTS} ENABLE ALWAYS TRIGGER {IMMUTABLE}"

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
    REFUSE_CHANGE,
    IMMUTABLE_TRIGGER,
    f"CREATE TABLE {SCHEMA}.submissions ("
    " caller text NOT NULL, key text NOT NULL, body_sha256 bytea NOT NULL,"
    " first_position bigint NOT NULL, event_count bigint NOT NULL, recorded_at bigint NOT NULL,"
    " PRIMARY KEY (caller, key))",
    f"CREATE TABLE {SCHEMA}.personal_data (position bigint PRIMARY KEY, salt bytea NOT NULL, content text NOT NULL)",
    f"CREATE TABLE {SCHEMA}.ledger_meta (name text PRIMARY KEY, value text NOT NULL)",
)

_FORMAT_2: Final = (APPEND_GROUP_2,)


def make_body_key(cursor: PgCursor) -> None:
    """Makes the ledger's secret for the digests of idempotency keys, and keys those that are stored."""
    secret = random_bytes(32)
    cursor.execute(f"INSERT INTO {SCHEMA}.ledger_meta VALUES (%s, %s)", (BODY_KEY, secret.hex()))
    # HMAC (RFC 2104) of SHA-256, in the database, because a million digests need not cross the network.
    inner, outer = (bytes(byte ^ pad for byte in secret.ljust(64, b"\0")) for pad in (0x36, 0x5C))
    keyed = "sha256(%(outer)b::bytea || sha256(%(inner)b::bytea || body_sha256))"
    message = (
        f"n.digest || substring(e.state FROM {ID_TAIL_AT} FOR 23) || convert_to(s.event_count::text, 'UTF8')"
        " || decode('00', 'hex') || convert_to(s.caller, 'UTF8') || decode('00', 'hex') || convert_to(s.key, 'UTF8')"
    )
    seal = f"substring(sha256(%(outer)b::bytea || sha256(%(inner)b::bytea || {message})) FROM 1 FOR {SEAL_BYTES})"
    cursor.execute(
        f"UPDATE {SCHEMA}.submissions s SET body_sha256 = n.digest || {seal}"
        f" FROM (SELECT caller, key, first_position, {keyed} AS digest FROM {SCHEMA}.submissions) n"
        f" JOIN {EVENTS} e ON e.position = n.first_position WHERE s.caller = n.caller AND s.key = n.key",
        {"outer": outer, "inner": inner},
    )


_FORMAT_3: Final = (APPEND_GROUP_3, make_body_key, FIRE_ALWAYS)

_FORMAT_4: Final = (
    f"CREATE TABLE {SCHEMA}.{LOG_TILES} ("
    " level bigint NOT NULL, number bigint NOT NULL, hashes bytea NOT NULL, PRIMARY KEY (level, number))",
    f"CREATE TABLE {SCHEMA}.{LOG_HEADS} ("
    " name text PRIMARY KEY, size bigint NOT NULL, root bytea NOT NULL, note bytea NOT NULL)",
    f"CREATE TABLE {SCHEMA}.{LOG_KEYS} (verifier_key text PRIMARY KEY, first_size bigint NOT NULL)",
)

STEPS: Final[tuple[Iterable[Statement], ...]] = (_FORMAT_1, _FORMAT_2, _FORMAT_3, _FORMAT_4)

FORMAT: Final = len(STEPS)
"""The version of our tables. A database with a higher one was written by a newer inforce and is refused."""

READS_FROM: Final = 1
"""The oldest format that this code can read without a step, as a role that may not write."""

_HAS_META: Final = f"SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = '{SCHEMA}' AND tablename = 'ledger_meta'"


def require_encoding(cursor: PgCursor) -> None:
    """Raises `NotALedger` if the database cannot store every text: a reason that it cannot store would fail every
    submission in the same commit."""
    row = cursor.execute("SELECT current_setting('server_encoding')").fetchone()
    if row is not None and row[0] not in ("UTF8", "SQL_ASCII"):
        raise NotALedger(
            f"this database has the encoding {row[0]}, which cannot store every text; create a database with ENCODING "
            "'UTF8' and name it with --db"
        )


def read_format(cursor: PgCursor) -> int:
    """The ledger's format, 0 if there is no ledger. Raises `NotALedger`."""
    # Not to_regclass: it reads a cache, which right after a lock may not know the tables of the lock's last holder.
    if not cursor.execute(_HAS_META).fetchone():
        return 0
    row = cursor.execute(f"SELECT value FROM {SCHEMA}.ledger_meta WHERE name = %s", (_FORMAT_FACT,)).fetchone()
    if row is None or not row[0].isdecimal():
        raise NotALedger(
            f"the schema {SCHEMA} of this database belongs to another program; name another database with --db"
        )
    if int(row[0]) > FORMAT:
        raise NotALedger(
            f"this database has ledger format {row[0]} and this inforce knows formats up to {FORMAT}; use a newer "
            "inforce"
        )
    return int(row[0])


def read_meta(cursor: PgCursor) -> dict[str, str]:
    """Facts about the ledger; empty if there is none. Raises `NotALedger`."""
    if not read_format(cursor):
        return {}
    meta: dict[str, str] = dict(cursor.execute(f"SELECT name, value FROM {SCHEMA}.ledger_meta").fetchall())
    del meta[_FORMAT_FACT]
    meta.pop(BODY_KEY, None)
    return meta


def read_body_key(cursor: PgCursor) -> bytes | None:
    row = cursor.execute(f"SELECT value FROM {SCHEMA}.ledger_meta WHERE name = %s", (BODY_KEY,)).fetchone()
    return parsed_body_key(row, is_older=read_format(cursor) < 3)


def migrate(cursor: PgCursor) -> int:
    """Takes the ledger's next step, unless another process has taken the last one; answers the format afterwards.

    Runs inside the caller's transaction, which holds the append lock. Raises `NotALedger`."""
    format_ = read_format(cursor)
    return _step(cursor, format_) if format_ < FORMAT else format_


def unreadable(format_: int) -> NotALedger:
    """The error for an older format that cannot be read without a step, for a role that may not write."""
    return NotALedger(
        f"this database has ledger format {format_}, and only formats from {READS_FROM} on can be read without "
        f"migration; open it once as a role that may create in the schema {SCHEMA}, which migrates it to format "
        f"{FORMAT}"
    )


def _step(cursor: PgCursor, format_: int) -> int:
    for statement in STEPS[format_]:
        if isinstance(statement, str):
            cursor.execute(statement)
        else:
            statement(cursor)
    cursor.execute(
        f"INSERT INTO {SCHEMA}.ledger_meta VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (_FORMAT_FACT, str(format_ + 1)),
    )
    return format_ + 1


def create(cursor: PgCursor, meta: Mapping[str, str]) -> None:
    """Creates the schema and its tables, inside the caller's transaction."""
    for format_ in range(FORMAT):
        _step(cursor, format_)
    for fact in meta.items():
        cursor.execute(f"INSERT INTO {SCHEMA}.ledger_meta VALUES (%s, %s)", fact)


def drop(cursor: PgCursor) -> None:
    """Drops the schema with everything in it, inside the caller's transaction."""
    cursor.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
