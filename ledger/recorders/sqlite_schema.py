"""The tables of a SQLite ledger, format by format.

`STEPS[n]` brings a ledger from format n to n + 1, in one transaction with the format number, under the write lock.
Format 0 is an empty file. A new ledger goes through the same steps as a ledger of an older inforce, so the two cannot
differ. A released step is never edited: a difference is a further step, with a stored ledger of the format before it
among the fixtures. Proved by tests/life.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from ledger.drafts import Idempotency
from ledger.entropy import random_bytes
from ledger.errors import NotALedger
from ledger.recorders.contract import BODY_KEY, EVENTS_TABLE, ID_TAIL_AT, parsed_body_key
from ledger.recorders.log_tables import LOG_HEADS, LOG_KEYS, LOG_TILES

APPLICATION_ID: Final = 0x494E4652
"""`INFR` in the file's header: identifies the file to us and to file(1)."""

Statement = str | Callable[[sqlite3.Cursor], None]
"""SQL, or a function that runs statements on the cursor."""

_IMMUTABLE: Final = "the ledger is immutable"

_FORMAT_1: Final = (
    f"CREATE TABLE {EVENTS_TABLE} ("
    " position INTEGER PRIMARY KEY,"
    " originator_id TEXT NOT NULL,"
    " originator_version INTEGER NOT NULL,"
    " topic TEXT NOT NULL,"
    " state BLOB NOT NULL,"
    " recorded_at INTEGER NOT NULL,"
    " leaf_hash BLOB NOT NULL CHECK (length(leaf_hash) = 32),"
    " UNIQUE (originator_id, originator_version))",
    # REPLACE deletes rows without firing DELETE triggers, so an insert must be the next position and a new version.
    f"CREATE TRIGGER {EVENTS_TABLE}_in_order BEFORE INSERT ON {EVENTS_TABLE}"
    f" WHEN NEW.position IS NOT (SELECT coalesce(max(position), 0) + 1 FROM {EVENTS_TABLE})"
    f" OR EXISTS (SELECT 1 FROM {EVENTS_TABLE} WHERE originator_id = NEW.originator_id"
    "  AND originator_version = NEW.originator_version)"
    f" BEGIN SELECT RAISE(ABORT, '{_IMMUTABLE}: an event must be the next one'); END",
    f"CREATE TRIGGER {EVENTS_TABLE}_no_update BEFORE UPDATE ON {EVENTS_TABLE}"
    f" BEGIN SELECT RAISE(ABORT, '{_IMMUTABLE}: no event is ever changed'); END",
    f"CREATE TRIGGER {EVENTS_TABLE}_no_delete BEFORE DELETE ON {EVENTS_TABLE}"
    f" BEGIN SELECT RAISE(ABORT, '{_IMMUTABLE}: no event is ever deleted'); END",
    "CREATE TABLE submissions ("
    " caller TEXT NOT NULL, key TEXT NOT NULL, body_sha256 BLOB NOT NULL,"
    " first_position INTEGER NOT NULL, event_count INTEGER NOT NULL, recorded_at INTEGER NOT NULL,"
    " PRIMARY KEY (caller, key)) WITHOUT ROWID",
    "CREATE TABLE personal_data (position INTEGER PRIMARY KEY, salt BLOB NOT NULL, content TEXT NOT NULL)",
    "CREATE TABLE ledger_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    f"PRAGMA application_id={APPLICATION_ID}",
)


def make_body_key(cursor: sqlite3.Cursor) -> None:
    """Makes the ledger's secret for the digests of idempotency keys, and keys and seals those that are stored."""
    secret = random_bytes(32)
    cursor.execute("INSERT INTO ledger_meta VALUES (?, ?)", (BODY_KEY, secret.hex()))
    rows = cursor.execute(
        f"SELECT s.caller, s.key, s.body_sha256, s.event_count, CAST(substr(e.state, {ID_TAIL_AT}, 23) AS TEXT)"
        f" FROM submissions s JOIN {EVENTS_TABLE} e ON e.position = s.first_position"
    ).fetchall()
    sealed = (Idempotency(*row).keyed(secret).sealed(secret, events, tail) for *row, events, tail in rows)
    cursor.executemany("UPDATE submissions SET body_sha256 = ?3 WHERE caller = ?1 AND key = ?2", sealed)


_FORMAT_2: Final = (make_body_key,)

_FORMAT_3: Final = (
    f"CREATE TABLE {LOG_TILES} ("
    " level INTEGER NOT NULL, number INTEGER NOT NULL, hashes BLOB NOT NULL, PRIMARY KEY (level, number))",
    f"CREATE TABLE {LOG_HEADS} ("
    " name TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, note BLOB NOT NULL) WITHOUT ROWID",
    f"CREATE TABLE {LOG_KEYS} (verifier_key TEXT PRIMARY KEY, first_size INTEGER NOT NULL) WITHOUT ROWID",
)

TRIGGERS: Final = {statement.split()[2]: statement for statement in _FORMAT_1 if statement.startswith("CREATE TRIGGER")}
"""Name → definition, as SQLite stores it."""

STEPS: Final[tuple[Iterable[Statement], ...]] = (_FORMAT_1, _FORMAT_2, _FORMAT_3)

FORMAT: Final = len(STEPS)
"""The version of our tables. A file with a higher one was written by a newer inforce and is refused."""

READS_FROM: Final = 1
"""The oldest format that this code can read without a step, from a file that it may not write."""


def is_empty(cursor: sqlite3.Cursor) -> bool:
    return not cursor.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]


def read_format(cursor: sqlite3.Cursor, path: Path) -> int:
    """The file's format, 0 for an empty one. Raises `NotALedger`."""
    application_id = cursor.execute("PRAGMA application_id").fetchone()[0]
    version: int = cursor.execute("PRAGMA user_version").fetchone()[0]
    if application_id == 0 and version == 0 and is_empty(cursor):
        return 0
    if application_id != APPLICATION_ID:
        raise NotALedger(f"{path} is a SQLite file of another program; name another file with --db")
    if version > FORMAT:
        raise NotALedger(
            f"{path} has ledger format {version} and this inforce knows formats up to {FORMAT}; use a newer inforce"
        )
    return version


def altered_tables(cursor: sqlite3.Cursor) -> list[str]:
    """Our tables that are missing or defined otherwise, by name. The tables of later formats need not be there yet."""
    stored = dict(cursor.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'").fetchall())
    (format_,) = cursor.execute("PRAGMA user_version").fetchone()
    made = [text for step in STEPS[:format_] for text in step if isinstance(text, str)]
    tables = {text.split()[2]: text for text in made if text.startswith("CREATE TABLE")}
    return [name for name, definition in tables.items() if stored.get(name) != definition]


def format_of_content(cursor: sqlite3.Cursor) -> int:
    """The lowest format that has everything that is there."""
    if cursor.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?", (LOG_HEADS,)).fetchone():
        return 3
    return 2 if cursor.execute("SELECT 1 FROM ledger_meta WHERE name = ?", (BODY_KEY,)).fetchone() else 1


def read_meta(cursor: sqlite3.Cursor, path: Path) -> dict[str, str]:
    """Facts about the ledger; empty for an empty file. Raises `NotALedger`."""
    if not read_format(cursor, path):
        return {}
    return dict(cursor.execute("SELECT name, value FROM ledger_meta WHERE name <> ?", (BODY_KEY,)).fetchall())


def read_body_key(cursor: sqlite3.Cursor, path: Path) -> bytes | None:
    row = cursor.execute("SELECT value FROM ledger_meta WHERE name = ?", (BODY_KEY,)).fetchone()
    return parsed_body_key(row, is_older=read_format(cursor, path) < 2)


def migrate(cursor: sqlite3.Cursor, path: Path) -> int:
    """Takes the ledger's next step, unless another process has taken the last one; answers the format afterwards.

    Runs inside the caller's transaction, which holds the write lock. Raises `NotALedger`."""
    format_ = read_format(cursor, path)
    return _step(cursor, format_) if format_ < FORMAT else format_


def unreadable(format_: int, path: Path) -> NotALedger:
    """The error for an older format that cannot be read without a step, in a file that may not be written."""
    return NotALedger(
        f"{path} has ledger format {format_}, and only formats from {READS_FROM} on can be read without migration; "
        f"open it once where it may be written, which migrates it to format {FORMAT}"
    )


def _step(cursor: sqlite3.Cursor, format_: int) -> int:
    for statement in STEPS[format_]:
        if isinstance(statement, str):
            cursor.execute(statement)
        else:
            statement(cursor)
    cursor.execute(f"PRAGMA user_version={format_ + 1}")
    return format_ + 1


def create(cursor: sqlite3.Cursor, meta: Mapping[str, str]) -> None:
    """Creates the tables in an empty file, inside the caller's transaction."""
    for format_ in range(FORMAT):
        _step(cursor, format_)
    cursor.executemany("INSERT INTO ledger_meta VALUES (?, ?)", meta.items())


def drop(cursor: sqlite3.Cursor) -> None:
    """Drops everything in the file, inside the caller's transaction."""
    for (table,) in cursor.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
        cursor.execute(f'DROP TABLE "{table}"')
    cursor.execute("PRAGMA application_id=0")
    cursor.execute("PRAGMA user_version=0")
