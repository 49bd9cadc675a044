"""The places and the memory that all requests of a process share.

A body counts from its 16th KiB on as it arrives, so a client that announces a body and sends none of it holds nothing.
An answer counts from when it is encoded until the client has taken it. Requests beyond these bounds get 503
`server_busy` with `Retry-After`. Health checks have places of their own.
Proved by tests/api/http/test_shared.py and tests/api/memory/.
"""

from __future__ import annotations

from typing import Any, Final

BODIES_BYTES_MAX: Final = 32 * 1024 * 1024
ANSWERS_BYTES_MAX: Final = 32 * 1024 * 1024
SMALL_BYTES: Final = 16 * 1024
"""A body up to this size is not counted: the number of requests bounds these."""
REQUESTS_MAX: Final = 640
"""Requests that are answered at once, streams and waiting questions included."""
HEALTH_PATHS: Final = frozenset(("/healthz", "/readyz", "/metrics"))
"""Answered at any number of requests."""


class ByteBudget:
    """Counts bytes up to a bound. Belongs to one event loop."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.used = 0

    def take(self, bytes_: int, *, beyond: bool = False) -> bool:
        """Whether the bytes fit, and are now counted. `beyond`: count them even if they do not fit."""
        if self.used + bytes_ > self.bytes_max and not beyond:
            return False
        self.used += bytes_
        return True

    def give_back(self, bytes_: int) -> None:
        self.used -= bytes_


class SharedResources:
    """`clients`: (host, port) of every connection whose request is being answered."""

    def __init__(
        self,
        bodies_bytes_max: int = BODIES_BYTES_MAX,
        answers_bytes_max: int = ANSWERS_BYTES_MAX,
        requests_max: int = REQUESTS_MAX,
    ) -> None:
        self.bodies = ByteBudget(bodies_bytes_max)
        self.answers = ByteBudget(answers_bytes_max)
        self.requests_max = requests_max
        self.clients: set[Any] = set()

    def has_place(self, path: str) -> bool:
        return len(self.clients) < self.requests_max or path in HEALTH_PATHS


class HeldBody:
    """The bytes of one request's body that are counted in the budget of all bodies."""

    __slots__ = ("_budget", "_bytes")

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._bytes = 0

    def grow(self, bytes_: int) -> bool:
        """Whether the budget has room for a body that has this size by now."""
        if bytes_ <= SMALL_BYTES:
            return True
        if not self._budget.take(bytes_ - self._bytes):
            return False
        self._bytes = bytes_
        return True

    def release(self) -> None:
        if self._bytes:
            self._budget.give_back(self._bytes)
            self._bytes = 0
