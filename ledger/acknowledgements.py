"""The acknowledgements of operators about the ledger itself, read from the events of the subject `ledger:self`.

An acknowledgement is an event like any other: numbered, hashed, with an actor and a reason. An operator can
acknowledge two facts: the clock was ahead, so the ledger holds a recorded_at that has not come yet; and the ledger went
back, so it goes on from an older head. Neither setting belongs to the built-in catalog: `append.acknowledge` defines it
in the submission that uses it first. Pure. Proved by tests/test_acknowledgements.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from ledger.codec import parse_leaf
from ledger.events import ChangeRetracted, SettingChanged

CLOCK_AHEAD: Final = "clock.ahead_acknowledged"
"""A text: the recorded_at that the ledger had when the operator acknowledged it. The change is in force over the
poisoned stretch: from the last event before it to that recorded_at."""
GENERATION: Final = "ledger.generation"
"""An integer, 1 where nothing was recorded. It rises by one each time that an operator lets the ledger go on from an
older head, so a server that remembers a lower one knows that the loss was acknowledged."""


class AcknowledgedClock(NamedTuple):
    """The event that acknowledges a clock: each later event that was clamped lies one µs, or less, a position on."""

    position: int
    recorded_at: int

    def covers(self, position: int, recorded_at: int) -> bool:
        """Whether an event, recorded after the acknowledgement, has its recorded_at from clamping alone."""
        return position >= self.position and recorded_at - self.recorded_at <= position - self.position


class Acknowledgements(NamedTuple):
    clock: AcknowledgedClock | None = None
    generation: int = 1


def read_acknowledgements(entries: Iterable[tuple[int, int, bytes]]) -> Acknowledgements:
    """`entries`: (position, recorded_at, leaf) of all events of `ledger:self`, in order. Raises `LedgerCorrupt`."""
    clocks: dict[str, AcknowledgedClock] = {}
    generation = 1
    for position, recorded_at, leaf in entries:
        event = parse_leaf(leaf)
        if event.topic == ChangeRetracted.TOPIC and isinstance(event.data.retracts, str):
            clocks.pop(event.data.retracts, None)
        elif event.topic == SettingChanged.TOPIC:
            value = event.data.value
            if event.data.setting == CLOCK_AHEAD:
                clocks[event.id] = AcknowledgedClock(position, recorded_at)
            elif event.data.setting == GENERATION and isinstance(value, int):
                generation = max(generation, value)
    return Acknowledgements(list(clocks.values())[-1] if clocks else None, generation)
