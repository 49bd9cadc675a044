"""The pin of an index: the ledger at one position."""

from __future__ import annotations

from ledger.errors import LedgerUnavailable
from ledger.store import Ledger
from projections.audit.index.schema import POSITION_MAX
from projections.temporal.coordinates import Pin


def pin_of(ledger: Ledger, position: int | None = None) -> Pin:
    """The ledger at `position` (None: at its head).

    Raises `LedgerUnavailable` if the ledger has not reached that position, or has more events than an index can hold.
    """
    head = ledger.head().position
    if position is None:
        position = head
    if position > head:
        raise LedgerUnavailable(
            f"the ledger is at position {head} and was asked for as of {position}; name an earlier one"
        )
    if position > POSITION_MAX:
        raise LedgerUnavailable(f"an audit takes at most {POSITION_MAX} events, and the ledger has {position}")
    entry = ledger.recorder.entry(position)
    if entry is None:
        return Pin(ledger.origin, position, None, None)
    return Pin(ledger.origin, position, entry.recorded_at, entry.leaf_hash.hex())
