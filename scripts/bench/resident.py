"""How much memory a command takes together with the processes that it starts, watched from outside.

What is resident is read from /proc, so this runs on Linux.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ledger.errors import LedgerUnavailable

_LOOK_S: Final = 0.05


class Resident:
    """`with` for as long as the process runs. Raises `LedgerUnavailable` where there is no /proc."""

    def __init__(self, pid: int) -> None:
        if not Path(f"/proc/{pid}/status").exists():
            raise LedgerUnavailable("this suite reads what a command takes from /proc, which is not there; use Linux")
        self._pid = pid
        self._peaks: dict[int, int] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def peak_bytes(self) -> int:
        """The sum of the most that each of the processes had: no less than they ever had at once."""
        return sum(self._peaks.values())

    def _look_on(self) -> None:
        while True:
            self._look(self._pid)
            if self._over.wait(_LOOK_S):
                return

    def _look(self, pid: int) -> None:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        except OSError:
            # It has ended since it was named.
            return
        most = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
        # One that has ended and is not waited for yet has none.
        if most is not None:
            self._peaks[pid] = max(self._peaks.get(pid, 0), 1024 * int(most.split()[1]))
        for child in children.split():
            self._look(int(child))
