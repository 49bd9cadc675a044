"""Waiting until the ledger has reached a position, whoever records the events.

One follower per ledger and process. It learns at once what this process records. It sees what others record through a
`Watch` of the database, in one thread that runs only while somebody waits or keeps watching, so a waiter holds neither
a thread nor a pooled connection. Notifications are only hints: a position counts as reached when the database has
shown it, or when this process has committed it. Proved by tests/contracts/test_following.py.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final, NamedTuple

from ledger.errors import LedgerUnavailable, PositionNotReached
from ledger.recorders.common import sleep_until_wakeup
from ledger.recorders.contract import Recorder, Watch

AT_LEAST_SECONDS_MAX: Final = 5.0
"""How long a question with `at_least` waits for its position."""
POLL_S: Final = 0.25
"""Between two reads of the head. A notification can be lost (broken connection, pooler); then this finds the news."""
RETRY_S: Final = 0.1
RETRY_S_MAX: Final = 2.0
"""Between attempts at a database that does not answer: doubled from the first value up to the second."""
CLOSE_S_MAX: Final = 10.0

_log = logging.getLogger("inforce.ledger")


class _Waiter(NamedTuple):
    position: int
    wake: Callable[[], None]


class Follower:
    """Safe to use from many threads and event loops."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._lock = threading.Lock()
        self._position = 0
        self._waiters: dict[object, _Waiter] = {}
        self._watchers = 0
        self._closed = False
        self._thread: threading.Thread | None = None
        self._waker: socket.socket | None = None

    @property
    def position(self) -> int:
        """The position that the ledger has reached for certain; it may be further."""
        return self._position

    def advance_to(self, position: int) -> None:
        """Records that everything up to `position` is committed, and wakes those who wait for it."""
        with self._lock:
            if position <= self._position:
                return
            self._position = position
            tokens = [token for token, waiter in self._waiters.items() if waiter.position <= position]
            waiters = [self._waiters.pop(token) for token in tokens]
        for waiter in waiters:
            waiter.wake()

    def reset(self, position: int) -> None:
        """The ledger went back to `position`, and goes on from there."""
        with self._lock:
            self._position = position

    def refresh(self) -> int:
        """The position of the ledger's head, read now. Raises `LedgerUnavailable`."""
        self.advance_to(self._recorder.head().position)
        return self.position

    def wait_for(self, position: int, timeout_s: float = AT_LEAST_SECONDS_MAX) -> None:
        """Blocks this thread until the ledger has reached `position`. Raises `PositionNotReached`."""
        if self.position >= position or self.refresh() >= position:
            return
        event = threading.Event()
        with self._waiting(position, event.set):
            event.wait(timeout_s)
        self._require(position)

    async def wait_for_async(self, position: int, timeout_s: float = AT_LEAST_SECONDS_MAX) -> None:
        """The same on an event loop. Reads no database itself: call `refresh` in a thread first."""
        loop = asyncio.get_running_loop()
        reached = asyncio.Event()
        with self._waiting(position, partial(_wake, loop, reached)), suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await reached.wait()
        self._require(position)

    def _require(self, position: int) -> None:
        if self.position < position:
            if self._closed:
                raise LedgerUnavailable("the ledger was closed while a question waited for it")
            raise PositionNotReached(position, self.position)

    @contextmanager
    def keep_watching(self) -> Iterator[None]:
        """Keeps the watch open during the block, so that repeated waits do not each open a new one."""
        with self._lock:
            self._start_watch()
            self._watchers += 1
        try:
            yield
        finally:
            with self._lock:
                self._watchers -= 1
                self._wake_watch_if_idle()

    @contextmanager
    def _waiting(self, position: int, wake: Callable[[], None]) -> Iterator[None]:
        token = object()
        with self._lock:
            if self.position >= position or self._closed:
                wake()
            else:
                self._start_watch()
                self._waiters[token] = _Waiter(position, wake)
        try:
            yield
        finally:
            with self._lock:
                self._waiters.pop(token, None)
                self._wake_watch_if_idle()

    def close(self) -> None:
        """Ends the watch and wakes all waiters, which then raise."""
        with self._lock:
            self._closed = True
            waiters = list(self._waiters.values())
            self._waiters.clear()
            thread = self._thread
            self._wake_watch()
        for waiter in waiters:
            waiter.wake()
        if thread is not None:
            thread.join(CLOSE_S_MAX)

    def _start_watch(self) -> None:
        """Starts the thread unless it runs. The caller holds the lock."""
        if self._thread is not None or self._closed:
            return
        waker, wakeup = socket.socketpair()
        # A daemon thread: a database that never answers must not keep the process from ending.
        thread = threading.Thread(target=self._watch, args=(wakeup,), name="inforce-follow", daemon=True)
        try:
            thread.start()
        except BaseException as error:
            waker.close()
            wakeup.close()
            if isinstance(error, RuntimeError):
                raise LedgerUnavailable("no thread can be started to wait for the ledger; try again") from None
            raise
        # Stored only once the thread runs, because later callers rely on it. The thread takes the lock before it reads
        # these fields.
        self._waker, self._thread = waker, thread

    def _wake_watch_if_idle(self) -> None:
        if not self._waiters and not self._watchers:
            self._wake_watch()

    def _wake_watch(self) -> None:
        """Wakes the thread, which checks for itself what has changed. The caller holds the lock."""
        if self._waker is not None:
            with suppress(OSError):
                self._waker.send(b"\0", socket.MSG_DONTWAIT)

    def _end_watch_if_idle(self) -> bool:
        with self._lock:
            if not self._closed and (self._waiters or self._watchers):
                return False
            self._forget_thread()
            return True

    def _forget_thread(self) -> None:
        """Lets the next waiter start another thread. The caller holds the lock."""
        self._thread = None
        if self._waker is not None:
            self._waker.close()
            self._waker = None

    def _watch(self, wakeup: socket.socket) -> None:
        watch: Watch | None = None
        failures = 0
        with wakeup:
            try:
                while not self._end_watch_if_idle():
                    try:
                        if watch is None:
                            watch = self._recorder.watch()
                        self.advance_to(watch.head().position)
                        failures = 0
                        watch.wait(POLL_S, wakeup)
                    except LedgerUnavailable as error:
                        if watch is not None:
                            watch.close()
                            watch = None
                        if not failures:
                            _log.warning("following the ledger was cut off and begins again: %s", error.detail)
                        failures += 1
                        # If only the watch is unavailable, as when connections are exhausted, polling still works.
                        with suppress(LedgerUnavailable):
                            self.refresh()
                        pause_s = min(RETRY_S * 2 ** min(failures - 1, 10), RETRY_S_MAX)
                        sleep_until_wakeup(pause_s, wakeup)
            finally:
                if watch is not None:
                    watch.close()
                with self._lock:
                    if self._thread is threading.current_thread():
                        self._forget_thread()


def _wake(loop: asyncio.AbstractEventLoop, reached: asyncio.Event) -> None:
    # A closed loop has no waiter left.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(reached.set)
