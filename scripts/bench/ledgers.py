"""Generates large ledgers at the speed of the database, and keeps them for later runs.

Rows go in without `submit`: an import of 10 million lines would take an hour. A second process generates the rows
while this one inserts them. Random inserts into the indexes need a large SQLite cache; nothing waits for the disk
before the end. Proved by tests/bench/test_ledgers.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from ledger.append.submissions import parse_submissions
from ledger.clock import ManualClock
from ledger.errors import BadInput
from ledger.opening import NOTE_SUFFIX, database_file, open_ledger, sqlite_path
from ledger.recorders.common import COLUMNS
from ledger.recorders.sqlite_place import COMPANIONS
from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT
from ledger.times import DAY
from projections.timelines.projector import Projector
from projections.timelines.rebuild.rebuild import WORKERS_EVENTS_MIN, rebuild
from projections.timelines.rebuild.workers import Workers, usual_processes
from projections.timelines.store import open_timelines
from scripts.bench.event_rows import EventRow, event_rows, event_rows_of_child
from scripts.bench.population import ACTOR, BEGIN, MODELS, ROUNDS, Population, setting_change, subjects_for
from scripts.bench.suite import SuiteContext
from scripts.cli.files import progress

_CACHE_KIB: Final = 1_000_000
_PROGRESS_EVERY: Final = 50_000
_CHILD_SUBJECTS_MIN: Final = 20_000
"""With fewer subjects, starting a process takes longer than it saves."""


def large_ledger(context: SuiteContext, events: int, rounds: int = ROUNDS) -> tuple[str, Population]:
    """A ledger of about `events` events, `rounds` for each subject: its URL and population. Raises `BadInput`."""
    subjects = subjects_for(events, rounds)
    if context.keep is None:
        url = context.databases.url()
        return url, generate_ledger(url, subjects, rounds)
    if context.databases.kind != "sqlite":
        raise BadInput("--keep keeps SQLite files; leave it out with --db")
    path = context.keep / f"inforce-bench-{subjects}-{rounds}.db"
    url = f"sqlite:///{path.absolute()}"
    if path.exists():
        return url, population_of(url, rounds)
    # The file gets its final name when it is complete, so that no later run uses half a ledger.
    unfinished = path.with_suffix(".unfinished")
    _remove(unfinished)
    try:
        population = generate_ledger(f"sqlite:///{unfinished.absolute()}", subjects, rounds)
        unfinished.rename(path)
    finally:
        _remove(unfinished)
    return url, population


def _remove(path: Path) -> None:
    for suffix in ("", *COMPANIONS, NOTE_SUFFIX):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def generate_ledger(url: str, subjects: int, rounds: int = ROUNDS) -> Population:
    """Fills the empty database at `url` with `subjects` (a multiple of ten), each with `rounds` events."""
    with open_ledger(url, create=True, clock=ManualClock(BEGIN - DAY)) as ledger:
        ledger.submit(parse_submissions({"events": list(_models())}), actor=ACTOR)
        population = Population(subjects, ledger.head().position, rounds)
        generate = event_rows_of_child if subjects >= _CHILD_SUBJECTS_MIN else event_rows
        rows = _with_progress(generate(population, ledger.source), population.events)
        if database_file(url) is None:
            _copy(ledger, rows)
            return population
    _insert(url, rows)
    return population


def population_of(url: str, rounds: int = ROUNDS) -> Population:
    """The population of a ledger that `generate_ledger` filled."""
    with open_ledger(url) as ledger:
        before = len(ledger.stream(CATALOG_SUBJECT)) + 2 * MODELS
        return Population((ledger.head().position - before) // rounds, before, rounds)


def project(url: str) -> None:
    """Brings the stored timelines up to date. A large ledger is rebuilt the first time, in a third of the time."""
    with open_ledger(url) as ledger:
        store = open_timelines(ledger)
        projector, head = Projector(ledger, store), ledger.head().position
        with progress(f"projecting {head:,} events", head) as tell:
            if head >= WORKERS_EVENTS_MIN and store.tracked() == 0:
                rebuild(projector, workers=Workers(url, usual_processes()), progress=lambda done, _: tell(done, ""))
            else:
                projector.catch_up()


def _models() -> Iterator[dict[str, Any]]:
    for number in range(MODELS):
        yield setting_change(f"model:m{number}", "model.hosting", "hosted" if number % 3 else "passthrough")
        yield setting_change(f"model:m{number}", "model.provider", "Orbital")


def _with_progress(rows: Iterable[EventRow], events: int) -> Iterator[EventRow]:
    with progress(f"generating a ledger of {events:,} events", events) as tell:
        for number, row in enumerate(rows, 1):
            yield row
            if number % _PROGRESS_EVERY == 0:
                tell(number, f"{number:,}")


def _insert(url: str, rows: Iterator[EventRow]) -> None:
    path, _ = sqlite_path(url)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # No journal: a file that is cut off here is thrown away.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE", f"cache_size=-{_CACHE_KIB}"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        guards = connection.execute(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'events' AND sql LIKE '%INSERT%'"
        ).fetchall()
        connection.execute("BEGIN")
        for name, _sql in guards:
            connection.execute(f"DROP TRIGGER {name}")
        connection.executemany(f"INSERT INTO events ({COLUMNS}) VALUES (?,?,?,?,?,?,?)", rows)  # noqa: S608 - our own names
        for _name, sql in guards:
            connection.execute(sql)
        connection.execute("COMMIT")
        connection.execute("PRAGMA locking_mode=NORMAL").fetchall()
        connection.execute("PRAGMA journal_mode=WAL").fetchall()


def _copy(ledger: Ledger, rows: Iterator[EventRow]) -> None:
    with ledger.recorder.transaction(commit=True) as cursor:
        with cursor.copy(f"COPY inforce.events ({COLUMNS}) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int8", "text", "int8", "text", "bytea", "int8", "bytea"])
            for row in rows:
                copy.write_row(row)
        cursor.execute("ANALYZE inforce.events")
