"""backup: its output and its exit codes."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ledger.opening import open_ledger
from tests.support.command import Inforce


@pytest.fixture
def ledger(inforce: Inforce) -> Inforce:
    assert inforce("submit", "org:acme", "training.opt_in", "true").code == 0
    return inforce


def test_a_backup_prints_its_last_position_and_leaf_hash(ledger: Inforce, folder: Path) -> None:
    result = ledger("backup", "copy.db", "--format", "json")
    assert (result.code, result.err) == (0, "")
    with open_ledger("sqlite:///copy.db") as copy:
        last = copy.page(0)[-1]
        assert result.json()["position"] == last.position
        assert result.json()["leaf_hash"] == last.leaf_hash.hex()
        assert result.json()["origin"] == copy.origin
    assert result.json()["file"] == "copy.db"
    assert result.json()["bytes"] == (folder / "copy.db").stat().st_size
    table = ledger("backup", "again.db").out
    assert last.leaf_hash.hex() in table
    assert str(last.position) in table


def test_check_prints_the_same_about_the_file(ledger: Inforce) -> None:
    backup = ledger("backup", "copy.db", "--format", "json").json()
    checked = ledger("backup", "--check", "copy.db", "--format", "json")
    assert (checked.code, checked.json()) == (0, backup)


def test_a_damaged_backup_exits_1_and_a_damaged_ledger_exits_3(ledger: Inforce, folder: Path) -> None:
    ledger("backup", "copy.db")
    for name in ("copy.db", "inforce.db"):
        with closing(sqlite3.connect(folder / name, isolation_level=None)) as connection:
            connection.execute("DROP TRIGGER events_no_delete")
            connection.execute("DELETE FROM events WHERE position = 3")
    checked = ledger("backup", "--check", "copy.db")
    assert (checked.code, checked.out) == (1, "")
    assert "the event at position 3 is missing" in checked.err
    again = ledger("backup", "again.db")
    assert (again.code, again.out) == (3, "")
    assert not (folder / "again.db").exists()


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("copy.db", "--db", "postgresql://host/name"), 2, "pg_dump"),
        (("inforce.db",), 2, "the ledger itself"),
        (("taken.db",), 2, "--force"),
        (("no/such/copy.db",), 2, "no folder"),
        (("copy.db", "--db", "sqlite:///no.db"), 3, "no ledger at"),
        (("--check", "no.db"), 3, "no file"),
        (("--check", "--force", "taken.db"), 2, "leave --force out"),
        ((), 2, "FILE"),
    ],
)
def test_a_backup_that_cannot_be_made_is_reported_in_one_line(
    ledger: Inforce, folder: Path, args: tuple[str, ...], code: int, words: str
) -> None:
    (folder / "taken.db").write_bytes(b"old")
    before = sorted(folder.iterdir())
    result = ledger("backup", *args)
    assert (result.code, result.out) == (code, "")
    assert words in result.err
    assert result.err.count("\n") == 1
    assert sorted(folder.iterdir()) == before
    assert (folder / "taken.db").read_bytes() == b"old"


def test_force_overwrites(ledger: Inforce, folder: Path) -> None:
    (folder / "taken.db").write_bytes(b"old")
    assert ledger("backup", "taken.db", "--force").code == 0
    assert ledger("backup", "--check", "taken.db").code == 0
