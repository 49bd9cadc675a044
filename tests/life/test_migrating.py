"""Migrating from one format of the tables to the next: each step whole or not at all, and only once."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import psycopg
import pytest

from ledger.errors import LedgerCorrupt, LedgerUnavailable, NotALedger
from ledger.opening import open_ledger
from ledger.recorders import postgres_schema, sqlite_schema
from ledger.recorders.postgres_functions import APPEND_LOCK
from tests.life.conftest import Ahead, ask, format_of, format_today
from tests.support.ledgers import GENESIS, change, submit
from tests.support.waiting import GIVE_UP_S

PROOF = "CREATE TABLE {}proof (step integer)"
WRITTEN = "INSERT INTO {}proof VALUES (%d)"
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def ledger_url(database_url: str) -> str:
    """A ledger of today's format."""
    with open_ledger(database_url, create=True) as ledger:
        submit(ledger, change(reason="kept"))
    return database_url


def proof(url: str) -> list[int]:
    return [step for (step,) in ask(url, "SELECT step FROM {}proof ORDER BY step")]


def test_the_steps_between_are_taken_in_order(ledger_url: str, ahead: Ahead) -> None:
    today = format_today(ledger_url)
    ahead((PROOF, WRITTEN % 1), (WRITTEN % 2,))
    with open_ledger(ledger_url) as ledger:
        assert ledger.head().position == GENESIS + 1
        submit(ledger, change())
    assert (proof(ledger_url), format_of(ledger_url)) == ([1, 2], today + 2)
    open_ledger(ledger_url).close()
    assert proof(ledger_url) == [1, 2]


def test_a_new_ledger_goes_through_the_same_steps(database_url: str, ahead: Ahead) -> None:
    ahead((PROOF, WRITTEN % 1), (WRITTEN % 2,))
    open_ledger(database_url, create=True).close()
    assert proof(database_url) == [1, 2]
    assert format_of(database_url) == format_today(database_url)


def test_a_failed_step_leaves_the_format_before_it_intact(ledger_url: str, ahead: Ahead) -> None:
    today = format_today(ledger_url)
    ahead((PROOF, WRITTEN % 1), (WRITTEN % 2, "CREATE TABLE {}proof (step integer)"))
    for _ in range(2):
        with pytest.raises(LedgerCorrupt) as refused:
            open_ledger(ledger_url)
        assert "\n" not in refused.value.detail
        assert (proof(ledger_url), format_of(ledger_url)) == ([1], today + 1)
    assert ask(ledger_url, "SELECT count(*) FROM {}events") == [(GENESIS + 1,)]


def test_processes_that_open_it_at_once_take_each_step_once(ledger_url: str, ahead: Ahead) -> None:
    today = format_today(ledger_url)
    ahead((PROOF, WRITTEN % 1), (WRITTEN % 2,), (WRITTEN % 3,))
    together = Barrier(6)

    def opened(number: int) -> int:
        together.wait()
        with open_ledger(ledger_url) as ledger:
            return submit(ledger, change(f"org:{number}"))[0].position

    with ThreadPoolExecutor(6) as threads:
        positions = sorted(threads.map(opened, range(6)))
    assert positions == list(range(GENESIS + 2, GENESIS + 8))
    assert (proof(ledger_url), format_of(ledger_url)) == ([1, 2, 3], today + 3)


KILLED = """
import sys
from ledger.opening import open_ledger
from ledger.recorders import postgres_schema, sqlite_schema
from ledger.recorders.postgres_functions import APPEND_LOCK

class Step:
    def __init__(self, prefix):
        self.prefix = prefix
    def __iter__(self):
        yield f"CREATE TABLE {self.prefix}proof (step integer)"
        yield f"INSERT INTO {self.prefix}proof VALUES (1)"
        print("in the middle", flush=True)
        sys.stdin.readline()

for module, prefix in ((sqlite_schema, ""), (postgres_schema, "inforce.")):
    module.STEPS += (Step(prefix),)
    module.FORMAT += 1
open_ledger(sys.argv[1])
"""


@pytest.fixture
def in_the_middle(ledger_url: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has done half of a step and waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, ledger_url],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "in the middle\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_killed_migration_leaves_the_old_format_intact(
    ledger_url: str, in_the_middle: subprocess.Popen[str], ahead: Ahead
) -> None:
    today = format_today(ledger_url)
    in_the_middle.kill()
    in_the_middle.wait()
    assert format_of(ledger_url) == today
    with open_ledger(ledger_url) as ledger:
        submit(ledger, change())
    ahead((PROOF, WRITTEN % 1))
    open_ledger(ledger_url).close()
    assert (proof(ledger_url), format_of(ledger_url)) == ([1], today + 1)


def test_readers_of_the_old_format_continue_meanwhile(ledger_url: str, in_the_middle: subprocess.Popen[str]) -> None:
    with open_ledger(ledger_url) as ledger:
        assert len(ledger.page(0)) == GENESIS + 1


# Without write access


@pytest.fixture
def unwritable(ledger_url: str) -> str:
    if ledger_url.startswith("sqlite"):
        return f"{ledger_url}?mode=ro"
    return f"{ledger_url}{'&' if '?' in ledger_url else '?'}options=-cdefault_transaction_read_only%3Don"


def test_an_older_format_is_read_without_migration(ledger_url: str, unwritable: str, ahead: Ahead) -> None:
    today = format_today(ledger_url)
    ahead((PROOF,))
    with open_ledger(unwritable) as ledger:
        assert len(ledger.page(0)) == GENESIS + 1
    assert format_of(ledger_url) == today


def test_an_unreadable_older_format_is_refused_with_advice(
    ledger_url: str, unwritable: str, ahead: Ahead, monkeypatch: pytest.MonkeyPatch
) -> None:
    today = format_today(ledger_url)
    ahead((PROOF,), (WRITTEN % 2,))
    for module in (sqlite_schema, postgres_schema):
        monkeypatch.setattr(module, "READS_FROM", module.FORMAT)
    with pytest.raises(NotALedger) as refused:
        open_ledger(unwritable)
    for part in (f"format {today},", f"format {today + 2}", "open it once"):
        assert part in refused.value.detail
    assert "\n" not in refused.value.detail
    assert format_of(ledger_url) == today
    open_ledger(ledger_url).close()
    open_ledger(unwritable).close()


def test_other_errors_do_not_fall_back_to_the_old_format(ledger_url: str, ahead: Ahead) -> None:
    ahead(("SELECT * FROM {}nothing_of_that_name",))
    with pytest.raises(LedgerUnavailable):
        open_ledger(ledger_url)


def test_the_format_numbers_are_those_of_the_steps() -> None:
    for module in (sqlite_schema, postgres_schema):
        assert len(module.STEPS) == module.FORMAT >= module.READS_FROM >= 1


def test_a_step_waits_for_the_append_lock(postgres_url: str, ahead: Ahead) -> None:
    open_ledger(postgres_url, create=True).close()
    ahead((PROOF, WRITTEN % 1))
    with ThreadPoolExecutor(1) as thread, psycopg.connect(postgres_url) as appending:
        appending.execute(f"SELECT pg_advisory_xact_lock({APPEND_LOCK})".encode())
        opening = thread.submit(lambda: open_ledger(postgres_url).close())
        waits = (
            "SELECT count(*) FROM pg_locks JOIN pg_database ON database = pg_database.oid"
            " WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted"
        )
        until(lambda: ask(postgres_url, waits) == [(1,)])
        assert format_of(postgres_url) == postgres_schema.FORMAT - 1
        appending.rollback()
        opening.result(30)
    assert proof(postgres_url) == [1]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + GIVE_UP_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
