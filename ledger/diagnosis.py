"""The facts that an operator needs when nothing is recorded, and the acknowledgements that let the ledger go on.

The poisoned stretch of a ledger are its events with a recorded_at that the clock has not reached yet. Times rise with
positions, so its first event is found by binary search. Proved by tests/cli/test_doctor.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from ledger.acknowledgements import AcknowledgedClock
from ledger.append.acknowledge import clock_acknowledgement, generation_acknowledgement
from ledger.append.submissions import Submission
from ledger.errors import BadInput, NotWritable
from ledger.head_memory import RememberedHead
from ledger.reader import LedgerReader
from ledger.receipts import Receipt
from ledger.recorders.contract import INCARNATION, Head
from ledger.recorders.writability import acknowledgements, holds, went_back
from ledger.store import Ledger
from ledger.times import DAY, format_time

CLOCK_AHEAD_DAYS: Final = 90.0
"""A start with a clock that is further ahead of the last event warns. A quiet ledger is legitimately old, so nothing is
refused."""


class PoisonedStretch(NamedTuple):
    """The events from `first` to `last` (positions), recorded between the two instants (µs) by a clock that was ahead.
    `before`: recorded_at of the event before them; None: there is none."""

    first: int
    last: int
    before: int | None
    first_recorded_at: int
    last_recorded_at: int


class ClockReport(NamedTuple):
    """`clock` in µs. `is_refused`: nothing is recorded because of the clock."""

    clock: int
    head: Head
    behind_max_us: int
    stretch: PoisonedStretch | None
    acknowledged: AcknowledgedClock | None
    is_refused: bool

    @property
    def start(self) -> int:
        """Where the poisoned stretch begins (µs): behind the last event before it, and at the present at the latest."""
        before = None if self.stretch is None else self.stretch.before
        return self.clock if before is None else min(self.clock, before + 1)

    @property
    def ahead_us(self) -> int:
        """How far the clock is ahead of the last event; negative: behind it."""
        return 0 if self.head.recorded_at is None else self.clock - self.head.recorded_at


class HeadReport(NamedTuple):
    """`remembered`: the newest head that was acknowledged here; `is_held`: the ledger still has its event."""

    head: Head
    incarnation: str | None
    generation: int
    remembered: RememberedHead | None
    is_held: bool
    note: str | None
    """The file that holds `remembered`."""


def clock_report(ledger: LedgerReader, head: Head | None = None) -> ClockReport:
    """`head`: an earlier one, for which the report is made; None: the ledger's."""
    guard, clock = ledger.recorder.append_guard, ledger.clock.now()
    guard.acknowledged_clock = acknowledgements(ledger.recorder).clock
    head = head or ledger.head()
    refused = not guard.clock_allows(*head, clock)
    stretch = _poisoned_stretch(ledger, head, clock)
    return ClockReport(clock, head, guard.behind_max_us, stretch, guard.acknowledged_clock, refused)


def _poisoned_stretch(ledger: LedgerReader, head: Head, clock: int) -> PoisonedStretch | None:
    if head.recorded_at is None or head.recorded_at <= clock:
        return None
    right, poisoned = 0, head.position
    while poisoned - right > 1:
        middle = (right + poisoned) // 2
        if _recorded_at(ledger, middle) <= clock:
            right = middle
        else:
            poisoned = middle
    before = _recorded_at(ledger, right) if right else None
    return PoisonedStretch(poisoned, head.position, before, _recorded_at(ledger, poisoned), head.recorded_at)


def _recorded_at(ledger: LedgerReader, position: int) -> int:
    entry = ledger.recorder.entry(position)
    assert entry is not None, "positions are dense up to the head"
    return entry.recorded_at


def acknowledge_clock(ledger: Ledger, reason: str, actor: str) -> Receipt:
    """Records that the clock was ahead, so that the ledger goes on behind it. Raises `BadInput` if the clock is not
    behind, and `NotWritable` if a ledger that went back must be acknowledged first."""
    report = clock_report(ledger)
    recorded_at = report.head.recorded_at
    if not report.is_refused or recorded_at is None:
        raise BadInput(
            "the clock is not further behind the last event than the bound, so there is nothing to acknowledge"
        )
    head = head_report(ledger)
    if head.remembered is not None and not head.is_held and head.generation <= head.remembered.generation:
        raise went_back(head.remembered, head.head)
    return _record(ledger, clock_acknowledgement(ledger.catalog(), report.start, recorded_at, reason), actor)


def head_report(ledger: LedgerReader) -> HeadReport:
    recorder = ledger.recorder
    before = recorder.append_guard.memory.newest()
    path = recorder.append_guard.memory.path
    return HeadReport(
        recorder.head(),
        recorder.meta().get(INCARNATION),
        acknowledgements(recorder).generation,
        before,
        before is None or holds(recorder, before),
        None if path is None else str(path),
    )


def acknowledge_head(ledger: Ledger, reason: str, actor: str) -> Receipt:
    """Records that the ledger went back, so that it goes on from its present head. Raises `BadInput` if it did not."""
    report = head_report(ledger)
    before = report.remembered
    if before is None or report.is_held or report.generation > before.generation:
        raise BadInput("the ledger holds the last event that was acknowledged here, so there is nothing to acknowledge")
    generation = max(report.generation, before.generation) + 1
    return _record(ledger, generation_acknowledgement(ledger.catalog(), generation, reason), actor)


def _record(ledger: Ledger, submissions: tuple[Submission, ...], actor: str) -> Receipt:
    with _acknowledging(ledger):
        receipt = ledger.submit(submissions, actor=actor)[-1]
    # Remembers the new head. The clock may be next to acknowledge.
    with suppress(NotWritable):
        ledger.require_writable()
    return receipt


@contextmanager
def _acknowledging(ledger: Ledger) -> Iterator[None]:
    guard = ledger.recorder.append_guard
    guard.acknowledging = True
    try:
        yield
    finally:
        guard.acknowledging = False


def clock_ahead_warning(ledger: LedgerReader, days: float = CLOCK_AHEAD_DAYS) -> str | None:
    """A sentence if the clock is more than so many days ahead of the last event."""
    recorded_at, clock = ledger.head().recorded_at, ledger.clock.now()
    if recorded_at is None or clock - recorded_at <= days * DAY:
        return None
    return (
        f"this machine's clock shows {format_time(clock)}, {(clock - recorded_at) // DAY} days after the last event "
        f"({format_time(recorded_at)}). If the clock is ahead, set it right before anything is recorded: later events "
        "could not be recorded before that time"
    )
