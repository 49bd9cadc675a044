"""Receipts: the ledger's answer to an accepted submission, one for each of its events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ledger.codec import Leaf, event_id
from ledger.drafts import AT_RECORDING, Draft
from ledger.times import parse_time


class Receipt(NamedTuple):
    """Where one event of a submission was recorded, and when it holds. Instants in µs."""

    event_id: str
    position: int
    subject: str
    version: int
    recorded_at: int
    effective_from: int | None
    effective_until: int | None


def receipt_of_leaf(leaf: Leaf) -> Receipt:
    """The receipt of a stored event."""
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


def receipts_of_drafts(drafts: Iterable[Draft], first_position: int, recorded_at: int) -> tuple[Receipt, ...]:
    """The receipts of drafts that were just recorded: equal to those of their leaves, without parsing the leaves."""
    return tuple([_receipt(draft, position, recorded_at) for position, draft in enumerate(drafts, first_position)])


def _receipt(draft: Draft, position: int, recorded_at: int) -> Receipt:
    start = draft.body.get("effective_from")
    return Receipt(
        event_id(position, draft.id_tail),
        position,
        draft.subject,
        draft.version,
        recorded_at,
        recorded_at if start == AT_RECORDING else start,
        draft.body.get("effective_until"),
    )
