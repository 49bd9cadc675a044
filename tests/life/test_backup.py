"""A backup shows one moment of the ledger, or does not exist; restored, it continues."""

import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ledger.backup import Backup, back_up
from ledger.errors import BadInput, LedgerUnavailable, NotALedger
from ledger.opening import open_ledger, open_recorder
from ledger.recorders.contract import IMPORTING
from ledger.store import Ledger
from ledger.transfer.export import export_lines, export_personal
from projections.timelines.projector import Projector
from projections.timelines.rebuild.rebuild import rebuild
from projections.timelines.store import open_timelines
from tests.life.backups import refused, url
from tests.life.conftest import Ahead, format_of
from tests.support.checking import all_faults
from tests.support.ledgers import GENESIS, ORIGIN, change, key, submit
from tests.support.programs import start_programs

REPOSITORY = Path(__file__).resolve().parents[2]


def exported(path: Path) -> bytes:
    with open_ledger(url(path)) as ledger:
        return b"".join(export_lines(ledger))


def test_the_copy_is_the_ledger(path: Path, target: Path) -> None:
    backup = back_up(url(path), target)
    with open_ledger(url(path)) as ledger, open_ledger(url(target)) as copy:
        assert copy.page(0) == ledger.page(0)
        assert b"".join(export_personal(copy)) == b"".join(export_personal(ledger))
        last = ledger.page(0)[-1]
        size = target.stat().st_size
        assert backup == Backup(str(target), size, ORIGIN, GENESIS + 20, last.recorded_at, last.leaf_hash.hex())
        known = submit(ledger, change(reason="for the auditor"), idempotency=key("first"))
        assert submit(copy, change(reason="for the auditor"), idempotency=key("first")) == known
        assert rebuild(Projector(copy, open_timelines(copy)), check_only=True).live_equal
        submit(copy, change("org:later"))
    with closing(sqlite3.connect(target)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert sorted(file.name for file in target.parent.iterdir()) == ["copy.db", "copy.db-head"]


def test_it_reports_its_progress(path: Path, target: Path) -> None:
    calls: list[tuple[float, str]] = []
    back_up(url(path), target, progress=lambda done, words: calls.append((done, words)))
    shares = [done for done, _ in calls]
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] <= 1
    assert {words for _, words in calls} == {"copying", "checking"}


def test_while_others_write_each_copy_shows_one_moment(path: Path, target: Path) -> None:
    copies: list[Path] = []
    with start_programs(("write", url(path), "one", 60), ("write", url(path), "two", 60)) as writers:
        while len(copies) < 3 or any(writer.poll() is None for writer in writers):
            copies.append(target.with_name(f"copy{len(copies)}.db"))
            back_up(url(path), copies[-1])
    assert all(writer.returncode == 0 for writer in writers)
    whole = exported(path)
    for copy in copies:
        copied = exported(copy)
        assert whole.startswith(copied)
        # Each of the writers' submissions has two events.
        assert (copied.count(b"\n") - GENESIS - 20) % 2 == 0
    lengths = [copy.stat().st_size for copy in copies]
    assert lengths == sorted(lengths)


def test_a_commit_during_the_copy_is_not_in_it_and_does_not_restart_it(
    path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.backup.PAGES_A_STEP", 1)
    before = exported(path)
    steps = 0
    with open_ledger(url(path)) as writing:

        def write(done: float, words: str) -> None:
            nonlocal steps
            steps += words == "copying"
            if words == "copying" and steps <= 10:
                submit(writing, change(f"org:meanwhile{steps}"))

        back_up(url(path), target, progress=write)
        assert writing.head().position == GENESIS + 30
        pages = target.stat().st_size // 4096
        assert steps <= pages + 1
    assert exported(target) == before


def test_a_copy_is_as_private_as_the_ledger(path: Path, target: Path) -> None:
    path.chmod(0o600)
    back_up(url(path), target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_ledger_of_an_older_format_is_copied_without_migration(path: Path, target: Path, ahead: Ahead) -> None:
    """Before an upgrade, the copy of the old format is the one that is needed."""
    today = format_of(url(path))
    ahead(("CREATE TABLE {}more (x integer)",))
    back_up(url(path), target)
    assert (format_of(url(path)), format_of(url(target))) == (today, today)
    open_ledger(url(target)).close()
    assert format_of(url(target)) == today + 1


def test_a_read_only_ledger_is_copied(path: Path, target: Path) -> None:
    assert back_up(f"{url(path)}?mode=ro", target).position == GENESIS + 20


# Targets that are in use


def test_an_existing_file_is_overwritten_only_on_request(path: Path, target: Path) -> None:
    target.write_bytes(b"dear")
    assert "--force" in refused(BadInput, lambda: back_up(url(path), target))
    assert target.read_bytes() == b"dear"
    back_up(url(path), target, overwrite=True)
    assert exported(target) == exported(path)


def test_a_file_created_meanwhile_is_not_overwritten(path: Path, target: Path) -> None:
    assert "--force" in refused(
        BadInput, lambda: back_up(url(path), target, progress=lambda _done, _words: void(target.write_bytes(b"dear")))
    )
    assert target.read_bytes() == b"dear"
    assert list(target.parent.iterdir()) == [target]


def void(_value: object) -> None:
    pass


def test_without_hard_links_the_copy_still_gets_its_name(
    path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_self: Path, _target: Path) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", unknown)
    back_up(url(path), target)
    assert exported(target) == exported(path)


def test_unsuitable_targets_are_refused(path: Path, target: Path) -> None:
    assert "the ledger itself" in refused(BadInput, lambda: back_up(url(path), path, overwrite=True))
    link = target.with_name("link.db")
    link.symlink_to(path)
    assert "the ledger itself" in refused(BadInput, lambda: back_up(url(path), link, overwrite=True))
    assert "is not a file" in refused(BadInput, lambda: back_up(url(path), target.parent, overwrite=True))
    assert "no folder" in refused(BadInput, lambda: back_up(url(path), target / "no" / "copy.db"))
    for companion in ("-wal", "-shm", "-journal"):
        beside = target.with_name(f"copy.db{companion}")
        beside.touch()
        assert str(beside) in refused(BadInput, lambda: back_up(url(path), target, overwrite=True))
        beside.unlink()


def test_only_a_ledger_is_copied(path: Path, target: Path) -> None:
    assert "pg_dump" in refused(BadInput, lambda: back_up("postgresql://host/name", target))
    assert "no ledger at" in refused(LedgerUnavailable, lambda: back_up(url(target), target))
    other = target.with_name("other.db")
    other.write_bytes(b"text")
    assert "not a SQLite file" in refused(NotALedger, lambda: back_up(url(other), target))
    other.write_bytes(b"")
    assert "no ledger in" in refused(NotALedger, lambda: back_up(url(other), target))
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE t (x)")
    assert "another program" in refused(NotALedger, lambda: back_up(url(other), target))
    importing = target.with_name("importing.db")
    with closing(open_recorder(url(importing))) as recorder:
        recorder.create({"origin": ORIGIN, IMPORTING: "0"})
    assert "an import into" in refused(LedgerUnavailable, lambda: back_up(url(importing), target))
    assert not target.exists()
    assert not [file for file in target.parent.iterdir() if file.name.startswith(".")]


# Failures during a backup


def interrupted(_done: float, words: str) -> None:
    if words == "checking":
        raise KeyboardInterrupt


def test_an_interrupted_backup_leaves_the_folder_unchanged(path: Path, target: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        back_up(url(path), target, progress=interrupted)
    assert list(target.parent.iterdir()) == []
    target.write_bytes(b"dear")
    with pytest.raises(KeyboardInterrupt):
        back_up(url(path), target, overwrite=True, progress=interrupted)
    assert target.read_bytes() == b"dear"
    assert list(target.parent.iterdir()) == [target]


KILLED = """
import os, signal, sys
from pathlib import Path
from ledger.backup import back_up

def kill(done, words):
    if words == "checking":
        os.kill(os.getpid(), signal.SIGKILL)

back_up(sys.argv[1], Path(sys.argv[2]), overwrite=True, progress=kill)
"""


def test_a_killed_backup_leaves_the_target_unchanged(path: Path, target: Path) -> None:
    target.write_bytes(b"dear")
    killed = subprocess.run([sys.executable, "-c", KILLED, url(path), target], cwd=REPOSITORY, check=False)
    assert killed.returncode == -9
    assert target.read_bytes() == b"dear"


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
from scripts.main import cli
cli.main(["backup", sys.argv[2], "--db", sys.argv[1]])
"""


def test_a_full_disk_is_one_line_and_leaves_nothing(path: Path, target: Path) -> None:
    full = subprocess.run(
        [sys.executable, "-c", FULL, url(path), target], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert (full.returncode, full.stdout) == (3, "")
    assert "the disk is full or failing" in full.stderr
    assert str(target) in full.stderr
    assert full.stderr.count("\n") == 1
    assert list(target.parent.iterdir()) == []


# Restoring, as the README says: stop, remove the ledger's file and its companions, copy the backup there


def restore(backup: Path, ledger: Path) -> None:
    for name in ("", "-wal", "-shm"):
        ledger.with_name(ledger.name + name).unlink(missing_ok=True)
    shutil.copy(backup, ledger)


def test_a_ledger_that_was_lost_while_in_use_is_restored(path: Path, target: Path) -> None:
    before = exported(path)
    back_up(url(path), target)
    # As after a crash: some events are only in the -wal file.
    with closing(open_recorder(url(path))), open_ledger(url(path)) as ledger:
        submit(ledger, change("org:lost"))
        crashed = path.with_name("crashed.db")
        for name in ("", "-wal", "-shm"):
            shutil.copy(path.with_name(path.name + name), crashed.with_name(crashed.name + name))
    assert crashed.with_name("crashed.db-wal").stat().st_size
    restore(target, crashed)
    assert exported(crashed) == before
    with open_ledger(url(crashed)) as restored:
        assert submit(restored, change("org:after"))[0].position == GENESIS + 21
        assert is_sound(restored)
    assert all_faults(url(target)) == []


def is_sound(ledger: Ledger) -> bool:
    projector = Projector(ledger, open_timelines(ledger))
    projector.catch_up()
    return rebuild(projector, check_only=True).live_equal
