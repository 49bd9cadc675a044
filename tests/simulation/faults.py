"""Faults that a simulation can cause and undo at a chosen step: what the ledger must answer 503 to, and survive.

Each is a context manager over a database URL. Within it `Door`s are told nothing; behind it everything must be as it
was. Each comes with its own way of opening a door that does not wait long, where waiting is what the fault is about.
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
    """No file may grow: every write behind the end of any file fails, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python leaves SIGXFSZ ignored, so the write fails instead of the process.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def write_lock_held(url: str) -> Iterator[None]:
    """Another program writes to the file, and takes longer than anybody waits."""
    with closing(sqlite3.connect(sqlite_file(url), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def sqlite_file(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


# PostgreSQL


@contextmanager
def backends_terminated(url: str) -> Iterator[None]:
    """Every session of the database is ended, as when a server or a proxy restarts."""
    terminate(url)
    yield


@contextmanager
def killed_before_commit(url: str) -> Iterator[None]:
    """A session that has inserted events is ended before it can commit."""
    with _trigger(url, "CREATE TRIGGER simulated_fault AFTER INSERT ON inforce.events FOR EACH STATEMENT"):
        yield


@contextmanager
def killed_at_commit(url: str) -> Iterator[None]:
    """A session that has inserted events is ended while it commits."""
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
    """The database takes no writes, as a hot standby."""
    with setting(url, "default_transaction_read_only", "on"):
        yield


@contextmanager
def append_lock_held(url: str) -> Iterator[None]:
    """Another session holds the append lock, and the database lets nobody wait for a lock."""
    with setting(url, "lock_timeout", "20ms"), append_locked(url):
        yield


@contextmanager
def append_locked(url: str) -> Iterator[None]:
    with psycopg.connect(url, application_name="fault") as other:
        # Whatever the lock is: everything that writes asks for one of these first.
        other.execute("SELECT pg_advisory_xact_lock(key) FROM unnest(%s::bigint[]) AS key", (ADVISORY_LOCKS,))
        other.execute("LOCK TABLE inforce.events IN SHARE ROW EXCLUSIVE MODE")
        yield
        other.rollback()


ADVISORY_LOCKS = [0x494E464F52434501]
"""The append lock."""


@contextmanager
def setting(url: str, name: str, value: str) -> Iterator[None]:
    """A setting of the whole database, which every session has: there are none but new ones."""
    database = sql.Identifier(database_of(url))
    with psycopg.connect(url, autocommit=True, application_name="fault") as admin:
        # This session is the one that takes it back.
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
    """Ends every session of the database but those of faults, and waits until they are gone."""
    others = "FROM pg_stat_activity WHERE datname = current_database() AND application_name <> 'fault'"
    with psycopg.connect(url, autocommit=True, application_name="fault") as admin:
        # Not by its own timeout: it looks every tenth of a second.
        while admin.execute(f"SELECT pg_terminate_backend(pid) {others}".encode()).rowcount:
            time.sleep(0.005)
