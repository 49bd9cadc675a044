"""The coordinates of questions and answers: known_at, and the pin of an answer that is to be had again. Pure."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

IN_FORCE: Final = "at"
"""As a known_at: the same instant as `at`."""

KnownAt = int | Literal["at"] | None
"""An instant (µs), `IN_FORCE`, or None: everything recorded so far."""


class Pin(NamedTuple):
    """The ledger at one position: its last event there, whose leaf hash commits to what it says. Empty: no event."""

    origin: str
    position: int
    recorded_at: int | None
    leaf_hash: str | None
