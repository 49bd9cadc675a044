"""The thread of a server that keeps the log up to the ledger, and wakes those who wait for a checkpoint.

Of all servers of a ledger, the one that holds the integrator's lock does the work; the others try to get the lock now
and then, and look at what was published only while somebody waits. A round follows the last one after `INTERVAL_S`, or
at once if somebody waits, so a checkpoint is less than a second behind the ledger unless more arrives than can be
integrated. Proved by tests/contracts/test_log_publisher.py.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from traceback import extract_tb
from typing import Final, NamedTuple

from ledger.errors import InforceError, LedgerUnavailable
from ledger.recorders.contract import Recorder
from ledger.transparency.integrator import Integrator, LogProblem

INTERVAL_S: Final = 0.5
LEADER_RETRY_S: Final = 5.0
"""Between two attempts at the lock while another process holds it."""
PUBLISH_S: Final = 0.8
"""While there is always more to integrate, a checkpoint is published after so many seconds."""
CLOSE_S_MAX: Final = 30.0

_log = logging.getLogger("inforce.ledger")


class LogStatus(NamedTuple):
    """`size`: events under the last published checkpoint, as far as this process knows. `integrates`: whether this
    process does the work. `problem`: why it signs nothing."""

    size: int
    integrates: bool
    problem: LogProblem | None


class _ProofWaiter(NamedTuple):
    size: int
    wake: Callable[[], None]


class LogPublisher:
    """Safe to use from many threads and event loops."""

    def __init__(self, recorder: Recorder, integrator: Integrator) -> None:
        self._recorder = recorder
        self._integrator = integrator
        self._tables = recorder.log_tables()
        self._leader = recorder.integrator_lock()
        self._lock = threading.Lock()
        self._waiters: dict[object, _ProofWaiter] = {}
        self._wake = threading.Event()
        self._stopping = False
        self._retry_leading_at = 0.0
        self._settled = -1
        """The ledger's head when nothing was left to do."""
        self.status = LogStatus(0, integrates=False, problem=None)
        self._thread = threading.Thread(target=self._run, name="inforce-log", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread after its present step, and wakes all who wait."""
        self._stopping = True
        self._wake.set()
        self._thread.join(CLOSE_S_MAX)
        with self._lock:
            waiters = list(self._waiters.values())
            self._waiters.clear()
        for waiter in waiters:
            waiter.wake()

    async def wait_for_async(self, size: int, timeout_s: float) -> bool:
        """Whether the published tree has `size` events now, or within the time."""
        if self.status.size >= size:
            return True
        loop = asyncio.get_running_loop()
        published = asyncio.Event()
        token = object()
        with self._lock:
            self._waiters[token] = _ProofWaiter(size, partial(_wake, loop, published))
        if self.status.size >= size:
            # Published between the first look and the entry among those who wait.
            published.set()
        self._wake.set()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await published.wait()
        finally:
            with self._lock:
                self._waiters.pop(token, None)
        return self.status.size >= size

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._wake.clear()
                self._round()
                self._wake.wait(INTERVAL_S)
        finally:
            self._leader.release()

    def _round(self) -> None:
        problem, integrates = self.status.problem, False
        try:
            integrates = self._leads()
            if integrates:
                problem = self._work()
            elif self._waiters:
                self._look()
        except LedgerUnavailable as error:
            problem = LogProblem("log_unavailable", error.detail)
        except InforceError as error:
            problem = LogProblem("log_damaged", error.detail)
        except Exception as error:
            # Not in silence. The words of an error may hold somebody's data; its places do not.
            places = " < ".join(f"{one.name}:{one.lineno}" for one in reversed(extract_tb(error.__traceback__)[-6:]))
            problem = LogProblem("log_unavailable", f"an error of inforce itself: {type(error).__name__} at {places}")
        self._note(problem, integrates=integrates)

    def _leads(self) -> bool:
        if not self.status.integrates and time.monotonic() < self._retry_leading_at:
            return False
        if self._leader.acquire():
            return True
        self._retry_leading_at = time.monotonic() + LEADER_RETRY_S
        self._settled = -1
        return False

    def _work(self) -> LogProblem | None:
        head = self._recorder.head().position
        if head == self._settled:
            self._integrator.patrol()
            self._settled = head if self._integrator.problem is None else -1
            return self._integrator.problem
        published_at = time.monotonic()
        while not self._stopping and self._integrator.integrate():
            if time.monotonic() - published_at >= PUBLISH_S:
                self._reach(self._integrator.publish())
                published_at = time.monotonic()
        size = self._integrator.publish()
        self._reach(size)
        if self._integrator.problem is None:
            self._integrator.patrol()
        self._settled = head if size == head and self._integrator.problem is None else -1
        return self._integrator.problem

    def _look(self) -> None:
        published = self._tables.head("published")
        self._reach(0 if published is None else published.size)

    def _reach(self, size: int) -> None:
        self.status = self.status._replace(size=size)
        with self._lock:
            reached = [token for token, waiter in self._waiters.items() if waiter.size <= size]
            waiters = [self._waiters.pop(token) for token in reached]
        for waiter in waiters:
            waiter.wake()

    def _note(self, problem: LogProblem | None, *, integrates: bool) -> None:
        before = self.status.problem
        self.status = self.status._replace(problem=problem, integrates=integrates)
        # The words of a database that does not answer change from one attempt to the next.
        is_known = before is not None and problem is not None and problem.code == before.code == "log_unavailable"
        if problem is not None and problem != before and not is_known:
            _log.error("%s: no checkpoint of the log is signed: %s", problem.code, problem.detail)
        elif problem is None and before is not None:
            _log.warning("checkpoints of the log are signed again")


def _wake(loop: asyncio.AbstractEventLoop, published: asyncio.Event) -> None:
    # A closed loop has no waiter left.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(published.set)
