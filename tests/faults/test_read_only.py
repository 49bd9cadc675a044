"""A file or a folder that takes no writes, from root neither: one line says so, nothing is taken, and when it may be
written again everything goes on. Who has the file open already is not concerned: Linux asks when a file is opened."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ledger.errors import LedgerUnavailable
from ledger.opening import open_ledger
from projections.query.query import Query
from tests.support.command import run
from tests.support.ledgers import change, submit


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Nobody may change it, root included. Skips where this cannot be had."""
    done = subprocess.run(["chattr", "+i", str(path)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("chattr +i is not to be had here: it takes root, CAP_LINUX_IMMUTABLE and a file system that has it")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(path)], capture_output=True, check=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "ledger"
    folder.mkdir()
    return folder / "ledger.db"


@pytest.fixture
def url(path: Path) -> str:
    """A ledger, projected."""
    url = f"sqlite:///{path}"
    with open_ledger(url, create=True) as ledger:
        submit(ledger, change("org:acme", True))
        Query(ledger).moment()
    return url


def test_a_file_that_nobody_may_write(url: str, path: Path) -> None:
    with immutable(path):
        with pytest.raises(LedgerUnavailable), open_ledger(url) as ledger:
            submit(ledger, change("org:acme", False))
        ran = run("submit", "--db", url, "org:acme", "training.opt_in", "false")
        assert (ran.code, ran.out, ran.err.count("\n")) == (3, "", 1)
        assert run("state", "org:acme", "--db", f"{url}?mode=ro").code == 0
    with open_ledger(url) as ledger:
        submit(ledger, change("org:acme", False))


def test_a_folder_in_which_nothing_may_be_made(url: str, path: Path) -> None:
    """The write-ahead log has to be made there: without it there is no ledger to be had, and one line says so."""
    with immutable(path.parent):
        for ran in (run("state", "org:acme", "--db", url), run("history", "org:acme", "--db", f"{url}?mode=ro")):
            assert (ran.code, ran.out, ran.err.count("\n")) == (3, "", 1)
            assert ran.err.startswith("inforce: ")
    assert run("state", "org:acme", "--db", url).code == 0
