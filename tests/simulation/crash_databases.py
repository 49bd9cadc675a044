"""The databases of a crash campaign: a fresh one for each ledger, its content, and the faults it supports."""

import shutil
import sqlite3
import subprocess
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Protocol

import psycopg

from tests.simulation.crash_content_checks import DatabaseContent, StoredEvent, StoredKey
from tests.support.postgres import fresh_database
from tests.support.postgres_restart import RestartablePostgres, StopMode, terminate_backends

EVENTS = "SELECT position, originator_id, originator_version, topic, state, recorded_at, leaf_hash FROM {}events"
KEYS = "SELECT caller, key, body_sha256, first_position, event_count, recorded_at FROM {}submissions"
PERSONAL = "SELECT position, salt, content FROM {}personal_data"


class Database(Protocol):
    name: str
    url: str
    faults: tuple[str, ...]
    """More kinds of rounds, beside those of every database."""

    def create(self) -> None:
        """Replaces the database with a fresh, empty one."""

    def content(self) -> DatabaseContent:
        """Reads everything in one transaction, without the code under test."""

    def save_copy(self, folder: Path) -> str:
        """Copies the database into `folder`. Returns how to inspect it."""

    def terminate_connections(self, count: int | None) -> None:
        """Terminates other connections."""

    def restart(self, mode: StopMode, pause_s: float) -> None:
        """Stops the database server at once and starts it again."""


class SQLiteDatabase:
    name = "SQLite"
    faults: tuple[str, ...] = ()

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self.url = ""

    def create(self) -> None:
        self._count += 1
        self.url = f"sqlite:///{self._path()}"

    def _path(self) -> Path:
        return self._folder / f"ledger-{self._count}.db"

    def content(self) -> DatabaseContent:
        with closing(sqlite3.connect(f"{self._path().as_uri()}?mode=ro", uri=True, isolation_level=None)) as connection:
            connection.execute("BEGIN")
            return _content(connection, "")

    def save_copy(self, folder: Path) -> str:
        for path in self._folder.glob(f"{self._path().name}*"):
            shutil.copy(path, folder)
        return f"the ledger is {folder / self._path().name}"

    def terminate_connections(self, count: int | None) -> None:
        raise NotImplementedError

    def restart(self, mode: StopMode, pause_s: float) -> None:
        raise NotImplementedError


class PostgresDatabase:
    """`server`: a restartable server, or the URL of a server that must not be restarted."""

    name = "PostgreSQL"

    def __init__(self, server: RestartablePostgres | str) -> None:
        self._server = server
        self._fresh = ExitStack()
        self.url = ""
        self.faults: tuple[str, ...] = ("backends",) if isinstance(server, str) else ("backends", "restart")

    def create(self) -> None:
        self._fresh.close()
        server_url = self._server if isinstance(self._server, str) else self._server.url
        self.url = self._fresh.enter_context(fresh_database(server_url))

    def close(self) -> None:
        self._fresh.close()

    def content(self) -> DatabaseContent:
        with psycopg.connect(self.url) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            return _content(connection, "inforce.")

    def save_copy(self, folder: Path) -> str:
        program = shutil.which("pg_dump")
        if isinstance(self._server, RestartablePostgres):
            program = str(self._server.cluster.programs / "pg_dump")
        if program is None:
            return "there is no copy of the database, because there is no pg_dump"
        dump = folder / "ledger.sql"
        subprocess.run([program, "--file", dump, self.url], check=True, capture_output=True)
        return f"the ledger is {dump}, for psql to load into an empty database"

    def terminate_connections(self, count: int | None) -> None:
        terminate_backends(self.url, count)

    def restart(self, mode: StopMode, pause_s: float) -> None:
        assert isinstance(self._server, RestartablePostgres)
        self._server.restart(mode, pause_s=pause_s)


def _content(connection: Any, schema: str) -> DatabaseContent:
    rows = connection.execute(f"{EVENTS.format(schema)} ORDER BY position").fetchall()
    keys = connection.execute(KEYS.format(schema)).fetchall()
    personal = connection.execute(PERSONAL.format(schema)).fetchall()
    return DatabaseContent(
        [StoredEvent(*row)._replace(leaf=bytes(row[4]), leaf_hash=bytes(row[6])) for row in rows],
        sorted(StoredKey(row[0], row[1], bytes(row[2]), *row[3:]) for row in keys),
        {position: (bytes(salt), content) for position, salt, content in personal},
    )
