"""A program in a process of its own, and what it cost: wall and processor time and memory, with all that it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Sequence
from time import perf_counter
from typing import NamedTuple

from ledger.errors import LedgerUnavailable
from scripts.bench.resident import Resident
from scripts.bench.server import module_environment


class Spent(NamedTuple):
    """`memory_gb`: the sum of the most that each process had resident, in 10⁹ bytes. `said`: its standard output."""

    wall_s: float
    cpu_s: float
    memory_gb: float
    said: bytes


def spent(module: str, arguments: Sequence[str], ends_well: Collection[int] = (0,)) -> Spent:
    """Runs `python -m module …`. Raises `LedgerUnavailable` where it ends otherwise than `ends_well` says."""
    began = perf_counter()
    process = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, env=_environment()
    )
    try:
        with Resident(process.pid) as resident:
            assert process.stdout is not None
            said = process.stdout.read()
        # Of its children, too: it waits for each.
        _, status, used = os.wait4(process.pid, 0)
        wall = perf_counter() - began
        # The child has been waited for, with what it used, behind Popen's back.
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        if process.returncode is None:
            process.terminate()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
    if process.returncode not in ends_well:
        raise LedgerUnavailable(f"{module} ended with {process.returncode}; what it said is above")
    return Spent(wall, used.ru_utime + used.ru_stime, resident.peak_bytes() / 1e9, said)


def _environment() -> dict[str, str]:
    # Modules are compiled once, as where people work, and not again in each child.
    return {name: value for name, value in module_environment().items() if name != "PYTHONDONTWRITEBYTECODE"}
