"""Runs the command in this process, against real databases, in an empty folder: fixtures to import."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from click.testing import CliRunner

from scripts.main import cli


class CommandResult(NamedTuple):
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return msgspec.json.decode(self.out)

    def lines(self) -> list[Any]:
        return [msgspec.json.decode(line) for line in self.out.splitlines()]


Inforce = Callable[..., CommandResult]


def run(*args: str, stdin: bytes | str = b"") -> CommandResult:
    result = CliRunner().invoke(cli, args, input=stdin)
    return CommandResult(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, empty."""
    empty = tmp_path / "work"
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.delenv("INFORCE_ACTOR", raising=False)
    return empty


@pytest.fixture
def inforce(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Inforce:
    """`inforce("state", "org:acme")` on the default database: ./inforce.db."""
    monkeypatch.delenv("INFORCE_DATABASE", raising=False)
    return run


@pytest.fixture
def inforce_on_both(folder: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Inforce:
    """`inforce`, once on SQLite and once on PostgreSQL."""
    monkeypatch.setenv("INFORCE_DATABASE", database_url)
    return run
