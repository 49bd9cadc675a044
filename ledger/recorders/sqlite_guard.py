"""The triggers of a SQLite ledger (ours refuse every change of an event, and no other may be there) and its structure.

They are compared with their definitions, not only by name, whenever a ledger is opened for writing. A trigger of ours
that is missing or altered is made again, with a warning, because events may have been changed meanwhile.
Proved by tests/contracts/test_guard.py.
"""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Final

from ledger.errors import LedgerCorrupt
from ledger.recorders.sqlite_schema import TRIGGERS, altered_tables, format_of_content

_log = logging.getLogger("inforce.ledger")

CHECKED_BYTES_MAX: Final = 32_000_000
"""A file up to this size is checked whole when it is opened, by SQLite's integrity_check: 1.4 ms a megabyte. It finds
damaged indexes, which hide rows that are there."""
_FAULTS_MAX: Final = 20
_ALL: Final = "SELECT name, tbl_name, sql FROM sqlite_schema WHERE type = 'trigger' ORDER BY name"


def broken(cursor: sqlite3.Cursor, path: Path) -> bool:
    """Whether one of our triggers is missing or altered. Warns of triggers that are not ours."""
    triggers = {name: (table, sql) for name, table, sql in cursor.execute(_ALL)}
    foreign = [f"{name} on {table}" for name, (table, _) in triggers.items() if name not in TRIGGERS]
    if foreign:
        _log.warning(
            "the ledger %s has triggers that are not inforce's: %s; an append that one of them alters is refused, so "
            "remove them",
            path,
            ", ".join(foreign),
        )
    return any(triggers.get(name, ("", ""))[1] != sql for name, sql in TRIGGERS.items())


def repair(cursor: sqlite3.Cursor, path: Path) -> None:
    """Makes our triggers again, inside the caller's transaction, which holds the write lock."""
    triggers = {name: sql for name, _, sql in cursor.execute(_ALL).fetchall()}
    for name, sql in TRIGGERS.items():
        if triggers.get(name) == sql:
            continue
        cursor.execute(f"DROP TRIGGER IF EXISTS {name}")
        cursor.execute(sql)
        _log.warning(
            "the trigger %s of the ledger %s was %s, so events could be changed; it was made again: run inforce backup "
            "--check on a copy, and compare it with an export",
            name,
            path,
            "altered" if name in triggers else "missing",
        )


def require_structure(cursor: sqlite3.Cursor, path: Path) -> None:
    """Raises `LedgerCorrupt` if a table is not defined as it was made, or if a small file's structure is damaged."""
    altered = altered_tables(cursor)
    if altered:
        raise LedgerCorrupt(
            f"the file {path} is damaged: its table {altered[0]} is not defined as it was made; restore it from a "
            "backup or an export"
        )
    pages, page_bytes = (cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    if pages * page_bytes > CHECKED_BYTES_MAX:
        return
    (result,) = cursor.execute("PRAGMA integrity_check(1)").fetchone()
    if result != "ok":
        raise LedgerCorrupt(
            f"the file {path} is damaged ({result.splitlines()[-1]}); run inforce backup --check, and restore it from "
            "a backup or an export"
        )


def definition_faults(cursor: sqlite3.Cursor) -> list[str]:
    """See `Recorder.definition_faults`."""
    results = [row[0] for row in cursor.execute(f"PRAGMA integrity_check({_FAULTS_MAX})")]
    faults = [
        f"the file is damaged: {line}" for result in results if result != "ok" for line in result.splitlines()[-1:]
    ]
    faults += [f"the table {name} is not defined as it was made" for name in altered_tables(cursor)]
    (format_,) = cursor.execute("PRAGMA user_version").fetchone()
    if format_ < format_of_content(cursor):
        faults.append("the ledger's tables are newer than its format number says")
    triggers = {name: sql for name, _, sql in cursor.execute(_ALL).fetchall()}
    for name, sql in TRIGGERS.items():
        if triggers.pop(name, None) != sql:
            faults.append(f"the trigger {name} is missing or altered, so events could be changed")
    faults += [f"the trigger {name} is not inforce's" for name in sorted(triggers)]
    indexes = cursor.execute("SELECT name, tbl_name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL")
    return faults + [f"the index {name} of the table {table} is not inforce's" for name, table in indexes.fetchall()]
