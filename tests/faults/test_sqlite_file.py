"""Other programs hold the file's lock, die or freeze with it, read for hours, move the file or delete it."""

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
from tests.faults.server import Callers, ServerProcess, run_server, training
from tests.support.ledgers import change, submit
from tests.support.programs import start_programs
from tests.support.questions import NOON
from tests.support.waiting import until

Figure = Callable[[str, object], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


def seconds_of_a_query(server: ServerProcess) -> float:
    began = time.monotonic()
    assert server.ask("POST", "/v1/checks", {"org_id": "acme"}).status == 200
    return time.monotonic() - began


def test_another_program_freezes_with_the_write_lock_and_dies(url: str, record_property: Figure) -> None:
    """Stopped by SIGSTOP, it holds the lock longer than any timeout; after SIGKILL the lock is free."""
    with run_server(url) as server:
        assert server.submit(training("org:acme", True)).status == 201
        # Projects the event before the lock is held, because projecting writes.
        assert server.ask("POST", "/v1/checks", {"org_id": "acme"}).status == 200
        with start_programs(("hold", url)) as (holder,):
            assert holder.stdout is not None
            assert holder.stdout.readline() == "holding\n"
            os.kill(holder.pid, signal.SIGSTOP)
            with Callers(server) as callers:
                callers.wait_for(503, 2)
                # A query that waits for the writer takes five seconds each time; a busy machine is quicker at times.
                until(lambda: seconds_of_a_query(server) < 4)
                holder.kill()
                holder.wait()
                callers.expect_progress()
        callers.assert_nothing_lost(url)
    record_property("figure", f"faults: SQLite's write lock held by a frozen process: answers {dict(callers.answers)}")


def test_the_write_ahead_log_grows_only_while_a_long_read_lasts(path: Path, url: str, record_property: Figure) -> None:
    wal = path.with_name("ledger.db-wal")
    clock = ManualClock(NOON)
    with open_ledger(url, create=True, clock=clock) as ledger:
        query = Query(ledger)

        def write(events: int) -> int:
            """Returns the size of the log afterwards."""
            for number in range(events):
                submit(ledger, change("org:acme", number % 2 == 0, reason="x" * 1500))
            assert query.state("org:acme", at=clock.now_us + events).position == ledger.head().position
            return wal.stat().st_size

        write(300)
        settled = write(300)
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            (before,) = reader.execute("SELECT count(*) FROM events").fetchone()
            blocked = write(600)
            # The reader still sees its own snapshot, and blocks no writer.
            assert reader.execute("SELECT count(*) FROM events").fetchone() == (before,)
        write(100)
        assert write(600) < 1.1 * blocked, "the log still grows"
    assert blocked > settled
    assert not wal.exists(), "closing the last connection removes the log"
    record_property("figure", f"faults: WAL {settled:,} B, {blocked:,} B under a reader of 600 submissions")


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
def test_a_missing_or_replaced_file_refuses_submissions(path: Path, url: str, how: str) -> None:
    """Events written to a deleted file would be lost with the process. So nothing is acknowledged, and no other file is
    created or written. Once the file is back, the ledger works again."""
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
        # Twice: the first attempt may still find the write-ahead log, the second may not.
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


def test_a_server_whose_file_was_replaced_writes_to_neither_file(path: Path, url: str) -> None:
    """As when an operator puts a backup in the place of a running server's file. A restart serves the new file, and
    records nothing: the position that was lost with the old one was acknowledged."""
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
        refused = server.submit(training("org:acme", False)).unavailable()
        assert (refused["code"], refused["remembered_position"]) == ("ledger_went_back", position)
        assert server.ask("GET", "/readyz").unavailable()["code"] == "ledger_went_back"
        assert server.state("org:acme").body["position"] == position - 1
