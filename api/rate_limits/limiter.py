"""Counts requests per principal, and failed sign-ins per address, against a limit.

The library `limits` counts, in fixed windows: the window of a key begins with its first request. The counters are in
the memory of this process, in a store of our own, because the library's grows without a bound and walks over all its
keys, on a thread of its own, a hundred times a second. The header fields are those of
draft-ietf-httpapi-ratelimit-headers-11. Proved by tests/api/test_rate_limits.py.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from limits import RateLimitItemPerSecond
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from api.rate_limits.limit import RateLimit
from ledger.clock import Clock, SystemClock

KEYS_MAX: Final = 50_000
"""Keys that are counted. Beyond that the key that was used longest ago begins anew."""

Header = tuple[bytes, bytes]


class RateAllowance(NamedTuple):
    """`retry_after_s`: None if the request is allowed; else one is allowed again after these seconds.
    `headers`: RateLimit-Policy and RateLimit."""

    retry_after_s: int | None
    headers: tuple[Header, Header]


class RateLimiter:
    """The requests of each key under one policy, whose name the header fields give."""

    def __init__(self, policy: str, limit: RateLimit, clock: Clock | None = None, keys_max: int = KEYS_MAX) -> None:
        self._clock = clock or SystemClock()
        self._storage = BoundedStorage(self._clock, limit.window_s, keys_max)
        self._limiter = FixedWindowRateLimiter(self._storage)
        self._item = RateLimitItemPerSecond(limit.requests, limit.window_s, namespace="")
        self._window_s = limit.window_s
        policy_value = f'"{policy}";q={limit.requests};w={limit.window_s}'
        self._policy_header = (b"ratelimit-policy", policy_value.encode("ascii"))
        self._format = b'"%b";r=%%d;t=%%d' % policy.encode("ascii")

    def take(self, key: str) -> RateAllowance:
        """Counts one request, and says whether it is within the limit."""
        return self._allowance(key, self._limiter.hit(self._item, key))

    def look(self, key: str) -> RateAllowance:
        """Whether one more request would be within the limit. Counts nothing."""
        return self._allowance(key, self._limiter.test(self._item, key))

    def _allowance(self, key: str, allowed: bool) -> RateAllowance:
        # The library's own get_window_stats costs as much as the rest of this.
        count, left_us = self._storage.window(self._item.key_for(key))
        # At least 1: a client with 0 would ask again at once. At most the window: a clock can be set back.
        seconds = min(max(-(-left_us // 1_000_000), 1), self._window_s)
        limit_header = (b"ratelimit", self._format % (max(self._item.amount - count, 0), seconds))
        return RateAllowance(None if allowed else seconds, (self._policy_header, limit_header))


class BoundedStorage(Storage):
    """Counters of at most `keys_max` keys under one policy, with times in µs. Belongs to one event loop.

    A key that is used moves to the end of the dict, so the first one is the one to forget."""

    STORAGE_SCHEME = None

    def __init__(self, clock: Clock, window_s: int, keys_max: int) -> None:
        super().__init__()
        self._clock = clock
        self._window_us = window_s * 1_000_000
        self._keys_max = keys_max
        self._counters: dict[str, tuple[int, int]] = {}
        """Key → (count, end of its window)."""

    @property
    def base_exceptions(self) -> type[Exception]:
        return KeyError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        count, left_us = self.window(key)
        end = self._clock.now() + (left_us or self._window_us)
        if self._counters.pop(key, None) is None and len(self._counters) >= self._keys_max:
            del self._counters[next(iter(self._counters))]
        self._counters[key] = count + amount, end
        return count + amount

    def get(self, key: str) -> int:
        return self.window(key)[0]

    def get_expiry(self, key: str) -> float:
        return self._clock.now() + self.window(key)[1]

    def window(self, key: str) -> tuple[int, int]:
        """(count, µs until the window ends); zeros if none has begun, or the clock was set back before it."""
        count, end = self._counters.get(key, (0, 0))
        left_us = end - self._clock.now()
        if left_us > self._window_us:
            # Without this the old window would hold again once the clock reaches it.
            del self._counters[key]
        return (count, left_us) if 0 < left_us <= self._window_us else (0, 0)

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        count = len(self._counters)
        self._counters.clear()
        return count

    def clear(self, key: str) -> None:
        self._counters.pop(key, None)
