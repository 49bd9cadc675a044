"""Runs the tour in README.md.

The `console` blocks run in order, in an empty folder with the checkout's `scripts`. The output of each command must
be what the README shows; white space is ignored, `…` matches anything, and times and ids match any others. A command
that serves runs in the background until the tour ends.
"""

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PORT = "8000"
VARYING = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z|[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"
)


class Command(NamedTuple):
    text: str
    shown: str


def commands() -> Iterator[Command]:
    for block in re.findall(r"^```console\n(.*?)^```$", README, re.DOTALL | re.MULTILINE):
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


def pattern(shown: str) -> str:
    """The shown output as a regular expression over text without white space."""
    bare = re.sub(r"\s", "", VARYING.sub("…", shown))
    return "".join(".*?" if char == "…" else re.escape(char) for char in bare)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with nothing but a ./scripts/inforce."""
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    launcher = scripts / "inforce"
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m scripts.main "$@"\n', encoding="utf-8")
    launcher.chmod(0o755)
    return tmp_path


def test_the_tour_of_the_readme_runs_as_shown(folder: Path) -> None:
    port = str(free_port())
    terminal = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    environment = dict(terminal)
    servers: list[subprocess.Popen[bytes]] = []
    ran = 0
    try:
        for command in commands():
            text = command.text.replace(f"--port {PORT}", f"--port {port}").replace(
                f"localhost:{PORT}", f"localhost:{port}"
            )
            shown = command.shown.replace(PORT, port)
            if text.startswith("export "):
                name, _, value = text.removeprefix("export ").partition("=")
                environment[name] = value
            elif " serve " in text:
                servers.append(serve(text, shown, folder, environment))
                # The tour continues in another terminal, without the exports of the first one.
                environment = dict(terminal)
            else:
                run(text, shown, folder, environment)
            ran += 1
    finally:
        for process in servers:
            process.terminate()
            process.wait(timeout=30)
    assert ran > 20
    assert servers


def serve(text: str, shown: str, folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    log = folder / "served.txt"
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {text}"], cwd=folder, env=environment, stdout=file, stderr=file
        )
    output = ""
    for _wait in range(600):
        output = log.read_text(encoding="utf-8")
        if output.count("\n") > shown.strip().count("\n") or process.poll() is not None:
            break
        time.sleep(0.05)
    assert output.strip() == shown.strip()
    return process


def run(text: str, shown: str, folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", text], cwd=folder, env=environment, capture_output=True, timeout=60, check=False
    )
    printed = (done.stdout + done.stderr).decode()
    bare = re.sub(r"\s", "", VARYING.sub("…", printed))
    expected = pattern(shown)
    assert re.fullmatch(expected, bare, re.DOTALL), f"$ {text}\nshown:\n{shown}\nprinted:\n{printed}"


def test_every_variable_of_the_environment_is_documented() -> None:
    documented = set(re.findall(r"`(INFORCE_[A-Z_]+)`", README))
    named = set()
    for folder in ("ledger", "projections", "api", "scripts", "tests"):
        for path in (REPOSITORY / folder).rglob("*"):
            if path.is_file() and path.suffix in (".py", "") and "__pycache__" not in path.parts:
                named |= set(re.findall(r"[\"'$]\{?(INFORCE_[A-Z_]*[A-Z])\b", path.read_text(encoding="utf-8")))
    assert len(named) >= 5
    assert named <= documented
