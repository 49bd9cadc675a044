"""What other programs do to the file: hold its lock, die or freeze with it, read for hours, move it, delete it."""

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ledger.clock import ManualClock
from ledger.errors import LedgerUnavailable
from ledger.opening import open_ledger
from projections.query.query import Query
from tests.faults.server import Callers, run_server, training
from tests.support.ledgers import change, submit
from tests.support.programs import start_programs
from tests.support.questions import NOON

Figure = Callable[[str, object], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


def test_another_program_freezes_with_the_write_lock_and_dies(url: str, record_property: Figure) -> None:
    """Stopped with SIGSTOP, it holds the lock longer than anybody waits; killed, it leaves nothing behind."""
    with run_server(url) as server:
        assert server.submit(training("org:acme", True)).status == 201
        # What was not projected yet when the lock was taken could not be answered: projecting writes.
        assert server.ask("POST", "/v1/checks", {"org_id": "acme"}).status == 200
        with start_programs(("hold", url)) as (holder,):
            assert holder.stdout is not None
            assert holder.stdout.readline() == "holding\n"
            os.kill(holder.pid, signal.SIGSTOP)
            with Callers(server) as callers:
                callers.wait_for(503, 2)
                began = time.monotonic()
                assert server.ask("POST", "/v1/checks", {"org_id": "acme"}).status == 200
                assert time.monotonic() - began < 3, "who asks waits for a writer"
                holder.kill()
                holder.wait()
                callers.expect_progress()
        callers.assert_nothing_lost(url)
    record_property("figure", f"faults: SQLite's write lock held by a frozen process: answers {dict(callers.answers)}")


def test_a_reader_that_does_not_end_lets_the_write_ahead_log_grow_and_no_longer(
    path: Path, url: str, record_property: Figure
) -> None:
    wal = path.with_name("ledger.db-wal")
    clock = ManualClock(NOON)
    with open_ledger(url, create=True, clock=clock) as ledger:
        query = Query(ledger)

        def write(events: int) -> int:
            """Answers how large the log is then."""
            for number in range(events):
                submit(ledger, change("org:acme", number % 2 == 0, reason="x" * 1500))
            assert query.state("org:acme", at=clock.now_us + events).position == ledger.head().position
            return wal.stat().st_size

        write(300)
        settled = write(300)
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            (before,) = reader.execute("SELECT count(*) FROM events").fetchone()
            held_up = write(600)
            # It goes on seeing its own moment, and is in nobody's way.
            assert reader.execute("SELECT count(*) FROM events").fetchone() == (before,)
        write(100)
        assert write(600) < 1.1 * held_up, "the log goes on growing"
    assert held_up > settled
    assert not wal.exists(), "the last to close the file takes the log with it"
    record_property("figure", f"faults: WAL {settled:,} B, {held_up:,} B under a reader of 600 submissions")


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
def test_a_file_that_is_no_longer_there_takes_nothing(path: Path, url: str, how: str) -> None:
    """What would be written to it would be gone with the process: nothing is acknowledged, and no other file is made
    or written to in its place. Put back, it goes on."""
    away = path.with_name("away.db")
    other = path.with_name("other.db")
    with open_ledger(f"sqlite:///{other}", create=True):
        pass
    with open_ledger(url, create=True) as ledger:
        submit(ledger, change("org:acme", True))
        head = ledger.head()
        away.hardlink_to(path)
        path.unlink()
        if how == "replaced":
            other.rename(path)
        # With the log that belongs to it, or without.
        for _ in range(2):
            with pytest.raises(LedgerUnavailable, match="moved, deleted or replaced while it was in use"):
                submit(ledger, change("org:acme", False))
            with pytest.raises(LedgerUnavailable, match="moved, deleted or replaced"):
                ledger.head()
        assert path.exists() == (how == "replaced")
        away.replace(path)
        assert ledger.head() == head
        (receipt,) = submit(ledger, change("org:acme", False))
        assert receipt.position == head.position + 1


def test_a_server_whose_file_was_replaced_says_so_and_writes_to_neither(path: Path, url: str) -> None:
    """As when a backup is copied there without stopping it: restarted, it serves what is there."""
    backup = path.with_name("backup.db")
    with open_ledger(url, create=True) as ledger:
        submit(ledger, change("org:acme", True))
    backup.write_bytes(path.read_bytes())
    with run_server(url) as server:
        position = server.submit(training("org:acme", False)).body["position"]
        for part in ("", "-wal", "-shm"):
            path.with_name(path.name + part).unlink(missing_ok=True)
        backup.replace(path)
        before = path.read_bytes()
        server.submit(training("org:acme", False)).unavailable()
        server.ask("GET", "/readyz").unavailable()
        assert server.ask("GET", "/healthz").status == 200
        assert path.read_bytes() == before
    with run_server(url) as server:
        assert server.submit(training("org:acme", False)).body["position"] == position
