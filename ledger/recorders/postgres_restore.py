"""Filling a PostgreSQL ledger from an import: whole batches of entries, exactly as they were exported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ledger.drafts import PersonalData
from ledger.recorders import postgres_schema
from ledger.recorders.common import COLUMNS, not_stored_as_written
from ledger.recorders.contract import IMPORTING, Entry, Head, PreconditionFailed
from ledger.recorders.postgres_schema import PgCursor
from ledger.recorders.postgres_server import EVENTS, HEAD, SCHEMA


def restore_rows(cursor: PgCursor, entries: Sequence[Entry], personal: Sequence[tuple[int, PersonalData]]) -> None:
    """Raises `LedgerCorrupt` if the database did not store them as they are."""
    with cursor.copy(f"COPY {EVENTS} ({COLUMNS}) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["int8", "text", "int8", "text", "bytea", "int8", "bytea"])
        for entry in entries:
            copy.write_row(entry)
    _insert_personal(cursor, personal)
    _require_stored(cursor, entries, personal)


def require_importing(cursor: PgCursor, importing: str | None) -> None:
    meta = postgres_schema.read_meta(cursor)
    if not meta or meta.get(IMPORTING) != importing:
        raise PreconditionFailed


def _insert_personal(cursor: PgCursor, personal: Iterable[tuple[int, PersonalData]]) -> None:
    rows = [(position, data.salt, data.content) for position, data in personal]
    if rows:
        cursor.execute(
            f"INSERT INTO {SCHEMA}.personal_data SELECT * FROM unnest(%b::bigint[], %b::bytea[], %b::text[])",
            [list(column) for column in zip(*rows, strict=True)],
        )


def _require_stored(cursor: PgCursor, entries: Sequence[Entry], personal: Sequence[tuple[int, PersonalData]]) -> None:
    """Reads back what an import has written, as an append does. Raises `LedgerCorrupt`."""
    cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    if entries:
        # Not the leaves themselves, which would cross the network once more.
        stored = cursor.execute(
            "SELECT position, originator_id, originator_version, topic, recorded_at, leaf_hash,"
            f" leaf_hash = sha256(decode('00', 'hex') || state) FROM {EVENTS} WHERE position >= %s ORDER BY position",
            (entries[0].position,),
        ).fetchall()
        written = [(e.position, e.subject, e.version, e.topic, e.recorded_at, e.leaf_hash, True) for e in entries]
        if stored != written:
            raise not_stored_as_written("events", len(written), len(stored))
    if personal:
        positions = [position for position, _ in personal]
        stored = cursor.execute(
            f"SELECT position, salt, content FROM {SCHEMA}.personal_data WHERE position = ANY(%s::bigint[])"
            " ORDER BY position",
            (positions,),
        ).fetchall()
        if stored != [(position, data.salt, data.content) for position, data in personal]:
            raise not_stored_as_written("reasons", len(personal), len(stored))


def head_of(cursor: PgCursor) -> Head:
    row = cursor.execute(HEAD).fetchone()
    return Head(0, None) if row is None else Head(row[0], row[1])
