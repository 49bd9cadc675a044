"""Temporary databases for a measurement: files in a folder, or databases on a PostgreSQL server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import urlsplit

from ledger.errors import BadInput, LedgerUnavailable

_PREFIX: Final = "inforce_bench_"


class SQLiteScratch:
    """`url()` returns the URL of a new, empty database. `described`: its durability, as the database reports it."""

    kind = "sqlite"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        from eventsourcing.sqlite import SQLiteDatastore

        datastore = SQLiteDatastore(str(folder / "durability.db"))
        with datastore.transaction(commit=False) as cursor:
            cursor.execute("PRAGMA synchronous")
            level = cursor.fetchone()[0]
        datastore.close()
        # The library uses the compiled default of SQLite; our recorder sets FULL. Both must wait for the disk.
        if level != 2:
            raise LedgerUnavailable("the library's SQLite is not synchronous=FULL here; a comparison would be unfair")
        self.described = "SQLite, WAL, synchronous=FULL"

    def url(self) -> str:
        self._count += 1
        return f"sqlite:///{(self._folder / f'{self._count}.db').absolute()}"

    def library_environment(self, url: str) -> dict[str, str]:
        """The settings with which the eventsourcing library uses the database at `url`."""
        return {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": url.removeprefix("sqlite:///")}


class PostgreSQLScratch:
    """Like `SQLiteScratch`, on a server."""

    kind = "postgresql"

    def __init__(self, db: str) -> None:
        try:
            import psycopg
        except ImportError:
            raise LedgerUnavailable("PostgreSQL needs the extra: pip install 'inforce[postgres]'") from None
        if urlsplit(db).scheme not in ("postgresql", "postgres"):
            raise BadInput("--db must name a PostgreSQL server: postgresql://user@host/name")
        self._psycopg = psycopg
        self._db = db
        self._names: list[str] = []
        with self._connection() as connection:
            version = connection.execute("SHOW server_version").fetchone()[0]
            commit = connection.execute("SHOW synchronous_commit").fetchone()[0]
            fsync = connection.execute("SHOW fsync").fetchone()[0]
        self.described = f"PostgreSQL {version}, synchronous_commit={commit}, fsync={fsync}"

    def _connection(self) -> Any:
        try:
            return self._psycopg.connect(self._db, autocommit=True)
        except self._psycopg.Error as error:
            raise LedgerUnavailable(f"PostgreSQL cannot be reached: {str(error).splitlines()[0]}") from None

    def url(self) -> str:
        name = _PREFIX + secrets.token_hex(6)
        with self._connection() as connection:
            try:
                connection.execute(f"CREATE DATABASE {name}")
            except self._psycopg.Error as error:
                reason = str(error).splitlines()[0]
                raise LedgerUnavailable(f"a bench creates its own databases, which failed: {reason}") from None
        self._names.append(name)
        parts = urlsplit(self._db)
        return f"{parts.scheme}://{parts.netloc}/{name}{f'?{parts.query}' if parts.query else ''}"

    def library_environment(self, url: str) -> dict[str, str]:
        from psycopg.conninfo import conninfo_to_dict

        fields = conninfo_to_dict(url)
        return {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": str(fields.get("dbname")),
            "POSTGRES_HOST": str(fields.get("host", "")),
            "POSTGRES_PORT": str(fields.get("port", "5432")),
            "POSTGRES_USER": str(fields.get("user", "")),
            "POSTGRES_PASSWORD": str(fields.get("password", "")),
        }

    def drop(self) -> None:
        with self._connection() as connection:
            for name in self._names:
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


ScratchDatabases = SQLiteScratch | PostgreSQLScratch


@contextmanager
def scratch_databases(db: str | None, folder: Path) -> Iterator[ScratchDatabases]:
    """Drops the databases at the end. `db` None: SQLite files in a temporary folder within `folder`; else a PostgreSQL
    server."""
    if db is None or db.startswith("sqlite:"):
        if db is not None:
            raise BadInput("a bench makes its own SQLite files; name the folder for them with --folder")
        with TemporaryDirectory(prefix=".inforce-bench-", dir=folder) as name:
            yield SQLiteScratch(Path(name))
        return
    server = PostgreSQLScratch(db)
    try:
        yield server
    finally:
        server.drop()
