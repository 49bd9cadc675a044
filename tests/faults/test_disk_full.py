"""The disk fills up during an append, a rebuild, an export, an import or a backup.

Nothing is half-written, no acknowledged event is lost, and with free space everything works again without help.
"""

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


def test_files_cannot_grow_under_load(url: str, record_property: Figure) -> None:
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
    record_property("figure", f"faults: SQLite without free space: answers {dict(callers.answers)}")


def test_a_file_system_is_full_under_load(tmp_path: Path, record_property: Figure) -> None:
    """A real file system of two megabytes, filled to its last block."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not can_mount_small_disks(folder):
        pytest.skip("mounting a file system needs root with CAP_SYS_ADMIN, or user namespaces")
    with run_server(f"sqlite:///{folder}/ledger.db", command=on_small_disk(folder, 2 * MEGABYTE)) as server:
        inside = Path(f"/proc/{server.process.pid}/root{folder}")
        with Callers(server) as callers:
            for _ in range(2):
                callers.expect_progress()
                ballast = inside / "ballast"
                assert fill(ballast) > 0
                # Long reasons, because the write-ahead log first uses its own free space.
                callers.submit_until_refused("org:fills", reason="x" * 2000)
                assert server.ask("GET", "/healthz").status == 200
                ballast.unlink()
                server.wait_until_ready()
                callers.expect_progress()
        receipts = callers.retry_all()
        # Copies: SQLite resolves links, and this link leads out of the mount namespace.
        for part in ("ledger.db", "ledger.db-wal"):
            (tmp_path / part).write_bytes((inside / part).read_bytes())
        assert_intact(f"sqlite:///{tmp_path}/ledger.db", callers.since, receipts)
    record_property("figure", f"faults: SQLite on a full file system: answers {dict(callers.answers)}")


@pytest.mark.postgres
def test_a_tablespace_is_full_under_load(tmp_path: Path, record_property: Figure) -> None:
    """The tables' file system is full. PostgreSQL's own log is elsewhere; if it were full, PostgreSQL would stop."""
    if not can_mount_small_disks(tmp_path) or os.geteuid() != 0:
        pytest.skip("mounting a file system for a server under another account needs root")
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
            raise AssertionError("the tablespace does not fill up")


# Rebuild


def test_a_rebuild_without_free_space_keeps_the_live_timelines(url: str) -> None:
    with open_ledger(url, create=True) as ledger:
        for number in range(40):
            submit(ledger, change(f"org:o{number}", reason="x" * 500))
        query = Query(ledger)
        query.context()
        store = open_timelines(ledger)
        with files_no_larger_than(0), pytest.raises(LedgerUnavailable, match="disk is full"):
            rebuild(Projector(ledger, store))
        assert_timelines(ledger, store)
        rebuilt = rebuild(Projector(ledger, store))
        assert (rebuilt.live_equal, rebuilt.swapped, rebuilt.position) == (True, True, ledger.head().position)
        assert_timelines(ledger, store)


def test_the_rebuild_command_without_free_space_prints_one_line(path: Path, url: str) -> None:
    _fill_ledger(url)
    result = run_limited(1000, "rebuild", "--db", url)
    assert (result.code, result.out) == (3, "")
    _assert_one_line(result, "full")
    assert run_limited(64 * MEGABYTE, "rebuild", "--db", url).code == 0


# Export, import, backup


def test_an_export_without_free_space_leaves_no_file(tmp_path: Path, url: str) -> None:
    _fill_ledger(url, 400)
    target = tmp_path / "export.jsonl"
    target.write_text("the content before")
    result = run_limited(100_000, "export", "--db", url, "--out", str(target))
    assert result.code in (2, 3)
    _assert_one_line(result, "too large")
    assert target.read_text() == "the content before"
    assert sorted(one.name for one in tmp_path.iterdir() if not one.name.startswith("ledger.db")) == ["export.jsonl"]


@pytest.mark.parametrize("size", [0, 1000, 60_000, 300_000])
def test_an_import_without_free_space_leaves_no_ledger(tmp_path: Path, url: str, size: int) -> None:
    _fill_ledger(url, 400)
    export = tmp_path / "export.jsonl"
    assert run_limited(64 * MEGABYTE, "export", "--db", url, "--out", str(export)).code == 0
    folder = tmp_path / "other"
    folder.mkdir()
    other = f"sqlite:///{folder}/ledger.db"
    result = run_limited(size, "import", "--db", other, str(export))
    assert (result.code, result.out) == (3, "")
    _assert_one_line(result, "full")
    # An empty file may remain if it could not be removed; it contains no ledger.
    with closing(open_recorder(other)) as recorder:
        assert recorder.meta() == {}
    assert run_limited(64 * MEGABYTE, "import", "--db", other, str(export)).code == 0
    with open_ledger(url) as one, open_ledger(other) as two:
        assert one.page(0, 10_000) == two.page(0, 10_000)


@pytest.mark.parametrize("size", [0, 4096, 200_000])
def test_a_backup_without_free_space_leaves_no_file(tmp_path: Path, url: str, size: int) -> None:
    _fill_ledger(url, 400)
    folder = tmp_path / "backups"
    folder.mkdir()
    result = run_limited(size, "backup", "--db", url, str(folder / "copy.db"))
    assert (result.code, result.out) == (3, "")
    _assert_one_line(result, "")
    assert list(folder.iterdir()) == []
    assert run_limited(64 * MEGABYTE, "backup", "--db", url, str(folder / "copy.db")).code == 0


def test_creating_a_ledger_without_free_space(tmp_path: Path, url: str) -> None:
    """The failed attempts leave nothing that stops the next one."""
    for size in (0, 1000, 30_000):
        with files_no_larger_than(size), pytest.raises(LedgerUnavailable):
            open_ledger(url, create=True)
    with open_ledger(url, create=True) as ledger:
        assert ledger.head().position == GENESIS
    with closing(open_recorder(url)) as recorder:
        assert "origin" in recorder.meta()


def _fill_ledger(url: str, events: int = 100) -> None:
    with open_ledger(url, create=True) as ledger:
        submit(ledger, *(change(f"org:o{number % 90}", reason="x" * 300) for number in range(events)))
        Query(ledger).context()


def _assert_one_line(result: CommandResult, word: str) -> None:
    assert result.err.startswith("inforce: ")
    assert result.err.count("\n") == 1, result.err
    assert word in result.err
