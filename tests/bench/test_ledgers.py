"""A generated ledger equals one built by submissions; a kept ledger is used again; an interrupt leaves nothing."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path
from random import Random
from typing import TypeVar

import pytest

from ledger.opening import open_ledger
from ledger.transfer.export import export_lines
from projections.query.query import Query
from scripts.bench.event_rows import event_rows, event_rows_of_child
from scripts.bench.ledgers import generate_ledger, population_of
from scripts.bench.population import END, FAMILY, ROUNDS, Population, subjects_for
from scripts.bench.processes import module_environment
from scripts.bench.requests import records_of_keys
from scripts.main import cli
from tests.support.ledgers import GENESIS
from tests.support.transfers import entries, import_lines
from tests.support.waiting import GIVE_UP_S

Value = TypeVar("Value")
BEFORE = GENESIS + 20
"""The events of the catalog and of the models, before those of the population."""
SIZES = {"replay": f'"events": {3000 + BEFORE},', "memory": '"subjects": 300'}
SUBJECTS = 220


@pytest.fixture
def generated_url(database_url: str) -> str:
    generate_ledger(database_url, SUBJECTS)
    return database_url


def test_an_import_that_verifies_every_line_accepts_the_generated_ledger(generated_url: str, tmp_path: Path) -> None:
    with open_ledger(generated_url) as ledger:
        lines = b"".join(export_lines(ledger))
    summary = import_lines(f"sqlite:///{tmp_path}/restored.db", lines)
    assert summary.events == BEFORE + SUBJECTS * ROUNDS
    assert entries(f"sqlite:///{tmp_path}/restored.db") == entries(generated_url)


def test_it_has_every_kind_of_change(generated_url: str) -> None:
    events = entries(generated_url)
    topics = Counter(entry.topic for entry in events)
    assert set(topics) == {"setting.defined", "setting.changed", "setting.cleared", "change.retracted"}
    assert min(topics.values()) >= 10
    leaves = [entry.leaf for entry in events]
    assert any(b'"effective_until":"' in leaf for leaf in leaves), "a change with an end"
    times = Counter(entry.recorded_at for entry in events[BEFORE:])
    assert set(times.values()) == {1}, "each event is its own submission"
    assert max(times) < END
    versions = Counter(entry.subject for entry in events[BEFORE:])
    assert set(versions.values()) == {ROUNDS}
    assert len(versions) == SUBJECTS


def test_it_has_the_triggers_of_any_ledger(tmp_path: Path) -> None:
    schemas = []
    for name, create in (("generated", lambda url: generate_ledger(url, SUBJECTS)), ("empty", create_ledger)):
        create(f"sqlite:///{tmp_path}/{name}.db")
        with closing(sqlite3.connect(tmp_path / f"{name}.db")) as connection:
            schemas.append(connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall())
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert schemas[0] == schemas[1]


def create_ledger(url: str) -> None:
    open_ledger(url, create=True).close()


def test_the_population_is_read_back_from_the_ledger(generated_url: str) -> None:
    assert population_of(generated_url) == Population(SUBJECTS, BEFORE)


def test_each_subject_has_one_event_for_each_round(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/generated.db"
    assert generate_ledger(url, SUBJECTS, 5) == population_of(url, 5) == Population(SUBJECTS, BEFORE, 5)
    versions = Counter(entry.subject for entry in entries(url)[BEFORE:])
    assert set(versions.values()) == {5}
    assert len(versions) == SUBJECTS


def test_its_requests_resolve_a_key_to_the_governing_organization(generated_url: str) -> None:
    population = population_of(generated_url)
    with open_ledger(generated_url) as ledger:
        query = Query(ledger)
        records = records_of_keys(range(population.families), 50, Random(1))
        outcomes = [query.check(record).outcome for record in records]
    for outcome in outcomes:
        assert outcome.governed_by.subject is not None
        assert outcome.governed_by.subject.startswith("org:")
        # Six settings of the governing subject, and any of the model and of the key.
        assert len(outcome.evidence) > 6


@pytest.mark.parametrize("rounds", [ROUNDS, 5])
def test_another_process_generates_the_same_rows(rounds: int) -> None:
    population = Population(SUBJECTS, BEFORE, rounds)
    assert list(event_rows_of_child(population, "urn:inforce:x")) == list(event_rows(population, "urn:inforce:x"))


def test_the_generating_process_ends_with_its_reader() -> None:
    reading = event_rows_of_child(Population(subjects_for(10_000_000), BEFORE), "urn:inforce:x")
    assert [row[0] for row in islice(reading, 3)] == [BEFORE + 1, BEFORE + 2, BEFORE + 3]
    (child,) = children_of(os.getpid(), "scripts.bench.event_rows")
    reading.close()
    assert not Path(f"/proc/{child}").exists()


@pytest.mark.parametrize("events", [1, 1000, 7919 * 100, 10_000_000])
def test_the_order_visits_every_subject_once_a_round(events: int) -> None:
    subjects = subjects_for(events)
    assert subjects % FAMILY == 0
    assert abs(subjects * ROUNDS - events) <= ROUNDS * FAMILY
    if subjects <= 100_000:
        visited = {event.subject for event in islice(Population(subjects, 0).generate(), subjects)}
        assert len(visited) == subjects


def test_a_kept_ledger_is_used_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work, keep = tmp_path / "work", tmp_path / "keep"
    work.mkdir()
    keep.mkdir()
    origins = []
    for suite in ("replay", "memory"):
        sized = ("--events", "3000", "--keep", str(keep))
        with pytest.raises(SystemExit) as ended:
            cli.main(["bench", suite, "--quick", "--folder", str(work), "--format", "json", *sized])
        output = capsys.readouterr()
        assert ended.value.code == 0, output.err
        assert SIZES[suite] in output.out
        (ledger_path,) = keep.glob("*.db")
        with open_ledger(f"sqlite:///{ledger_path}") as ledger:
            origins.append(ledger.origin)
    assert origins[0] == origins[1]
    assert sorted(path.suffix for path in keep.iterdir()) == [".db", ".db-head"]
    assert list(work.iterdir()) == []


def test_only_sqlite_ledgers_are_kept(tmp_path: Path, postgres_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", "replay", "--quick", "--db", postgres_url, "--keep", str(tmp_path)])
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip() == "inforce: --keep keeps SQLite files; leave it out with --db"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_server_and_no_file(tmp_path: Path, number: signal.Signals) -> None:
    bench = start_bench(tmp_path)
    servers = wait_for(lambda: children_of(bench.pid, "scripts.bench.server"))
    bench.send_signal(number)
    _, errors = bench.communicate(timeout=GIVE_UP_S)
    assert bench.returncode == 128 + number, errors
    assert b"Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
    assert not [server for server in servers if Path(f"/proc/{server}").exists()]


def test_a_server_does_not_outlive_a_killed_bench(tmp_path: Path) -> None:
    bench = start_bench(tmp_path)
    servers = wait_for(lambda: children_of(bench.pid, "scripts.bench.server"))
    bench.kill()
    bench.communicate(timeout=GIVE_UP_S)
    wait_for(lambda: not [server for server in servers if is_running(server)])


def start_bench(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.main", "bench", "http", "--folder", str(folder)],
        env=module_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def children_of(pid: int, module: str) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if module.encode() in command_line(child)]


def command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    # A process that ended stays a zombie until its new parent waits for it.
    return state != "Z"


def wait_for(look: Callable[[], Value]) -> Value:
    for _ in range(1200):
        value = look()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError("the condition did not hold within a minute")
