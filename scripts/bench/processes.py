"""Programs and servers in processes of their own, and their processor time and memory, read from /proc (Linux only).

Proved by tests/bench/test_processes.py and, for interrupts, tests/bench/test_ledgers.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Final, NamedTuple

from ledger.errors import LedgerUnavailable

ENDING: Final = (signal.SIGINT, signal.SIGTERM)
_CHECKOUT: Final = Path(__file__).resolve().parents[2]
_STOP_SECONDS_MAX: Final = 30
_POLL_SECONDS: Final = 0.05
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


class ProgramCost(NamedTuple):
    """`memory_gb` sums the peak resident memory of each process, in 10⁹ bytes. `output`: standard output."""

    wall_s: float
    cpu_s: float
    memory_gb: float
    output: bytes


def run_program(module: str, arguments: Sequence[str], exit_codes: Collection[int] = (0,)) -> ProgramCost:
    """Runs `python -m module …`. Raises `LedgerUnavailable` if its exit code is not one of `exit_codes`."""
    began = perf_counter()
    process = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, env=module_environment()
    )
    try:
        with peak_memory(process.pid) as peaks:
            assert process.stdout is not None
            output = process.stdout.read()
        # wait4 reports the processor time of the program's own children, too.
        _, status, used = os.wait4(process.pid, 0)
        wall = perf_counter() - began
        # Popen does not know that wait4 has collected the child.
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        if process.returncode is None:
            process.terminate()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
    if process.returncode not in exit_codes:
        raise LedgerUnavailable(f"{module} ended with exit code {process.returncode}; its own error is above")
    return ProgramCost(wall, used.ru_utime + used.ru_stime, sum(peaks.values()) / 1e9, output)


@contextmanager
def peak_memory(pid: int) -> Iterator[dict[int, int]]:
    """Watches a process and its descendants: pid → peak resident bytes so far.

    The sum of the values is at least what the processes had at any one time.
    """
    _require_proc()
    peaks: dict[int, int] = {}
    over = threading.Event()

    def poll() -> None:
        while True:
            _add_peaks(pid, peaks)
            if over.wait(_POLL_SECONDS):
                return

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()


def _add_peaks(pid: int, peaks: dict[int, int]) -> None:
    try:
        memory = _memory_bytes(pid)
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        # The process has ended since its parent listed it.
        return
    # A zombie has no VmHWM.
    peaks[pid] = max(peaks.get(pid, 0), memory.get("VmHWM", 0))
    for child in children.split():
        _add_peaks(int(child), peaks)


def _memory_bytes(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = (line.partition(":") for line in lines)
    return {name: 1024 * int(value.split()[0]) for name, _, value in fields if value.endswith("kB")}


class Server:
    """A running server process."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.port = port
        self.pid = process.pid

    def cpu_seconds(self) -> float:
        """Processor time so far, of all threads, in user code and in the kernel."""
        # The second field may hold any text, so the fields that count begin after its closing parenthesis.
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND

    def memory_mb(self) -> tuple[float, float]:
        """Resident memory now, and its peak so far, in MB (10⁶ bytes)."""
        memory = _memory_bytes(self.pid)
        return memory["VmRSS"] / 1e6, memory["VmHWM"] / 1e6


@contextmanager
def serve(url: str, group_max: int | None = None) -> Iterator[Server]:
    """Runs scripts.bench.server over the ledger at `url`. Raises `LedgerUnavailable` if it does not start."""
    _require_proc()
    # An interrupt between the start and the `try` would leave the server running. The server unblocks the signals.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "scripts.bench.server", url, *([] if group_max is None else [str(group_max)])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=module_environment(),
            # Ctrl-C reaches the bench alone, which then stops its server once and in order.
            start_new_session=True,
        )
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            assert process.stdout is not None
            address = process.stdout.readline().decode()
            if not address:
                raise LedgerUnavailable("the server under measurement did not start; its own error is above")
            yield Server(process, int(address.rpartition(":")[2]))
        finally:
            _end(process)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    # The server ends when its standard input does (see server.py).
    process.stdin.close()
    try:
        process.wait(_STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def module_environment() -> dict[str, str]:
    """The environment in which a child finds the same modules as this process, installed or not.

    The child may write compiled modules, as in normal use, so that not every run compiles them again.
    """
    paths = [str(_CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def _require_proc() -> None:
    if not Path("/proc/self/status").exists():
        raise LedgerUnavailable("this suite reads processor time and memory from /proc, which is missing; use Linux")
