"""Turns: of the questions about subjects with very many events, a server answers one at a time.

The memory of such a question grows with the number of events. So a thread that answers beside others gives such a
question up (`TurnNeeded`), and the server answers it in a thread that does only this (`api.service`). All other callers
need no turn. Proved by tests/api/test_turns.py and tests/api/memory/test_large_subjects.py.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

EVENTS_MAX: Final = 5_000
"""Of one subject, in a question beside others: some megabytes."""

_thread: Final = threading.local()
Item = TypeVar("Item")


class TurnNeeded(Exception):
    """The question is about more events than a thread beside others may hold. Nothing is wrong: ask it in turn."""


def answer_beside_others() -> None:
    """Says that the calling thread answers questions at the same time as other threads."""
    _thread.beside_others = True


def require_turn(events: int) -> None:
    """Raises `TurnNeeded` if the calling thread may not hold so many events of one subject."""
    if events > EVENTS_MAX and getattr(_thread, "beside_others", False):
        raise TurnNeeded


def in_turn(events: Iterable[Item]) -> Iterator[Item]:
    """The events, one by one. Raises `TurnNeeded` before they are too many."""
    for number, event in enumerate(events):
        if number == EVENTS_MAX:
            require_turn(number + 1)
        yield event
