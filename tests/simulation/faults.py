"""Faults that a simulation causes and ends at a chosen step. The ledger must answer right or 503, and recover.

Each fault is a context manager over a database URL. Clients do not know of it, and after it the database is as before.
"""

import resource
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

Fault = Callable[[str], AbstractContextManager[None]]


# SQLite


@contextmanager
def disk_full(url: str) -> Iterator[None]:
    """No file can grow: every write beyond the end of a file fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores SIGXFSZ, so the write fails and the process goes on.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def write_lock_held(url: str) -> Iterator[None]:
    """Another program holds the write lock of the file, longer than any timeout."""
    with closing(sqlite3.connect(sqlite_file(url), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def sqlite_file(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


# PostgreSQL


@contextmanager
def backends_terminated(url: str) -> Iterator[None]:
    """Terminates every session of the database, as a restart of the server or of a proxy does."""
    terminate(url)
    yield


@contextmanager
def killed_before_commit(url: str) -> Iterator[None]:
    """Terminates a session that has inserted events, before it commits."""
    with _trigger(url, "CREATE TRIGGER simulated_fault AFTER INSERT ON inforce.events FOR EACH STATEMENT"):
        yield


@contextmanager
def killed_at_commit(url: str) -> Iterator[None]:
    """Terminates a session that has inserted events, while it commits."""
    deferred = "CREATE CONSTRAINT TRIGGER simulated_fault AFTER INSERT ON inforce.events DEFERRABLE INITIALLY DEFERRED"
    with _trigger(url, f"{deferred} FOR EACH ROW"):
        yield


@contextmanager
def _trigger(url: str, create: str) -> Iterator[None]:
    with psycopg.connect(url, autocommit=True, application_name="fault") as admin:
        admin.execute(
            "CREATE OR REPLACE FUNCTION public.simulated_fault() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(10); RETURN NULL; END'"
        )
        admin.execute(f"{create} EXECUTE FUNCTION public.simulated_fault()".encode())
        try:
            yield
        finally:
            admin.execute("DROP TRIGGER simulated_fault ON inforce.events")


@contextmanager
def read_only(url: str) -> Iterator[None]:
    """The database refuses writes, as a hot standby does."""
    with setting(url, "default_transaction_read_only", "on"):
        yield


@contextmanager
def append_lock_held(url: str) -> Iterator[None]:
    """Another session holds the append lock, and the database limits how long a session may wait."""
    with setting(url, "lock_timeout", "20ms"), append_locked(url):
        yield


@contextmanager
def append_locked(url: str) -> Iterator[None]:
    with psycopg.connect(url, application_name="fault") as other:
        # Every writer needs one of these locks first.
        other.execute("SELECT pg_advisory_xact_lock(key) FROM unnest(%s::bigint[]) AS key", (ADVISORY_LOCKS,))
        other.execute("LOCK TABLE inforce.events IN SHARE ROW EXCLUSIVE MODE")
        yield
        other.rollback()


ADVISORY_LOCKS = [0x494E464F52434501]
"""The append lock."""


@contextmanager
def setting(url: str, name: str, value: str) -> Iterator[None]:
    """Sets a parameter of the whole database and terminates all sessions, so that it applies to every session."""
    database = sql.Identifier(database_of(url))
    with psycopg.connect(url, autocommit=True, application_name="fault") as admin:
        # This session resets the parameter later.
        admin.execute("SET default_transaction_read_only = off")
        admin.execute(
            sql.SQL("ALTER DATABASE {} SET {} = {}").format(database, sql.Identifier(name), sql.Literal(value))
        )
        terminate(url)
        try:
            yield
        finally:
            admin.execute(sql.SQL("ALTER DATABASE {} RESET {}").format(database, sql.Identifier(name)))
            terminate(url)


def database_of(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


def terminate(url: str) -> None:
    """Terminates every session of the database except those of faults, and waits until they are gone."""
    others = "FROM pg_stat_activity WHERE datname = current_database() AND application_name <> 'fault'"
    with psycopg.connect(url, autocommit=True, application_name="fault") as admin:
        # Not the timeout of pg_terminate_backend: it polls only ten times a second.
        while admin.execute(f"SELECT pg_terminate_backend(pid) {others}".encode()).rowcount:
            time.sleep(0.005)
