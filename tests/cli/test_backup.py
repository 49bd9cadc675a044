"""inforce backup: what it prints, and how it ends."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ledger.opening import open_ledger
from tests.support.command import Inforce


@pytest.fixture
def begun(inforce: Inforce) -> Inforce:
    assert inforce("submit", "org:acme", "training.opt_in", "true").code == 0
    return inforce


def test_it_tells_the_position_and_the_leaf_hash_of_what_it_holds(begun: Inforce, folder: Path) -> None:
    ran = begun("backup", "copy.db", "--format", "json")
    assert (ran.code, ran.err) == (0, "")
    with open_ledger("sqlite:///copy.db") as copy:
        last = copy.page(0)[-1]
        assert ran.json()["position"] == last.position
        assert ran.json()["leaf_hash"] == last.leaf_hash.hex()
        assert ran.json()["origin"] == copy.origin
    assert ran.json()["file"] == "copy.db"
    assert ran.json()["bytes"] == (folder / "copy.db").stat().st_size
    table = begun("backup", "again.db").out
    assert last.leaf_hash.hex() in table
    assert str(last.position) in table


def test_its_check_says_the_same_of_the_file(begun: Inforce) -> None:
    made = begun("backup", "copy.db", "--format", "json").json()
    checked = begun("backup", "--check", "copy.db", "--format", "json")
    assert (checked.code, checked.json()) == (0, made)


def test_a_backup_that_is_not_whole_exits_1_and_a_ledger_that_is_not_3(begun: Inforce, folder: Path) -> None:
    begun("backup", "copy.db")
    for name in ("copy.db", "inforce.db"):
        with closing(sqlite3.connect(folder / name, isolation_level=None)) as connection:
            connection.execute("DROP TRIGGER events_no_delete")
            connection.execute("DELETE FROM events WHERE position = 3")
    checked = begun("backup", "--check", "copy.db")
    assert (checked.code, checked.out) == (1, "")
    assert "comes that at 4" in checked.err
    again = begun("backup", "again.db")
    assert (again.code, again.out) == (3, "")
    assert not (folder / "again.db").exists()


@pytest.mark.parametrize(
    ("args", "code", "said"),
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
def test_what_cannot_be_is_one_line(begun: Inforce, folder: Path, args: tuple[str, ...], code: int, said: str) -> None:
    (folder / "taken.db").write_bytes(b"dear")
    before = sorted(folder.iterdir())
    ran = begun("backup", *args)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert ran.err.count("\n") == 1
    assert sorted(folder.iterdir()) == before
    assert (folder / "taken.db").read_bytes() == b"dear"


def test_force_overwrites(begun: Inforce, folder: Path) -> None:
    (folder / "taken.db").write_bytes(b"dear")
    assert begun("backup", "taken.db", "--force").code == 0
    assert begun("backup", "--check", "taken.db").code == 0
