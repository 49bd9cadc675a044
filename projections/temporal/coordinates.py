"""The coordinates of questions and answers: known_at, and the pin that lets an answer be repeated. Pure."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

IN_FORCE: Final = "at"
"""As a known_at: the same instant as `at`."""

KnownAt = int | Literal["at"] | None
"""An instant (µs), `IN_FORCE`, or None: everything recorded so far."""


class Pin(NamedTuple):
    """The ledger at one position. `recorded_at` (µs) and `leaf_hash` are of the event there; both None at position 0.

    The leaf hash commits to the event's content.
    """

    origin: str
    position: int
    recorded_at: int | None
    leaf_hash: str | None
