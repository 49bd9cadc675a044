"""The memory of a command is that of all the processes that it starts."""

import subprocess
import sys

from scripts.bench.resident import Resident

HELD = 60_000_000
CHILD = f"import time; held = bytearray(b'x' * {HELD}); time.sleep(0.5)"
PARENT = f"import subprocess, sys; held = bytearray(b'x' * {HELD}); subprocess.run([sys.executable, '-c', {CHILD!r}])"


def test_a_process_and_its_child_are_summed_up() -> None:
    process = subprocess.Popen([sys.executable, "-c", PARENT])
    with Resident(process.pid) as resident:
        assert process.wait(60) == 0
    assert 2 * HELD < resident.peak_bytes() < 6 * HELD
