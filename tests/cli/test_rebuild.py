"""rebuild: finds the stored timelines equal, or says where they differ and replaces them."""

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.cli.test_replay import story
from tests.support.command import Inforce

__all__ = ["story"]


def test_a_rebuild_finds_the_live_timelines_equal(story: Inforce) -> None:
    story("state", "org:acme")
    for args in (("--check",), ()):
        result = story("rebuild", *args, "--format", "json")
        assert (result.code, result.json()["live_equal"], result.json()["swapped"]) == (0, True, args == ())
    assert "equal to the live ones" in story("rebuild").out


def test_a_rebuild_exits_1_if_a_row_differs_and_corrects_it(inforce: Inforce, folder: Path) -> None:
    inforce("submit", "org:acme", "training.opt_in", "true")
    inforce("state", "org:acme")
    with closing(sqlite3.connect(folder / "inforce.db")) as connection, connection:
        connection.execute("UPDATE timelines_subjects SET version = version + 1 WHERE subject = 'org:acme'")
    checked = inforce("rebuild", "--check")
    assert (checked.code, "NOT equal" in checked.out) == (1, True)
    assert inforce("rebuild").code == 1
    assert inforce("rebuild", "--check").code == 0
