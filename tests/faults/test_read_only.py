"""A file or a folder refuses writes, even from root: one line reports it, and nothing is recorded.

A process that already has the file open is not concerned: Linux checks when a file is opened.
"""

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
    """Makes `path` immutable, also for root. Skips where chattr does not work."""
    done = subprocess.run(["chattr", "+i", str(path)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("chattr +i needs root, CAP_LINUX_IMMUTABLE and a file system that supports it")
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
        Query(ledger).context()
    return url


def test_an_immutable_file_refuses_submissions(url: str, path: Path) -> None:
    with immutable(path):
        with pytest.raises(LedgerUnavailable), open_ledger(url) as ledger:
            submit(ledger, change("org:acme", False))
        result = run("submit", "--db", url, "org:acme", "training.opt_in", "false")
        assert (result.code, result.out, result.err.count("\n")) == (3, "", 1)
        assert run("state", "org:acme", "--db", f"{url}?mode=ro").code == 0
    with open_ledger(url) as ledger:
        submit(ledger, change("org:acme", False))


def test_an_immutable_folder_makes_the_ledger_unavailable_for_writing(url: str, path: Path) -> None:
    """SQLite must create the write-ahead log there: without it nothing can be written, so reading needs no log."""
    with immutable(path.parent):
        result = run("state", "org:acme", "--db", url)
        assert (result.code, result.out, result.err.count("\n")) == (3, "", 1)
        assert result.err.startswith("inforce: ")
        assert "?mode=ro" in result.err
        assert run("history", "org:acme", "--db", f"{url}?mode=ro").code == 0
    assert run("state", "org:acme", "--db", url).code == 0
