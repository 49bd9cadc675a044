"""A server in a process of its own, from outside: where it listens, its processor time and its memory.

What a process has used is read from /proc, so these suites run on Linux.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ledger.errors import LedgerUnavailable

_CHECKOUT: Final = Path(__file__).resolve().parents[2]
_STOP_SECONDS_MAX: Final = 30
ENDING: Final = (signal.SIGINT, signal.SIGTERM)
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


class Server:
    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.port = port
        self.pid = process.pid

    def cpu_seconds(self) -> float:
        """Processor time used so far, of all its threads, in its own code and in the kernel for it."""
        # The second field may hold anything, so what counts begins behind its closing parenthesis.
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND

    def memory_mb(self) -> tuple[float, float]:
        """Resident memory now, and the most there ever was of it, in MB (10⁶ bytes)."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if "kB" in rest}
        return kib["VmRSS"] * 1024 / 1e6, kib["VmHWM"] * 1024 / 1e6


@contextmanager
def served(url: str, group: int | None = None) -> Iterator[Server]:
    """The server over the ledger at `url`; gone at the end. Raises `LedgerUnavailable` where it does not start."""
    if not Path("/proc/self/stat").exists():
        raise LedgerUnavailable("this suite reads what a server used from /proc, which is not there; run it on Linux")
    # Interrupted in between, nobody would know of the server. It lets them in again by itself.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "scripts.bench.serving", url, *([] if group is None else [str(group)])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=module_environment(),
            # An interrupt from the keyboard is for the bench, which ends its server once and in order.
            start_new_session=True,
        )
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            assert process.stdout is not None
            said = process.stdout.readline().decode()
            if not said:
                raise LedgerUnavailable("the server to be measured did not start; what it said is above")
            yield Server(process, int(said.rpartition(":")[2]))
        finally:
            _end(process)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def module_environment() -> dict[str, str]:
    """The environment in which a child finds the same modules as this process, installed or not."""
    paths = [str(_CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    # See serving.py: it ends when its input does.
    process.stdin.close()
    try:
        process.wait(_STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
