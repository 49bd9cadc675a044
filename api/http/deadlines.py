"""One shared timer for the deadlines of many requests.

`asyncio.timeout` creates a timer for each request, which costs more than reading a small body. Here all waits last
equally long, so their deadlines come in the order in which they began, and a timer for the first one suffices. A wait
costs one entry in a dict. Proved by tests/api/http/test_deadlines.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

Result = TypeVar("Result")


class Deadlines:
    """Works with any number of event loops."""

    def __init__(self) -> None:
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopDeadlines] = WeakKeyDictionary()

    async def within(self, seconds: float, work: Awaitable[Result]) -> Result:
        """The result of `work`. If it takes longer than `seconds`, cancels it and raises `TimeoutError`. Every call
        must use the same `seconds`."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        deadlines = self._loops.get(loop)
        if deadlines is None:
            deadlines = self._loops[loop] = _LoopDeadlines()
        cancelling = task.cancelling()
        deadlines.add(task, loop, seconds)
        try:
            return await work
        except asyncio.CancelledError:
            # A cancellation by another caller, even at the same time, must go on.
            if deadlines.expired(task) and task.uncancel() <= cancelling:
                raise TimeoutError from None
            raise
        finally:
            deadlines.remove(task)


class _LoopDeadlines:
    """The deadlines of one event loop. Holds no reference to the loop, which would then never be freed."""

    def __init__(self) -> None:
        self._until: dict[asyncio.Task[Any], float] = {}
        self._expired: set[asyncio.Task[Any]] = set()
        self._timer_runs = False

    def add(self, task: asyncio.Task[Any], loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        until = self._until[task] = loop.time() + seconds
        if not self._timer_runs:
            self._timer_runs = True
            loop.call_at(until, self._on_timer, loop)

    def remove(self, task: asyncio.Task[Any]) -> None:
        self._until.pop(task, None)
        self._expired.discard(task)

    def expired(self, task: asyncio.Task[Any]) -> bool:
        return task in self._expired

    def _on_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task, until in list(self._until.items()):
            if until > now:
                loop.call_at(until, self._on_timer, loop)
                return
            del self._until[task]
            self._expired.add(task)
            task.cancel()
        self._timer_runs = False
