"""The coordinates of questions and answers: known_at, and the pin that lets an answer be repeated. Pure."""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

from ledger.times import format_time

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


class ClockNotice(NamedTuple):
    """The answer rests on a clock that was ahead: an instant of it lies in [`start`, `until`) (µs), where changes made
    by then may be missing. `position`: of the event that acknowledges it; None: nobody has."""

    start: int
    until: int
    position: int | None


def clock_notice_json(notice: ClockNotice) -> dict[str, Any]:
    return {
        "from": format_time(notice.start),
        "until": format_time(notice.until),
        "acknowledged_at_position": notice.position,
    }
