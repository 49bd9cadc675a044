"""A rate limit as the configuration writes it. Pure, and imports nothing that is slow to import.

Proved by tests/api/test_rate_limits.py.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

WINDOWS_S: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
LIMIT_RULE: Final = f"off, or a number and one of {', '.join(WINDOWS_S)}, such as 600/minute"
_LIMIT: Final = re.compile(r"([1-9][0-9]{0,14})/(second|minute|hour|day)")
"""At most 15 digits, as an integer of a structured field has (RFC 9651)."""


class RateLimit(NamedTuple):
    """At most `requests` in each window of `window_s` seconds."""

    requests: int
    window_s: int


def parse_limit(text: str) -> RateLimit | None:
    """`600/minute`; `off`: None. Raises `ValueError`."""
    if text == "off":
        return None
    match = _LIMIT.fullmatch(text)
    if match is None:
        raise ValueError(f"a rate limit is {LIMIT_RULE}")
    return RateLimit(int(match[1]), WINDOWS_S[match[2]])
