"""The disk is full: in the middle of an append, a rebuild, an export, an import, a backup. Nothing is half-written,
nothing acknowledged is lost, and with room again everything goes on by itself."""

import os
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ledger.errors import LedgerUnavailable
from ledger.opening import open_ledger, open_recorder
from projections.query.query import Query
from projections.timelines.projector import Projector
from projections.timelines.rebuild.rebuild import rebuild
from projections.timelines.store import open_timelines
from tests.faults.disks import (
    MEGABYTE,
    can_mount_small_disks,
    files_no_larger_than,
    fill,
    on_small_disk,
    restart_on_small_disk,
    run_limited,
)
from tests.faults.server import Callers, assert_intact, run_server, training
from tests.support.command import CommandResult
from tests.support.ledgers import GENESIS, change, submit
from tests.support.postgres_restart import RestartablePostgres
from tests.support.random_history import assert_timelines

Figure = Callable[[str, object], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


# Append


def test_files_that_may_not_grow_under_load(url: str, record_property: Figure) -> None:
    with run_server(url) as server:
        with Callers(server) as callers:
            for _ in range(2):
                callers.expect_progress()
                with files_no_larger_than(0, server.process.pid):
                    callers.wait_for(503, 10)
                    server.submit(training("org:acme", True)).unavailable()
                    assert server.ask("GET", "/healthz").status == 200
                callers.expect_progress()
        callers.assert_nothing_lost(url)
    record_property("figure", f"faults: SQLite with no room to write: answers {dict(callers.answers)}")


def test_a_full_file_system_under_load(tmp_path: Path, record_property: Figure) -> None:
    """A real one, of two megabytes, filled to its last block."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not can_mount_small_disks(folder):
        pytest.skip("no file system can be mounted here: neither root with CAP_SYS_ADMIN nor user namespaces")
    with run_server(f"sqlite:///{folder}/ledger.db", command=on_small_disk(folder, 2 * MEGABYTE)) as server:
        inside = Path(f"/proc/{server.process.pid}/root{folder}")
        with Callers(server) as callers:
            for _ in range(2):
                callers.expect_progress()
                ballast = inside / "ballast"
                assert fill(ballast) > 0
                # Long reasons: the write-ahead log first uses the room that it has.
                callers.submit_until_refused("org:fills", reason="x" * 2000)
                assert server.ask("GET", "/healthz").status == 200
                ballast.unlink()
                server.wait_until_ready()
                callers.expect_progress()
        receipts = callers.retry_all()
        # SQLite follows links by itself, and this one leads out of the namespace again.
        for part in ("ledger.db", "ledger.db-wal"):
            (tmp_path / part).write_bytes((inside / part).read_bytes())
        assert_intact(f"sqlite:///{tmp_path}/ledger.db", callers.since, receipts)
    record_property("figure", f"faults: SQLite on a full file system: answers {dict(callers.answers)}")


@pytest.mark.postgres
def test_a_full_tablespace_under_load(tmp_path: Path, record_property: Figure) -> None:
    """What holds the tables is full; what holds PostgreSQL's own log is not (then it stops itself: see the README)."""
    if not can_mount_small_disks(tmp_path) or os.geteuid() != 0:
        pytest.skip("no file system can be mounted here for a server that is not root's: that takes root itself")
    with RestartablePostgres() as postgres:
        tablespace = postgres.folder / "tablespace"
        tablespace.mkdir()
        restart_on_small_disk(postgres, tablespace, 24 * MEGABYTE)
        with psycopg.connect(postgres.url, autocommit=True) as admin:
            admin.execute(f"CREATE TABLESPACE small LOCATION '{tablespace}'".encode())
            admin.execute("CREATE DATABASE tight TEMPLATE template0 TABLESPACE small")
            url = postgres.url.replace("/postgres?", "/tight?")
            with run_server(url) as server, psycopg.connect(url, autocommit=True) as other:
                with Callers(server) as callers:
                    for _ in range(2):
                        callers.expect_progress()
                        other.execute("CREATE TABLE ballast (filler text STORAGE PLAIN)")
                        _fill_tablespace(other)
                        callers.submit_until_refused("org:fills", reason="x" * 2000)
                        assert server.ask("POST", "/v1/checks", {"org_id": "nobody"}).status in (200, 503)
                        other.execute("DROP TABLE ballast")
                        admin.execute("CHECKPOINT")
                        server.wait_until_ready()
                        callers.expect_progress()
                callers.assert_nothing_lost(url)
    record_property("figure", f"faults: PostgreSQL with a full tablespace: answers {dict(callers.answers)}")


def _fill_tablespace(connection: psycopg.Connection[Any]) -> None:
    for rows in (1000, 100, 10, 1):
        with suppress(psycopg.errors.DiskFull):
            for _ in range(100_000):
                connection.execute("INSERT INTO ballast SELECT repeat('x', 7000) FROM generate_series(1, %s)", (rows,))
            raise AssertionError("it does not fill up")


# Rebuild


def test_a_rebuild_without_room_leaves_the_live_timelines_alone(url: str) -> None:
    with open_ledger(url, create=True) as ledger:
        for number in range(40):
            submit(ledger, change(f"org:o{number}", reason="x" * 500))
        query = Query(ledger)
        query.moment()
        store = open_timelines(ledger)
        with files_no_larger_than(0), pytest.raises(LedgerUnavailable, match="disk is full"):
            rebuild(Projector(ledger, store))
        assert_timelines(ledger, store)
        rebuilt = rebuild(Projector(ledger, store))
        assert (rebuilt.live_equal, rebuilt.swapped, rebuilt.position) == (True, True, ledger.head().position)
        assert_timelines(ledger, store)


def test_the_rebuild_command_without_room_is_one_line(path: Path, url: str) -> None:
    _filled(url)
    ran = run_limited(1000, "rebuild", "--db", url)
    assert (ran.code, ran.out) == (3, "")
    _assert_one_line(ran, "full")
    assert run_limited(64 * MEGABYTE, "rebuild", "--db", url).code == 0


# Export, import, backup


def test_an_export_without_room_leaves_no_file(tmp_path: Path, url: str) -> None:
    _filled(url, 400)
    target = tmp_path / "export.jsonl"
    target.write_text("what was there before")
    ran = run_limited(100_000, "export", "--db", url, "--out", str(target))
    assert ran.code in (2, 3)
    _assert_one_line(ran, "too large")
    assert target.read_text() == "what was there before"
    assert sorted(one.name for one in tmp_path.iterdir() if not one.name.startswith("ledger.db")) == ["export.jsonl"]


@pytest.mark.parametrize("size", [0, 1000, 60_000, 300_000])
def test_an_import_without_room_leaves_nothing_behind(tmp_path: Path, url: str, size: int) -> None:
    _filled(url, 400)
    export = tmp_path / "export.jsonl"
    assert run_limited(64 * MEGABYTE, "export", "--db", url, "--out", str(export)).code == 0
    folder = tmp_path / "other"
    folder.mkdir()
    other = f"sqlite:///{folder}/ledger.db"
    ran = run_limited(size, "import", "--db", other, str(export))
    assert (ran.code, ran.out) == (3, "")
    _assert_one_line(ran, "full")
    # An empty file may be left where not even that could be cleared away: there is no ledger in it.
    with closing(open_recorder(other)) as recorder:
        assert recorder.meta() == {}
    assert run_limited(64 * MEGABYTE, "import", "--db", other, str(export)).code == 0
    with open_ledger(url) as one, open_ledger(other) as two:
        assert one.page(0, 10_000) == two.page(0, 10_000)


@pytest.mark.parametrize("size", [0, 4096, 200_000])
def test_a_backup_without_room_leaves_no_file(tmp_path: Path, url: str, size: int) -> None:
    _filled(url, 400)
    folder = tmp_path / "backups"
    folder.mkdir()
    ran = run_limited(size, "backup", "--db", url, str(folder / "copy.db"))
    assert (ran.code, ran.out) == (3, "")
    _assert_one_line(ran, "")
    assert list(folder.iterdir()) == []
    assert run_limited(64 * MEGABYTE, "backup", "--db", url, str(folder / "copy.db")).code == 0


def test_beginning_a_ledger_without_room(tmp_path: Path, url: str) -> None:
    """Nothing, or what the next attempt takes up from."""
    for size in (0, 1000, 30_000):
        with files_no_larger_than(size), pytest.raises(LedgerUnavailable):
            open_ledger(url, create=True)
    with open_ledger(url, create=True) as ledger:
        assert ledger.head().position == GENESIS
    with closing(open_recorder(url)) as recorder:
        assert "origin" in recorder.meta()


def _filled(url: str, events: int = 100) -> None:
    with open_ledger(url, create=True) as ledger:
        submit(ledger, *(change(f"org:o{number % 90}", reason="x" * 300) for number in range(events)))
        Query(ledger).moment()


def _assert_one_line(ran: CommandResult, word: str) -> None:
    assert ran.err.startswith("inforce: ")
    assert ran.err.count("\n") == 1, ran.err
    assert word in ran.err
