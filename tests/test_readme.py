"""Runs README.md and scripts/TOUR.md, word by word.

The `console` blocks of a page run in order, in one bash that begins in a folder with nothing but `scripts/inforce`.
The output of each command must be what the page shows. White space and the length of lines are ignored, `…` matches
anything, and times and ids match any others.
"""

import os
import re
import secrets
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.waiting import GIVE_UP_S

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PORT = "8000"
VARYING = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z|[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"
)


class Command(NamedTuple):
    text: str
    shown: str


def commands(page: str) -> Iterator[Command]:
    for block in re.findall(r"^```console\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            yield split(part.splitlines())


def split(lines: list[str]) -> Command:
    """The command is as many lines as a shell needs to complete it; the rest is its output."""
    for end in range(1, len(lines) + 1):
        text = "\n".join(lines[:end])
        here_document = re.search(r"<<(\w+)$", text, re.MULTILINE)
        if text.endswith("\\") or (here_document and lines[end - 1] != here_document[1]):
            continue
        try:
            shlex.split(text)
        except ValueError:
            continue
        return Command(text, "\n".join(lines[end:]))
    raise AssertionError(f"no end of the command: {lines[0]}")


def bare(text: str) -> str:
    """The text without white space, times, ids and the lengths of lines."""
    return re.sub("─+", "─", re.sub(r"\s", "", VARYING.sub("…", text)))


def pattern(shown: str) -> str:
    """The shown output as a regular expression over text without white space."""
    return "".join(".*?" if char == "…" else re.escape(char) for char in bare(shown))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Shell:
    """A bash that runs the commands of a page one after another, as a person types them into one terminal."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "terminal.txt"
        (folder / "tmp").mkdir()
        checkout = folder / "checkout"
        (checkout / "scripts").mkdir(parents=True)
        launcher = checkout / "scripts" / "inforce"
        launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m scripts.main "$@"\n', encoding="utf-8")
        launcher.chmod(0o755)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("INFORCE_")}
        environment |= {"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(folder / "tmp")}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["bash"], cwd=checkout, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log
            )
        self._read = 0
        self._type("shopt -s expand_aliases")

    def run(self, text: str, lines: int = 0) -> str:
        """The output of a command. One that goes on in the background ends with its first `lines` lines."""
        mark = f"--- {secrets.token_hex(8)} ---"
        self._type(text)
        self._type(f"echo; echo '{mark}'")
        deadline = time.monotonic() + GIVE_UP_S
        printed = ""
        while mark not in printed or printed.replace(mark, "").strip().count("\n") + 1 < lines:
            assert time.monotonic() < deadline, f"no end of: {text}\nprinted:\n{printed}"
            assert self._process.poll() is None, f"the shell ended after: {text}\nprinted:\n{printed}"
            time.sleep(0.02)
            printed = self._log.read_bytes()[self._read :].decode()
        self._read += len(printed.encode())
        return printed.replace(mark, "")

    def _type(self, text: str) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(text.encode() + b"\n")
        stdin.flush()

    def close(self) -> None:
        # `kill` alone would leave the server of a tour that failed.
        self._type("kill $(jobs -p) 2>/dev/null; wait")
        self._process.communicate(timeout=GIVE_UP_S)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    try:
        yield shell
    finally:
        shell.close()


@pytest.mark.parametrize(("page", "commands_min"), [("README.md", 8), ("scripts/TOUR.md", 30)])
def test_a_page_runs_as_shown_and_leaves_nothing_in_the_checkout(
    page: str, commands_min: int, shell: Shell, tmp_path: Path
) -> None:
    port = str(free_port())
    ran = 0
    for command in commands((REPOSITORY / page).read_text(encoding="utf-8")):
        text = command.text.replace(f"--port {PORT}", f"--port {port}")
        text = text.replace(f"localhost:{PORT}", f"localhost:{port}")
        shown = command.shown.replace(PORT, port)
        printed = shell.run(text, len(shown.splitlines()) if text.endswith("&") else 0)
        assert re.fullmatch(pattern(shown), bare(printed), re.DOTALL), f"$ {text}\nshown:\n{shown}\nprinted:\n{printed}"
        ran += 1
    assert ran > commands_min
    assert [str(path.relative_to(tmp_path)) for path in sorted((tmp_path / "checkout").rglob("*"))] == [
        "checkout/scripts",
        "checkout/scripts/inforce",
    ]


def test_the_readme_is_a_page() -> None:
    assert len(README.splitlines()) <= 150


def test_every_variable_of_the_environment_is_documented() -> None:
    documented = set(
        re.findall(r"`(INFORCE_[A-Z_]+)`", (REPOSITORY / "scripts" / "OPERATING.md").read_text(encoding="utf-8"))
    )
    named = set()
    for folder in ("ledger", "projections", "api", "scripts", "tests"):
        for path in (REPOSITORY / folder).rglob("*"):
            if path.is_file() and path.suffix in (".py", "") and "__pycache__" not in path.parts:
                named |= set(re.findall(r"[\"'$]\{?(INFORCE_[A-Z_]*[A-Z])\b", path.read_text(encoding="utf-8")))
    assert len(named) >= 5
    assert named <= documented
