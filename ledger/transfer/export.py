"""Exporting a whole ledger: the exact bytes of every event, and the personal data stored beside the events.

Proved by tests/transfer/test_export_and_restore.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from ledger.reader import LedgerReader
from ledger.recorders.contract import Entry
from ledger.verbatim import valid_entries

BATCH: Final = 10_000
"""Events on a page of an export."""


class PersonalRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of an export of personal data; `salt` in hex."""

    position: int
    salt: str
    content: str


def export_lines(ledger: LedgerReader, *, after: int = 0, until: int | None = None) -> Iterator[bytes]:
    """The events with after < position <= until, up to the head at the start: exact bytes, one event a line.

    Raises `AheadOfLedger` if the ledger ends before `after`, and `LedgerCorrupt`, naming the position, at an event that
    is not one JSON object on one line.
    """
    for page in _pages(ledger, after, until):
        for entry in valid_entries(page):
            yield entry.leaf + b"\n"


def export_personal(ledger: LedgerReader) -> Iterator[bytes]:
    """The personal data stored beside the events, in position order: it is not part of their bytes."""
    for page in _pages(ledger, 0, None):
        personal = ledger.personal(page)
        for position, data in sorted(personal.items()):
            yield msgspec.json.encode(PersonalRow(position, data.salt.hex(), data.content)) + b"\n"


def _pages(ledger: LedgerReader, after: int, until: int | None) -> Iterator[list[Entry]]:
    head = ledger.require_reached(after)
    last = head if until is None else min(until, head)
    return ledger.pages(after, last, BATCH)
