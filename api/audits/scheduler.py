"""Runs the audits of a folder one after the other, each in a process of its own, whichever server received them.

A thread scans the folder regularly and starts every audit that is unfinished and that no process runs. If a process
crashes, its audit is started again; after three crashes the audit fails.
Proved by tests/api/audits/test_scheduler.py.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from api.audits.folder import LOG, AlreadyClaimed, AuditFolder, claim, forget_progress, read, write
from api.audits.jobs import (
    EXIT_ALREADY_CLAIMED,
    EXIT_DONE,
    EXIT_LEDGER_UNAVAILABLE,
    AuditOutcome,
    Failure,
    Job,
)
from api.http.problems import error_location

CRASHES_MAX: Final = 3
_SCAN_S: Final = 1.0
_POLL_S: Final = 0.1
_RETRY_S: Final = 2.0
_ROOT: Final = Path(__file__).parents[2]

_log = logging.getLogger("inforce.audits")


class AuditScheduler:
    """`url`: of the ledger. The process gets it on its standard input, where no other user can read it. `now`: the
    present in µs."""

    def __init__(self, folder: AuditFolder, url: str, now: Callable[[], int]) -> None:
        self._folder = folder
        self._url = url
        self._now = now
        self._stop = threading.Event()
        self._scan = threading.Event()
        self._crashes: Counter[str] = Counter()
        self._not_before: dict[str, float] = {}
        self._thread: threading.Thread | None = None
        self._start_lock = threading.Lock()
        self._last_fault: str | None = None

    def start(self) -> None:
        """Starts the thread if it does not run yet, and makes it scan now."""
        with self._start_lock:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="inforce-audits", daemon=True)
                self._thread.start()
        self._scan.set()

    def close(self) -> None:
        """Kills the running audit. The next server of the folder starts it again."""
        with self._start_lock:
            self._stop.set()
        self._scan.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._scan.clear()
            if not self._turn():
                self._scan.wait(_SCAN_S)
        # Removes an audit that was deleted while it ran.
        self._turn()

    def _turn(self) -> bool:
        """Whether there was an audit to run."""
        try:
            self._folder.sweep(self._now())
            job = None if self._stop.is_set() else self._next()
            if job is not None:
                self._settle(job, self._run_process(job))
        except Exception as error:
            # Such as a full disk or a missing folder: it may work next time.
            self._log_once(error_location(error))
            return False
        self._last_fault = None
        return job is not None

    def _log_once(self, fault: str) -> None:
        """Logs a fault once, although every scan repeats it."""
        if fault != self._last_fault:
            _log.error("audits cannot be run at the moment: %s", fault)
        self._last_fault = fault

    def _next(self) -> Job | None:
        waiting = self._folder.waiting(self._now())
        ids = {job.id for job in waiting}
        self._not_before = {id_: at for id_, at in self._not_before.items() if id_ in ids}
        return next((job for job in waiting if self._not_before.get(job.id, 0.0) <= time.monotonic()), None)

    def _run_process(self, job: Job) -> int | None:
        """The exit code; None if the process was killed because the audit was deleted or the server stops."""
        path = self._folder.path_of(job.id).absolute()
        with subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "api.audits.worker_process", str(path)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            # Unbuffered: after a crash, closing the pipe must not try to write the rest again.
            bufsize=0,
            stdout=subprocess.DEVNULL,
            # Ctrl-C in a terminal must reach the server only, which then kills its processes.
            start_new_session=True,
        ) as process:
            assert process.stdin is not None
            try:
                process.stdin.write(f"{self._url}\n".encode())
                swept_at = time.monotonic()
                while (code := process.poll()) is None:
                    if self._stop.is_set() or not path.exists():
                        return None
                    self._stop.wait(_POLL_S)
                    # An audit may run for hours, and meanwhile deleted ones would occupy the disk.
                    if time.monotonic() - swept_at >= _SCAN_S:
                        self._sweep()
                        swept_at = time.monotonic()
            except BrokenPipeError:
                return process.wait()
            finally:
                process.kill()
        return code

    def _sweep(self) -> None:
        try:
            self._folder.sweep(self._now())
        except Exception as error:
            # Not raised, because that would kill the running audit.
            self._log_once(error_location(error))

    def _settle(self, job: Job, code: int | None) -> None:
        path = self._folder.path_of(job.id)
        # A process may crash while it exits, after it wrote the outcome.
        if code in (EXIT_DONE, None) or read(path, AuditOutcome) is not None:
            return
        self._not_before[job.id] = time.monotonic() + _RETRY_S
        if code == EXIT_ALREADY_CLAIMED:
            return
        forget_progress(path)
        if code == EXIT_LEDGER_UNAVAILABLE:
            return
        self._crashes[job.id] += 1
        crashes = self._crashes[job.id]
        _log.warning("audit %s: its process ended with %s, try %s of %s", job.id, code, crashes, CRASHES_MAX)
        if crashes >= CRASHES_MAX:
            self._give_up(path, code)

    def _give_up(self, path: Path, code: int | None) -> None:
        detail = (
            f"the audit's process crashed {CRASHES_MAX} times, the last time with exit code {code}; "
            "the server's log has details under the audit's id"
        )
        try:
            with claim(path):
                error = Failure(code="audit_failed", detail=detail)
                write(path, AuditOutcome(finished_at=self._now(), error=error))
        except (AlreadyClaimed, FileNotFoundError):
            return
        (path / LOG).unlink(missing_ok=True)
