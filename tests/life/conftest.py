"""A stored ledger of each release, on each database; and formats that do not exist yet."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest

from ledger.opening import sqlite_path
from ledger.recorders import postgres_schema, sqlite_schema
from projections.timelines.projector import Projector
from projections.timelines.store import open_timelines
from tests.life.stored import RELEASES, Stored
from tests.support.ledgers import change, key, open_with_clock, submit


@pytest.fixture(params=RELEASES)
def stored(request: pytest.FixtureRequest) -> Stored:
    return Stored(request.param)


@pytest.fixture
def stored_url(stored: Stored, database_url: str) -> str:
    return stored.put(database_url)


class Ahead(Protocol):
    def __call__(self, *steps: Iterable[str]) -> None: ...


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> Ahead:
    """`ahead(("CREATE TABLE {}more (x integer)",))`: from now on this inforce has one more format for each step. `{}`
    stands for the schema before a table's name."""

    def invent(*steps: Iterable[str]) -> None:
        for module, prefix in ((sqlite_schema, ""), (postgres_schema, "inforce.")):
            known: Any = module
            more = tuple(tuple(statement.format(prefix) for statement in step) for step in steps)
            monkeypatch.setattr(known, "STEPS", known.STEPS + more)
            monkeypatch.setattr(known, "FORMAT", len(known.STEPS))

    return invent


def ask(url: str, statement: str) -> list[tuple[Any, ...]]:
    """The database's answer; `{}` as above."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(sqlite_path(url)[0])) as file:
            return file.execute(statement.format("")).fetchall()
    with psycopg.connect(url) as server:
        return server.execute(statement.format("inforce.").encode()).fetchall()


def format_of(url: str) -> int:
    if url.startswith("sqlite"):
        return int(ask(url, "PRAGMA user_version")[0][0])
    return int(ask(url, "SELECT value FROM {}ledger_meta WHERE name = 'format'")[0][0])


def format_today(url: str) -> int:
    return sqlite_schema.FORMAT if url.startswith("sqlite") else postgres_schema.FORMAT


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a closed ledger with 20 changes, a reason, a key and stored timelines."""
    path = tmp_path / "ledger.db"
    ledger, clock = open_with_clock(f"sqlite:///{path}")
    with ledger:
        submit(ledger, change(reason="for the auditor"), idempotency=key("first"))
        for number in range(19):
            clock.now_us += 1
            submit(ledger, change(f"org:{number}", number % 2 == 0))
        Projector(ledger, open_timelines(ledger)).catch_up()
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "backups").mkdir()
    return tmp_path / "backups" / "copy.db"
