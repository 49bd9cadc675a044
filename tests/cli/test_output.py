"""Tables on a terminal."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.command import Inforce

REPOSITORY = str(Path(__file__).resolve().parents[2])


def on_a_terminal(width: int, *args: str) -> str:
    """The verb's output on a terminal of this width, without its styles."""
    command = [sys.executable, "-m", "scripts.main", *args]
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
    with subprocess.Popen(
        command, stdout=terminal, env=environment | {"TERM": "xterm", "PYTHONPATH": REPOSITORY}
    ) as process:
        os.close(terminal)
        screen_bytes = b""
        with suppress(OSError):  # Reading fails after the process has closed the terminal.
            while chunk := os.read(screen, 65_536):
                screen_bytes += chunk
    os.close(screen)
    assert process.returncode == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", screen_bytes.decode())


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_narrow_terminal_no_word_of_a_table_is_broken(ledger: Inforce, width: int) -> None:
    ledger("submit", "org:acme", "storage.inputs_outputs", "true")
    text = on_a_terminal(width, "state", "org:acme")
    words = text.split()
    for word in ("storage.inputs_outputs", "training.opt_in", "explicit", "residency.regions"):
        assert word in words
    assert max(map(len, text.splitlines()[1:])) <= width


@pytest.mark.parametrize("width", [40, 80, 92, 93, 100, 110, 120, 200])
def test_a_table_that_just_fits_loses_no_column_at_its_right_edge(ledger: Inforce, width: int) -> None:
    in_a_pipe = ledger("catalog", "--at", "2026-02-01T00:00:00Z").out.splitlines()[1:]
    title, *lines = on_a_terminal(width, "catalog", "--at", "2026-02-01T00:00:00Z").splitlines()
    assert title.startswith("catalog at 2026-02-01 00:00:00Z")
    assert {word for line in in_a_pipe for word in line.split() if "─" not in word} - {"since"} == {
        word for line in lines for word in line.split() if "─" not in word
    }
    if width >= 80:
        assert max(map(len, lines)) <= width


def test_json_is_indented_on_a_terminal(ledger: Inforce) -> None:
    for words in (
        ("state", "org:acme"),
        ("replay", "--subject", "org:acme"),
        ("history", "org:acme"),
        ("diff", "org:acme", "--from", "now"),
    ):
        lines = on_a_terminal(80, *words, "--format", "json").splitlines()
        assert lines[0] == "{", words
        assert lines[1].startswith('  "'), words
        assert lines[-1] == "}", words
    in_a_pipe = ledger("replay", "--subject", "org:acme", "--format", "json").out
    assert json.loads(in_a_pipe) == json.loads(on_a_terminal(80, "replay", "--subject", "org:acme", "--format", "json"))
