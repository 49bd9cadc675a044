"""A ledger with one random change on the disk answers as before, or says that it is damaged: never wrongly in silence.

On SQLite a byte of the file or of its log changes, on PostgreSQL a bit of a column, with the triggers off.
`./scripts/test tests/faults/test_corruption.py --corruptions 2000` makes so many copies of each kind, with a new seed;
`--corruption-seed` repeats a seed. A failure names the seed and the change.
"""

from __future__ import annotations

import shutil
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random
from secrets import randbelow
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql

from ledger.clock import ManualClock
from ledger.opening import open_ledger
from projections.timelines.projector import Projector
from projections.timelines.store import open_timelines
from tests.faults.corruption import STEP, answers, fill, flip_a_bit_of_a_column, flip_a_byte, make, silent
from tests.support.ledgers import NOW, ORIGIN

SEED: Final = 1
FILES: Final = 150
LOGS: Final = 50
COLUMNS: Final = 50


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The same on every ordinary run, so that a failure comes from the change."""
    named: int | None = request.config.getoption("--corruption-seed")
    if named is not None:
        return named
    return SEED if request.config.getoption("--corruptions") is None else randbelow(1_000_000)


def copies(request: pytest.FixtureRequest, usually: int) -> range:
    named: int | None = request.config.getoption("--corruptions")
    return range(usually if named is None else named)


class Outcomes:
    def __init__(self, seed: int, right: dict[str, object]) -> None:
        self._seed = seed
        self._right = right
        self._count: Counter[str] = Counter()

    def add(self, number: int, harm: str, given: dict[str, object]) -> None:
        wrong = silent(self._right, given)
        assert not wrong, f"seed {self._seed}, copy {number}: after {harm} was changed, wrong in silence: {wrong[:3]}"
        self._count["as before" if given == self._right else "refused"] += 1

    def __str__(self) -> str:
        return f"seed {self._seed}: " + ", ".join(f"{number} {how}" for how, number in sorted(self._count.items()))


def _copy(made: Path, copy: Path) -> None:
    for file in made.parent.glob(f"{made.name}*"):
        shutil.copy(file, copy.with_name(copy.name + file.name[len(made.name) :]))


def _delete(copy: Path) -> None:
    for file in copy.parent.glob(f"{copy.name}*"):
        file.unlink()


def test_a_changed_byte_of_the_file_is_never_answered_from_in_silence(
    request: pytest.FixtureRequest, tmp_path: Path, seed: int, record_property: Any
) -> None:
    made, copy = tmp_path / "made.db", tmp_path / "copy.db"
    now = make(f"sqlite:///{made}")
    _copy(made, copy)
    outcomes = Outcomes(seed, answers(f"sqlite:///{copy}", now))
    for number in copies(request, FILES):
        _delete(copy)
        _copy(made, copy)
        outcomes.add(number, flip_a_byte(copy, Random(f"{seed} {number}")), answers(f"sqlite:///{copy}", now))
    record_property("figure", f"changed bytes of a SQLite file, {outcomes}")


def test_a_changed_byte_of_the_log_is_never_answered_from_in_silence(
    request: pytest.FixtureRequest, tmp_path: Path, seed: int, record_property: Any
) -> None:
    """As a server that was killed leaves it: nothing was moved from the log to the file."""
    clock = ManualClock(NOW)
    live, made, copy = tmp_path / "live.db", tmp_path / "made" / "made.db", tmp_path / "copy.db"
    made.parent.mkdir()
    with open_ledger(f"sqlite:///{live}", create=True, clock=clock, origin=ORIGIN) as ledger:
        fill(ledger, clock)
        Projector(ledger, open_timelines(ledger)).catch_up()
        for suffix in ("", "-wal", "-head"):
            shutil.copy(f"{live}{suffix}", f"{made}{suffix}")
    now = clock.now_us + STEP
    _copy(made, copy)
    outcomes = Outcomes(seed, answers(f"sqlite:///{copy}", now))
    for number in copies(request, LOGS):
        _delete(copy)
        _copy(made, copy)
        log = copy.with_name("copy.db-wal")
        outcomes.add(number, flip_a_byte(log, Random(f"{seed} {number}")), answers(f"sqlite:///{copy}", now))
    record_property("figure", f"changed bytes of a SQLite log, {outcomes}")


@pytest.fixture
def template(postgres_url: str) -> tuple[str, int]:
    return postgres_url, make(postgres_url)


def test_a_changed_bit_of_a_column_is_never_answered_from_in_silence(
    request: pytest.FixtureRequest, template: tuple[str, int], seed: int, record_property: Any
) -> None:
    url, now = template
    with closing(psycopg.connect(url)) as connection:
        name, copy_name = connection.info.dbname, f"{connection.info.dbname}_copy"
    administration = psycopg.conninfo.make_conninfo(url, dbname="postgres")
    copy = url.replace(name, copy_name)
    assert copy != url

    def recreate() -> None:
        with psycopg.connect(administration, autocommit=True) as connection:
            drop, create = (
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(copy_name)),
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(copy_name), sql.Identifier(name)),
            )
            connection.execute(drop)
            connection.execute(create)

    try:
        recreate()
        outcomes = Outcomes(seed, answers(copy, now))
        for number in copies(request, COLUMNS):
            recreate()
            outcomes.add(number, flip_a_bit_of_a_column(copy, Random(f"{seed} {number}")), answers(copy, now))
        record_property("figure", f"changed bits of PostgreSQL's columns, {outcomes}")
    finally:
        with psycopg.connect(administration, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(copy_name)))
