"""Checks everything that a ledger stores, and names every fault: the events, their reasons, the idempotency keys, the
definitions of the tables, and the transparency log. It reads only, on both databases. `projections.timelines.check`
adds the timelines.

Proved by tests/life/test_check.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from ledger.codec import is_of_origin, parse_leaf
from ledger.drafts import ID_TAIL_LENGTH, Idempotency
from ledger.errors import LedgerCorrupt
from ledger.recorders.contract import INCARNATION, SEALED, Entry, Recorder
from ledger.recorders.soundness import fault_of
from ledger.transparency.log_check import log_faults

ROWS: Final = 5_000
ROWS_BYTES: Final = 8 * 1024 * 1024
"""Read at a time: so many events, or those up to the one whose leaf reaches the size."""

_INCARNATION: Final = re.compile("[0-9a-f]{32}")

Progress = Callable[[int], None]
"""Called with the position that was reached."""


def faults(recorder: Recorder, progress: Progress | None = None) -> Iterator[str]:
    """Every fault, one sentence each: nothing of what was submitted is in it."""
    for part in (
        recorder.definition_faults,
        lambda: fact_faults(recorder),
        lambda: _event_faults(recorder, progress or (lambda _position: None)),
        lambda: faults_beside_events(recorder),
        lambda: log_faults(recorder, str(recorder.meta().get("origin"))),
    ):
        try:
            yield from part()
        except LedgerCorrupt as error:
            yield error.detail


def fact_faults(recorder: Recorder) -> Iterator[str]:
    """The faults of the facts without which a ledger cannot be opened, or not be told from its copies."""
    meta: Mapping[str, object] = recorder.meta()
    origin, incarnation = meta.get("origin"), meta.get(INCARNATION)
    # SQLite stores a value of any type in any column.
    if not isinstance(origin, str):
        yield "the ledger's origin is lost"
    else:
        try:
            first = recorder.entry(1)
        except LedgerCorrupt:
            # Named with the events.
            first = None
        if first is not None and not is_of_origin(first.leaf, origin):
            yield "the ledger's origin is not that of its events"
    # A ledger of an older inforce has none.
    if incarnation is not None and not (isinstance(incarnation, str) and _INCARNATION.fullmatch(incarnation)):
        yield "the ledger's incarnation is not what was written"


class _Scan:
    """The events so far, as far as the next one is compared with them."""

    def __init__(self) -> None:
        self.position = 0
        self.recorded_at = 0
        self.versions: dict[str, int] = {}

    def faults(self, row: Sequence[Any]) -> Iterator[str]:
        entry = Entry._make(row)
        position = entry.position
        if position != self.position + 1:
            yield (
                f"the event at position {self.position + 1} is missing"
                if position == self.position + 2
                else f"the events at positions {self.position + 1} to {position - 1} are missing"
            )
        self.position = position
        fault = fault_of(entry)
        if fault is not None:
            yield f"the event at position {position} is not as it was recorded: {fault}"
            if self.versions.get(entry.subject, 0) + 1 == entry.version:
                # So that the subject's next event is not a fault, too.
                self.versions[entry.subject] = entry.version
            return
        if entry.recorded_at < self.recorded_at:
            yield f"the event at position {position} is older than the one before it"
        if entry.version != self.versions.get(entry.subject, 0) + 1:
            yield f"the subject of the event at position {position} lacks a version before it"
        self.recorded_at = entry.recorded_at
        self.versions[entry.subject] = entry.version


def _event_faults(recorder: Recorder, progress: Progress) -> Iterator[str]:
    scan = _Scan()
    for rows in pages_of_rows(recorder):
        for row in rows:
            if row[0] < 1:
                yield f"an event stands at position {row[0]}, where none can be"
            else:
                yield from scan.faults(row)
        yield from personal_faults(recorder, map(Entry._make, rows))
        progress(scan.position)


def pages_of_rows(recorder: Recorder) -> Iterator[list[tuple[Any, ...]]]:
    """All rows of events by position, sound or not, with the values of `Entry`."""
    after = -(2**63)
    while rows := recorder.stored_rows(after, recorder.page_length(after, ROWS, None, ROWS_BYTES)):
        yield rows
        after = rows[-1][0]


def faults_beside_events(recorder: Recorder) -> Iterator[str]:
    """Personal data without an event, and idempotency keys that are not what was recorded."""
    yield from _orphans(recorder)
    yield from _submission_faults(recorder)


def personal_faults(recorder: Recorder, entries: Iterable[Entry]) -> Iterator[str]:
    sealed = {entry.position: entry for entry in entries if type(entry.leaf) is bytes and SEALED in entry.leaf}
    for position, personal in sorted(recorder.personal(list(sealed)).items()):
        try:
            commitment = parse_leaf(sealed[position].leaf).data.personal
            matches = commitment is not None and commitment.commitment == personal.commitment
        except (LedgerCorrupt, TypeError, ValueError, AttributeError):
            matches = False
        if not matches:
            yield f"the reason stored for the event at position {position} does not match the event's commitment"


def _orphans(recorder: Recorder) -> Iterator[str]:
    orphan = recorder.orphaned_personal()
    if orphan is not None:
        yield f"personal data is stored for position {orphan}, whose event has none"


def _submission_faults(recorder: Recorder) -> Iterator[str]:
    wrong = set(recorder.wrong_submissions())
    for position in sorted(wrong):
        yield f"an Idempotency-Key is stored for position {position}, with which no such submission begins"
    secret = recorder.body_key()
    if secret is None:
        return
    keys, altered = 0, []
    for caller, key, body, position, events, leaf in recorder.stored_submissions():
        keys += 1
        if position not in wrong and not _is_sealed(secret, Idempotency(caller, key, body), events, leaf):
            altered.append(position)
    if keys == len(altered) > 1:
        yield f"none of the {keys} Idempotency-Keys is stored as it was recorded: the ledger's secret was altered"
        return
    for position in altered:
        yield f"the Idempotency-Key of the submission at position {position} is not stored as it was recorded"


def _is_sealed(secret: bytes, stored: Idempotency, events: int, leaf: bytes) -> bool:
    try:
        return stored.is_sealed(secret, events, parse_leaf(leaf).id[-ID_TAIL_LENGTH:])
    except (LedgerCorrupt, TypeError, ValueError, AttributeError):
        return False
