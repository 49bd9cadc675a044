"""The triggers and functions of a PostgreSQL ledger: ours refuse every change of an event, and nothing else may change
what is written.

They are compared with their definitions, not only by name, whenever a ledger is opened for writing, and made again,
with a warning, where they are missing, altered or disabled. Our trigger fires always: without that, a session with
`session_replication_role = replica`, which can be a role's default, would not fire it.
Proved by tests/contracts/test_guard.py.
"""

from __future__ import annotations

import logging
from typing import Final

from ledger.recorders.contract import BODY_KEY, EVENTS_TABLE
from ledger.recorders.log_tables import LOG_HEADS, LOG_KEYS, LOG_TILES
from ledger.recorders.postgres_functions import APPEND_GROUP, REFUSE_CHANGE, body_of
from ledger.recorders.postgres_schema import FIRE_ALWAYS, IMMUTABLE, IMMUTABLE_TRIGGER, PgCursor, read_format
from ledger.recorders.postgres_server import EVENTS, SCHEMA

_log = logging.getLogger("inforce.ledger")

_MAY_WRITE: Final = (
    f"SELECT current_setting('transaction_read_only') = 'off' AND has_table_privilege('{EVENTS}', 'INSERT')"
)
# 58: BEFORE UPDATE OR DELETE OR TRUNCATE, for each statement.
_IMMUTABLE_IS_WHOLE: Final = (
    "SELECT count(*) FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid"
    f" WHERE t.tgrelid = '{EVENTS}'::regclass AND t.tgname = '{IMMUTABLE}' AND NOT t.tgisinternal AND t.tgtype = 58"
    " AND t.tgenabled = 'A' AND t.tgqual IS NULL AND cardinality(t.tgattr::int2[]) = 0 AND t.tgnargs = 0"
    f" AND p.oid = '{SCHEMA}.refuse_change()'::regprocedure"
)
_FUNCTION_BODIES: Final = (
    "SELECT p.proname, p.prosrc FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang"
    f" WHERE p.pronamespace = '{SCHEMA}'::regnamespace AND l.lanname = 'plpgsql' ORDER BY p.proname"
)
_OURS: Final = {"append_group": APPEND_GROUP, "refuse_change": REFUSE_CHANGE}
_FOREIGN: Final = (
    "SELECT 'trigger ' || t.tgname || ' on ' || c.relname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
    f" WHERE c.relnamespace = '{SCHEMA}'::regnamespace AND NOT t.tgisinternal"
    f" AND NOT (c.relname = '{EVENTS_TABLE}' AND t.tgname = '{IMMUTABLE}')"
    " UNION ALL SELECT 'rule ' || r.rulename || ' on ' || c.relname FROM pg_rewrite r"
    f" JOIN pg_class c ON c.oid = r.ev_class WHERE c.relnamespace = '{SCHEMA}'::regnamespace AND c.relkind <> 'v'"
    " UNION ALL SELECT 'row security on ' || c.relname FROM pg_class c"
    f" WHERE c.relnamespace = '{SCHEMA}'::regnamespace AND c.relrowsecurity"
    " ORDER BY 1"
)


def may_write(cursor: PgCursor) -> bool:
    return cursor.execute(_MAY_WRITE).fetchone() == (True,)


def broken(cursor: PgCursor) -> list[str]:
    """Our triggers and functions that are missing, altered or disabled, by name."""
    names = [name for name, source in _OURS.items() if dict(_bodies(cursor)).get(name) != body_of(source)]
    if "refuse_change" in names or cursor.execute(_IMMUTABLE_IS_WHOLE).fetchone() != (1,):
        names.append(IMMUTABLE)
    return names


def _bodies(cursor: PgCursor) -> list[tuple[str, str]]:
    return [(name, body) for name, body in cursor.execute(_FUNCTION_BODIES).fetchall()]


def warn_of_foreign(cursor: PgCursor) -> None:
    foreign = [name for (name,) in cursor.execute(_FOREIGN).fetchall()]
    if foreign:
        _log.warning(
            "the schema %s has triggers, rules or policies that are not inforce's: %s; an append that one of them "
            "alters is refused, so remove them",
            SCHEMA,
            ", ".join(foreign),
        )


def repair(cursor: PgCursor) -> None:
    """Makes what is broken again, inside the caller's transaction, which holds the append lock."""
    names = broken(cursor)
    for name in names:
        if name != IMMUTABLE:
            cursor.execute(_OURS[name].replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1).encode())
    if IMMUTABLE in names:
        # Not DROP, which would wait for all readers, and everything else behind it.
        cursor.execute(IMMUTABLE_TRIGGER.replace("CREATE TRIGGER", "CREATE OR REPLACE TRIGGER", 1).encode())
        cursor.execute(FIRE_ALWAYS.encode())
    for name in names:
        _log.warning(
            "%s of the schema %s was missing, altered or disabled, so events could be changed; it was made again: "
            "compare the events with an export or a dump",
            name,
            SCHEMA,
        )


_COLUMNS: Final = {
    EVENTS_TABLE: "position bigint, originator_id text, originator_version bigint, topic text, state bytea,"
    " recorded_at bigint, leaf_hash bytea",
    "submissions": "caller text, key text, body_sha256 bytea, first_position bigint, event_count bigint,"
    " recorded_at bigint",
    "personal_data": "position bigint, salt bytea, content text",
    "ledger_meta": "name text, value text",
    LOG_TILES: "level bigint, number bigint, hashes bytea",
    LOG_HEADS: "name text, size bigint, root bytea, note bytea",
    LOG_KEYS: "verifier_key text, first_size bigint",
}
_COLUMNS_STORED: Final = (
    "SELECT table_name, string_agg(column_name || ' ' || data_type, ', ' ORDER BY ordinal_position)"
    f" FROM information_schema.columns WHERE table_schema = '{SCHEMA}' GROUP BY table_name"
)
_KEYS: Final = {
    f"{EVENTS_TABLE}_pkey": "PRIMARY KEY (position)",
    f"{EVENTS_TABLE}_originator_id_originator_version_key": "UNIQUE (originator_id, originator_version)",
    "submissions_pkey": "PRIMARY KEY (caller, key)",
    "personal_data_pkey": "PRIMARY KEY (position)",
    "ledger_meta_pkey": "PRIMARY KEY (name)",
    f"{LOG_TILES}_pkey": "PRIMARY KEY (level, number)",
    f"{LOG_HEADS}_pkey": "PRIMARY KEY (name)",
    f"{LOG_KEYS}_pkey": "PRIMARY KEY (verifier_key)",
}
_LATER_TABLES: Final = {LOG_TILES: 4, LOG_HEADS: 4, LOG_KEYS: 4}
"""The format from which on a ledger has them; the others belong to every format."""
_KEYS_STORED: Final = (
    "SELECT c.conname, replace(pg_get_constraintdef(c.oid), '\"', '') FROM pg_constraint c"
    " JOIN pg_index i ON i.indexrelid = c.conindid"
    f" WHERE c.connamespace = '{SCHEMA}'::regnamespace AND i.indisvalid AND i.indisready"
)

_HAS_SECRET: Final = f"SELECT 1 FROM {SCHEMA}.ledger_meta WHERE name = %s"


def definition_faults(cursor: PgCursor) -> list[str]:
    """See `Recorder.definition_faults`."""
    columns: dict[str, str] = dict(cursor.execute(_COLUMNS_STORED).fetchall())
    format_ = read_format(cursor)
    absent = {name for name, since in _LATER_TABLES.items() if format_ < since}
    faults = [
        f"the table {name} is not defined as it was made"
        for name, made in _COLUMNS.items()
        if name not in absent and columns.get(name) != made
    ]
    keys: dict[str, str] = dict(cursor.execute(_KEYS_STORED).fetchall())
    faults += [
        f"the key {name} is missing, altered or not valid"
        for name, made in _KEYS.items()
        if name.removesuffix("_pkey") not in absent and keys.get(name) != made
    ]
    faults += [f"{name} is missing, altered or disabled, so events could be changed" for name in broken(cursor)]
    lowest = 4 if LOG_HEADS in columns else 3 if cursor.execute(_HAS_SECRET, (BODY_KEY,)).fetchone() else 1
    if format_ < lowest:
        faults.append("the ledger's tables are newer than its format number says")
    return faults + [f"the {name} is not inforce's" for (name,) in cursor.execute(_FOREIGN).fetchall()]
