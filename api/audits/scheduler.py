"""Runs the audits of a folder one after the other, each in a process of its own, whoever put them there.

A thread that looks at the folder now and then: what it finds unfinished and in nobody's hands, it begins (again). A
process that ends by itself is begun anew; one that does so every time has failed. Proved by
tests/api/audits/test_scheduler.py.
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

from api.audits import folder as folders
from api.audits.folder import AuditFolder, Claimed, claim
from api.audits.jobs import AuditOutcome, Failure, Job
from api.http.problems import error_location

TRIES: Final = 3
_LOOK_S: Final = 1.0
_POLL_S: Final = 0.1
_AGAIN_S: Final = 2.0
_UNAVAILABLE: Final = 3
_TAKEN: Final = 4
"""As `api.audits.worker_process` says; importing that would bring the bulk engine into the serving process."""
_ROOT: Final = Path(__file__).parents[2]

_log = logging.getLogger("inforce.audits")


class AuditScheduler:
    """`url`: of the ledger, which is told to the process on its standard input, where nobody else can read it.
    `now`: the present in µs."""

    def __init__(self, folder: AuditFolder, url: str, now: Callable[[], int]) -> None:
        self._folder = folder
        self._url = url
        self._now = now
        self._stop = threading.Event()
        self._look = threading.Event()
        self._failures: Counter[str] = Counter()
        self._not_before: dict[str, float] = {}
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._complaint: str | None = None

    def start(self) -> None:
        """Begins to look, if it does not already."""
        with self._starting:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="inforce-audits", daemon=True)
                self._thread.start()
        self._look.set()

    def close(self) -> None:
        """What is running is cut off: it is begun again by whoever serves the folder next."""
        with self._starting:
            self._stop.set()
        self._look.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._look.clear()
            if not self._turn():
                self._look.wait(_LOOK_S)
        # What was deleted while it was being audited.
        self._turn()

    def _turn(self) -> bool:
        """Whether there was anything to do."""
        try:
            self._folder.sweep(self._now())
            job = None if self._stop.is_set() else self._next()
            if job is not None:
                self._settle(job, self._child(job))
        except Exception as error:
            # A full disk, a folder that went away: it may be another time.
            self._complain(error_location(error))
            return False
        self._complaint = None
        return job is not None

    def _complain(self, complaint: str) -> None:
        """Once, however often it is tried again."""
        if complaint != self._complaint:
            _log.error("audits cannot be run at the moment: %s", complaint)
        self._complaint = complaint

    def _next(self) -> Job | None:
        waiting = self._folder.waiting(self._now())
        known = {job.id for job in waiting}
        self._not_before = {id_: at for id_, at in self._not_before.items() if id_ in known}
        return next((job for job in waiting if self._not_before.get(job.id, 0.0) <= time.monotonic()), None)

    def _child(self, job: Job) -> int | None:
        """Its exit code; None where it was cut off because the audit was deleted, or this ends."""
        path = self._folder.of(job.id).absolute()
        with subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "api.audits.worker_process", str(path)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            # What a process that was killed at once did not take must not be tried again when the pipe is closed.
            bufsize=0,
            stdout=subprocess.DEVNULL,
            # Ctrl-C in a terminal is for the server, which ends what it began.
            start_new_session=True,
        ) as process:
            assert process.stdin is not None
            try:
                process.stdin.write(f"{self._url}\n".encode())
                swept = time.monotonic()
                while (code := process.poll()) is None:
                    if self._stop.is_set() or not path.exists():
                        return None
                    self._stop.wait(_POLL_S)
                    # It may take hours, and what was deleted meanwhile holds its place on the disk.
                    if time.monotonic() - swept >= _LOOK_S:
                        self._sweep()
                        swept = time.monotonic()
            except BrokenPipeError:
                return process.wait()
            finally:
                process.kill()
        return code

    def _sweep(self) -> None:
        try:
            self._folder.sweep(self._now())
        except Exception as error:
            # No reason to cut off the audit that runs.
            self._complain(error_location(error))

    def _settle(self, job: Job, code: int | None) -> None:
        # A process may come to grief while it ends, with its audit done.
        if code in (0, None) or folders.read(self._folder.of(job.id), AuditOutcome) is not None:
            return
        self._not_before[job.id] = time.monotonic() + _AGAIN_S
        if code == _TAKEN:
            return
        folders.forget_progress(self._folder.of(job.id))
        if code == _UNAVAILABLE:
            return
        self._failures[job.id] += 1
        _log.warning("audit %s: its process ended with %s, try %s of %s", job.id, code, self._failures[job.id], TRIES)
        if self._failures[job.id] >= TRIES:
            self._give_up(job, code)

    def _give_up(self, job: Job, code: int | None) -> None:
        detail = (
            f"the audit's process ended with {code} every one of {TRIES} times; the server's log says more under its id"
        )
        try:
            with claim(self._folder.of(job.id)):
                error = Failure(code="audit_failed", detail=detail)
                folders.write(self._folder.of(job.id), AuditOutcome(finished_at=self._now(), error=error))
        except (Claimed, FileNotFoundError):
            return
        (self._folder.of(job.id) / folders.LOG).unlink(missing_ok=True)
