"""The peak memory of a command includes the processes that it starts."""

import subprocess
import sys

from scripts.bench.processes import peak_memory

SIZE = 60_000_000
CHILD = f"import time; block = bytearray(b'x' * {SIZE}); time.sleep(0.5)"
PARENT = f"import subprocess, sys; block = bytearray(b'x' * {SIZE}); subprocess.run([sys.executable, '-c', {CHILD!r}])"


def test_the_peaks_of_a_process_and_its_child_add_up() -> None:
    process = subprocess.Popen([sys.executable, "-c", PARENT])
    with peak_memory(process.pid) as peaks:
        assert process.wait(60) == 0
    assert 2 * SIZE < sum(peaks.values()) < 6 * SIZE
