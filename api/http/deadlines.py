"""One timer for what many requests wait for at once.

`asyncio.timeout` makes a timer for each, which costs more than reading a small body does. Here they all have the same
patience, so their deadlines come in the order in which they began to wait, and the first is all that has to be watched:
the price is an entry in a dict.
Proved by tests/api/http/test_deadlines.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

Found = TypeVar("Found")


class Deadlines:
    """For any number of event loops."""

    def __init__(self) -> None:
        self._waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, _Waiting] = WeakKeyDictionary()

    async def within(self, seconds: float, work: Awaitable[Found]) -> Found:
        """What `work` comes to. Raises `TimeoutError`, having cancelled it, where that takes longer. `seconds`: the
        same every time."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        waiting = self._waiting.get(loop)
        if waiting is None:
            waiting = self._waiting[loop] = _Waiting()
        before = task.cancelling()
        waiting.begin(task, loop, seconds)
        try:
            return await work
        except asyncio.CancelledError:
            # Unless somebody else has cancelled it, too.
            if waiting.expired(task) and task.uncancel() <= before:
                raise TimeoutError from None
            raise
        finally:
            waiting.end(task)


class _Waiting:
    """Those of one loop. It does not hold the loop, which would never go then."""

    def __init__(self) -> None:
        self._until: dict[asyncio.Task[Any], float] = {}
        self._expired: set[asyncio.Task[Any]] = set()
        self._watched = False

    def begin(self, task: asyncio.Task[Any], loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        until = self._until[task] = loop.time() + seconds
        if not self._watched:
            self._watched = True
            loop.call_at(until, self._look, loop)

    def end(self, task: asyncio.Task[Any]) -> None:
        self._until.pop(task, None)
        self._expired.discard(task)

    def expired(self, task: asyncio.Task[Any]) -> bool:
        return task in self._expired

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task, until in list(self._until.items()):
            if until > now:
                loop.call_at(until, self._look, loop)
                return
            del self._until[task]
            self._expired.add(task)
            task.cancel()
        self._watched = False
