"""What an accepted submission is told."""

from __future__ import annotations

from typing import NamedTuple

from ledger.codec import Leaf, event_id
from ledger.drafts import RECORDED, Draft
from ledger.times import parse_time


class Receipt(NamedTuple):
    """What an accepted submission is told of one of its events. Instants in µs."""

    event_id: str
    position: int
    subject: str
    version: int
    recorded_at: int
    effective_from: int | None
    effective_until: int | None


def receipt(leaf: Leaf) -> Receipt:
    """The receipt of a recorded event."""
    data = leaf.data
    start, until = data.effective_from, data.effective_until
    return Receipt(
        event_id=leaf.id,
        position=data.position,
        subject=leaf.subject,
        version=data.version,
        recorded_at=parse_time(leaf.time),
        effective_from=parse_time(start) if isinstance(start, str) else None,
        effective_until=parse_time(until) if isinstance(until, str) else None,
    )


def receipt_of(draft: Draft, position: int, recorded_at: int) -> Receipt:
    """The receipt of a draft that was recorded: that of its leaf, without the leaf."""
    start = draft.body.get("effective_from")
    return Receipt(
        event_id(position, draft.id_tail),
        position,
        draft.subject,
        draft.version,
        recorded_at,
        recorded_at if start == RECORDED else start,
        draft.body.get("effective_until"),
    )
