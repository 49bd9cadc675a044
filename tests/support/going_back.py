"""Ledgers that go back: a deleted tail, and an older copy in the place of the ledger, on both databases."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from ledger.opening import database_file


def delete_tail(url: str, after: int) -> None:
    """Deletes all events after a position, as somebody can who owns the database. Stored timelines stay."""
    path = database_file(url)
    if path is None:
        with psycopg.connect(url) as connection:
            triggers = "SELECT tgname FROM pg_trigger WHERE tgrelid = 'inforce.events'::regclass AND NOT tgisinternal"
            names = [name for (name,) in connection.execute(triggers).fetchall()]
            connection.execute("ALTER TABLE inforce.events DISABLE TRIGGER USER")
            connection.execute("DELETE FROM inforce.events WHERE position > %s", (after,))
            for name in names:
                connection.execute(f"ALTER TABLE inforce.events ENABLE ALWAYS TRIGGER {name}")
        return
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        ((trigger,),) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'events_no_delete'").fetchall()
        connection.execute("DROP TRIGGER events_no_delete")
        connection.execute("DELETE FROM events WHERE position > ?", (after,))
        connection.execute(trigger)


def copy_of(url: str, folder: Path, server_url: str | None = None) -> Callable[[], None]:
    """Copies the ledger as it is now; the answer puts the copy in its place. On SQLite no process may use the ledger
    at either time; on PostgreSQL connections are cut off, and open themselves again."""
    path = database_file(url)
    if path is None:
        return _copy_of_database(url, str(server_url))
    copy = folder / "copy.db"
    with closing(sqlite3.connect(path)) as ledger, closing(sqlite3.connect(copy)) as target:
        ledger.backup(target)

    def put() -> None:
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        path.write_bytes(copy.read_bytes())

    return put


def _copy_of_database(url: str, server_url: str) -> Callable[[], None]:
    name = urlsplit(url).path.removeprefix("/")
    cut_off = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ('{name}', '{name}_copy')"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        admin.execute(cut_off)
        admin.execute(f"CREATE DATABASE {name}_copy TEMPLATE {name}")
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    def put() -> None:
        with psycopg.connect(server_url, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
            admin.execute(f"ALTER DATABASE {name}_copy RENAME TO {name}")
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    return put
