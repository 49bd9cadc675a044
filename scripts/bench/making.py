"""Large ledgers, made at the speed of the database, in the order of their positions (see `leaves` for their text).

A second process writes the text while this one inserts it. Indexes grow at random places, so SQLite gets a large cache
for it; nothing waits for the disk before the end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any, Final

from ledger.append.submissions import parse_submissions
from ledger.clock import ManualClock
from ledger.codec import SOURCE_PREFIX
from ledger.events import SettingChanged
from ledger.opening import open_ledger, sqlite_path
from ledger.recorders.sqlite_schema import COLUMNS
from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT
from ledger.times import DAY
from scripts.bench.leaves import ACTOR, Row, rows, rows_of_child
from scripts.bench.population import BEGIN, MODELS, ROUNDS, Population

Tell = Callable[[int], None]
"""Told the events that are made."""

_CACHE_KIB: Final = 1_000_000
_TOLD_EVERY: Final = 50_000
_CHILD_SUBJECTS_MIN: Final = 20_000
"""With fewer, starting a process takes longer than it saves."""


def make(url: str, subjects: int, tell: Tell, rounds: int = ROUNDS) -> Population:
    """A ledger of `subjects` (a multiple of ten) with `rounds` events each, in the empty database at `url`."""
    with open_ledger(url, create=True, clock=ManualClock(BEGIN - DAY)) as ledger:
        ledger.submit(parse_submissions({"events": list(_models())}), actor=ACTOR)
        population = Population(subjects, ledger.head().position, rounds)
        written = rows_of_child if subjects >= _CHILD_SUBJECTS_MIN else rows
        made_rows = _told(written(population, SOURCE_PREFIX + ledger.origin), tell)
        if not url.startswith("sqlite:"):
            _copy(ledger, made_rows)
            return population
    _insert(url, made_rows)
    return population


def made(url: str, rounds: int = ROUNDS) -> Population:
    """The population of a ledger that `make` made."""
    with open_ledger(url) as ledger:
        before = len(ledger.stream(CATALOG_SUBJECT)) + 2 * MODELS
        return Population((ledger.head().position - before) // rounds, before, rounds)


def _models() -> Iterator[dict[str, Any]]:
    for number in range(MODELS):
        hosting = "hosted" if number % 3 else "passthrough"
        yield _changed(f"model:m{number}", "model.hosting", hosting)
        yield _changed(f"model:m{number}", "model.provider", "Orbital")


def _changed(subject: str, setting: str, value: str) -> dict[str, Any]:
    return {"type": SettingChanged.TOPIC, "subject": subject, "setting": setting, "value": value}


def _told(made_rows: Iterable[Row], tell: Tell) -> Iterator[Row]:
    for number, row in enumerate(made_rows, 1):
        yield row
        if number % _TOLD_EVERY == 0:
            tell(number)


def _insert(url: str, made_rows: Iterator[Row]) -> None:
    path, _ = sqlite_path(url)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # One transaction that only ever appends needs no way back: what is cut off here is thrown away.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE", f"cache_size=-{_CACHE_KIB}"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        guards = connection.execute(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'events' AND sql LIKE '%INSERT%'"
        ).fetchall()
        connection.execute("BEGIN")
        for name, _sql in guards:
            connection.execute(f"DROP TRIGGER {name}")
        connection.executemany(f"INSERT INTO events ({COLUMNS}) VALUES (?,?,?,?,?,?,?)", made_rows)  # noqa: S608 - a name of our own
        for _name, sql in guards:
            connection.execute(sql)
        connection.execute("COMMIT")
        connection.execute("PRAGMA locking_mode=NORMAL").fetchall()
        connection.execute("PRAGMA journal_mode=WAL").fetchall()


def _copy(ledger: Ledger, made_rows: Iterator[Row]) -> None:
    with ledger.recorder.transaction(commit=True) as cursor:
        with cursor.copy(f"COPY inforce.events ({COLUMNS}) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int8", "text", "int8", "text", "bytea", "int8", "bytea"])
            for row in made_rows:
                copy.write_row(row)
        cursor.execute("ANALYZE inforce.events")
