"""The stretches of time whose answers rest on a clock that was ahead, as an operator acknowledged them.

Between the last event before such a clock and the recorded_at that it left behind, changes were recorded with a time
that had not come. An answer about that stretch may lack changes that had been made by then, and says so.
Proved by tests/query/test_clock_notices.py.
"""

from __future__ import annotations

from collections.abc import Iterable

from ledger.acknowledgements import CLOCK_AHEAD, AcknowledgedClock
from ledger.diagnosis import clock_report
from ledger.reader import LedgerReader
from ledger.recorders.contract import Head
from ledger.subjects import LEDGER_SUBJECT
from projections.temporal.changes import Assertion, Change, Retraction, read_entries
from projections.temporal.coordinates import ClockNotice, Pin


def clock_notices(assertions: Iterable[Assertion], head: Head | Pin) -> tuple[ClockNotice, ...]:
    """The stretches in position order. `assertions`: of `ledger:self`, in order. Later events lie behind the clock that
    was acknowledged last, so its stretch lasts until the head if they were only set above it."""
    changes: dict[str, Change] = {}
    for assertion in assertions:
        if isinstance(assertion, Retraction):
            changes.pop(assertion.retracts, None)
        elif assertion.setting == CLOCK_AHEAD and assertion.effective_until is not None:
            changes[assertion.event_id] = assertion
    notices = []
    for change in changes.values():
        until = change.effective_until or change.recorded_at
        clock = AcknowledgedClock(change.position, change.recorded_at)
        if head.recorded_at is not None and clock.covers(head.position, head.recorded_at):
            until = max(until, head.recorded_at + 1)
        notices.append(ClockNotice(change.effective_from, until, change.position))
    return tuple(notices)


def with_unacknowledged(
    ledger: LedgerReader, head: Head | Pin, notices: tuple[ClockNotice, ...], now: int
) -> tuple[ClockNotice, ...]:
    """`notices`, and the stretch that ends at `head` if a clock that shows `now` (µs) is so far behind it that nothing
    is recorded. Nobody has acknowledged that stretch: changes made in it may be missing."""
    recorded_at, behind_max_us = head.recorded_at, ledger.recorder.append_guard.behind_max_us
    if recorded_at is None or recorded_at - now <= behind_max_us or any(one.until > recorded_at for one in notices):
        return notices
    report = clock_report(ledger, Head(head.position, recorded_at))
    return (*notices, ClockNotice(report.start, recorded_at + 1, None))


def notices_of_ledger(ledger: LedgerReader, head: Head | Pin) -> tuple[ClockNotice, ...]:
    """The stretches of the ledger at the position of `head`, whatever was recorded since."""
    entries = ledger.stream(LEDGER_SUBJECT)
    acknowledged = clock_notices(read_entries(entry for entry in entries if entry.position <= head.position), head)
    return with_unacknowledged(ledger, head, acknowledged, ledger.clock.now())


def notice_at(notices: Iterable[ClockNotice], *instants: int) -> ClockNotice | None:
    """The newest notice whose stretch holds one of the instants (µs)."""
    newest = None
    for notice in notices:
        if any(notice.start <= instant < notice.until for instant in instants):
            newest = notice
    return newest
