"""Waiting until the ledger has reached a position, whoever records it.

One follower per ledger and process. What this process records it is told; what others record it sees through a `Watch`
of the database, in one thread that runs only while somebody waits or follows, so nobody who waits holds a thread or a
connection of a pool. Whatever tells of news is a hint: a position counts as reached when the database has shown it,
or when this process has committed it. Proved by tests/contracts/test_following.py.
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
from ledger.recorders.contract import Head, Recorder, Watch
from ledger.recorders.waking import pause

AT_LEAST_SECONDS_MAX: Final = 5.0
"""How long a question that asks for a position waits for it."""
POLL_S: Final = 0.25
"""A notification can be lost (a connection that broke, a pooler between): then news is found after this long."""
RETRY_S: Final = 0.1
RETRY_S_MAX: Final = 2.0
"""Between attempts at a database that does not answer: doubled from the first to the second."""
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
        self._head = Head(0, None)
        self._waiters: dict[object, _Waiter] = {}
        self._following = 0
        self._closed = False
        self._thread: threading.Thread | None = None
        self._waker: socket.socket | None = None

    @property
    def head(self) -> Head:
        """What the ledger has reached for certain; it may be further."""
        return self._head

    @property
    def position(self) -> int:
        return self._head.position

    def grown(self, head: Head) -> None:
        """Takes note that everything up to `head` is committed, and wakes who waits for it."""
        with self._lock:
            if head.position <= self.position:
                return
            self._head = head
            reached = [token for token, waiter in self._waiters.items() if waiter.position <= head.position]
            woken = [self._waiters.pop(token) for token in reached]
        for waiter in woken:
            waiter.wake()

    def look(self) -> int:
        """The position of the ledger's head, read now. Raises `LedgerUnavailable`."""
        self.grown(self._recorder.head())
        return self.position

    def wait_for(self, position: int, timeout_s: float = AT_LEAST_SECONDS_MAX) -> None:
        """Returns once the ledger has reached `position`, blocking this thread. Raises `PositionNotReached`."""
        if self.position >= position or self.look() >= position:
            return
        reached = threading.Event()
        with self._waiting(position, reached.set):
            reached.wait(timeout_s)
        self._require(position)

    async def reached(self, position: int, timeout_s: float = AT_LEAST_SECONDS_MAX) -> None:
        """The same for an event loop. Reads no database itself: call `look` in a thread first."""
        loop = asyncio.get_running_loop()
        reached: asyncio.Future[None] = loop.create_future()
        with self._waiting(position, partial(_wake, loop, reached)):
            await asyncio.wait({reached}, timeout=timeout_s)
        self._require(position)

    def _require(self, position: int) -> None:
        if self.position < position:
            if self._closed:
                raise LedgerUnavailable("the ledger was closed while somebody waited for it")
            raise PositionNotReached(position, self.position)

    @contextmanager
    def following(self) -> Iterator[None]:
        """Keeps watch for the block, so that waiting again and again in it does not begin anew each time."""
        with self._lock:
            self._keep_watch()
            self._following += 1
        try:
            yield
        finally:
            with self._lock:
                self._following -= 1
                self._wake_watch_if_idle()

    @contextmanager
    def _waiting(self, position: int, wake: Callable[[], None]) -> Iterator[None]:
        token = object()
        with self._lock:
            if self.position >= position or self._closed:
                wake()
            else:
                self._keep_watch()
                self._waiters[token] = _Waiter(position, wake)
        try:
            yield
        finally:
            with self._lock:
                self._waiters.pop(token, None)
                self._wake_watch_if_idle()

    def close(self) -> None:
        """Ends the watch; whoever still waits is told."""
        with self._lock:
            self._closed = True
            woken = list(self._waiters.values())
            self._waiters.clear()
            thread = self._thread
            self._wake_watch()
        for waiter in woken:
            waiter.wake()
        if thread is not None:
            thread.join(CLOSE_S_MAX)

    def _keep_watch(self) -> None:
        """Under the lock."""
        if self._thread is not None or self._closed:
            return
        waker, woken = socket.socketpair()
        # A daemon: a database that never answers must not keep the process from ending.
        thread = threading.Thread(target=self._watch, args=(woken,), name="inforce-follow", daemon=True)
        try:
            thread.start()
        except BaseException as error:
            waker.close()
            woken.close()
            if isinstance(error, RuntimeError):
                raise LedgerUnavailable("no thread is to be had to wait for the ledger; try again") from None
            raise
        # Only one that runs: whoever comes next would rely on it. It waits for the lock before it looks.
        self._waker, self._thread = waker, thread

    def _wake_watch_if_idle(self) -> None:
        if not self._waiters and not self._following:
            self._wake_watch()

    def _wake_watch(self) -> None:
        """Under the lock. The watch sees for itself why it was woken."""
        if self._waker is not None:
            with suppress(OSError):
                self._waker.send(b"\0", socket.MSG_DONTWAIT)

    def _done(self) -> bool:
        with self._lock:
            if not self._closed and (self._waiters or self._following):
                return False
            self._forget_thread()
            return True

    def _forget_thread(self) -> None:
        """Under the lock: whoever comes next begins another."""
        self._thread = None
        if self._waker is not None:
            self._waker.close()
            self._waker = None

    def _watch(self, woken: socket.socket) -> None:
        watch: Watch | None = None
        failed = 0
        with woken:
            try:
                while not self._done():
                    try:
                        if watch is None:
                            watch = self._recorder.watch()
                        self.grown(watch.head())
                        failed = 0
                        watch.wait(POLL_S, woken)
                    except LedgerUnavailable as error:
                        if watch is not None:
                            watch.close()
                            watch = None
                        if not failed:
                            _log.warning("following the ledger was cut off and begins again: %s", error.detail)
                        failed += 1
                        # Where only the watch cannot be had, as when connections are exhausted, polling still works.
                        with suppress(LedgerUnavailable):
                            self.look()
                        pause(min(RETRY_S * 2 ** min(failed - 1, 10), RETRY_S_MAX), woken)
            finally:
                if watch is not None:
                    watch.close()
                with self._lock:
                    if self._thread is threading.current_thread():
                        self._forget_thread()


def _wake(loop: asyncio.AbstractEventLoop, reached: asyncio.Future[None]) -> None:
    # A loop that has ended since has nobody left to be told.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(_tell, reached)


def _tell(reached: asyncio.Future[None]) -> None:
    if not reached.done():
        reached.set_result(None)
