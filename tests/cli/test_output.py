"""Tables on a terminal."""

import fcntl
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


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_narrow_terminal_no_word_of_a_table_is_broken(ledger: Inforce, width: int) -> None:
    ledger("submit", "org:acme", "storage.inputs_outputs", "true")
    command = [sys.executable, "-m", "scripts.main", "state", "org:acme"]
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
    text = re.sub(r"\x1b\[[0-9;]*m", "", screen_bytes.decode())
    words = text.split()
    for word in ("storage.inputs_outputs", "training.opt_in", "explicit", "residency.regions"):
        assert word in words
    assert max(map(len, text.splitlines()[1:])) <= width
