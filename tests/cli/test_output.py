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
def test_on_a_narrow_terminal_no_word_of_a_table_is_broken(filled: Inforce, width: int) -> None:
    filled("submit", "org:acme", "storage.inputs_outputs", "true")
    asked = [sys.executable, "-m", "scripts.main", "state", "org:acme"]
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
    with subprocess.Popen(
        asked, stdout=terminal, env=environment | {"TERM": "xterm", "PYTHONPATH": REPOSITORY}
    ) as running:
        os.close(terminal)
        shown = b""
        with suppress(OSError):  # The terminal is gone when its last user is.
            while chunk := os.read(screen, 65_536):
                shown += chunk
    os.close(screen)
    assert running.returncode == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
    words = text.split()
    for word in ("storage.inputs_outputs", "training.opt_in", "explicit", "residency.regions"):
        assert word in words
    assert max(map(len, text.splitlines()[1:])) <= width
