"""The long answer to whether the ledger may grow: what operators have acknowledged, and the reason if it may not.

An acknowledgement (`ledger.acknowledgements`) lets the ledger go on. Otherwise nothing is recorded, by this process
and by every other that knows the same, until the clock or the ledger is put right.
Proved by tests/contracts/test_clock_behind.py and tests/contracts/test_went_back.py.
"""

from __future__ import annotations

from ledger.acknowledgements import Acknowledgements, read_acknowledgements
from ledger.codec import parse_leaf
from ledger.errors import ClockBehind, LedgerWentBack, NotWritable
from ledger.head_memory import RememberedHead
from ledger.recorders.append_guard import LedgerIdentity, is_in_leaf
from ledger.recorders.contract import INCARNATION, Head, Recorder
from ledger.subjects import LEDGER_SUBJECT
from ledger.times import SECOND, format_time


def resolve(recorder: Recorder, now: int) -> None:
    """Raises the reason for which nothing may be recorded at `now` (µs). Else its guard remembers the head."""
    problem = _problem(recorder, now)
    recorder.append_guard.note(problem)
    if problem is not None:
        raise problem


def acknowledgements(recorder: Recorder) -> Acknowledgements:
    entries = recorder.stream(LEDGER_SUBJECT)
    return read_acknowledgements((entry.position, entry.recorded_at, entry.leaf) for entry in entries)


def holds(recorder: Recorder, head: RememberedHead) -> bool:
    """Whether the ledger still holds the event that was its head."""
    return is_in_leaf(head, recorder.latest_leaf(head.position))


def _problem(recorder: Recorder, now: int) -> NotWritable | None:
    guard = recorder.append_guard
    meta, acknowledged, head = recorder.meta(), acknowledgements(recorder), recorder.head()
    guard.acknowledged_clock = acknowledged.clock
    guard.identity = LedgerIdentity(meta["origin"], meta.get(INCARNATION), acknowledged.generation)
    if recorder.was_replaced():
        return _overwritten()
    before = guard.remembered()
    if before is not None and not holds(recorder, before) and acknowledged.generation <= before.generation:
        return went_back(before, head)
    last = recorder.entry(head.position) if head.position else None
    if last is not None:
        guard.remember(last.position, last.recorded_at, parse_leaf(last.leaf).id)
    return None if guard.clock_allows(*head, now) else clock_behind(head, now, guard.behind_max_us)


def _overwritten() -> LedgerWentBack:
    return LedgerWentBack(
        "the ledger's file was overwritten while it was in use, and nothing is recorded. Stop every process that uses "
        "it, remove the files with the same name and -wal or -shm, put the right file in its place, and start again; "
        "inforce doctor head then compares it with the last acknowledged position"
    )


def clock_behind(head: Head, now: int, behind_max_us: int) -> ClockBehind:
    assert head.recorded_at is not None
    recorded, clock = format_time(head.recorded_at), format_time(now)
    return ClockBehind(
        f"this machine's clock shows {clock}, and the last event was recorded at {recorded}, more than "
        f"{behind_max_us / SECOND:g} seconds later; nothing is recorded. Set the clock right if it is behind; if it "
        "was ahead when that event was recorded, see inforce doctor clock",
        {"clock": clock, "recorded_at": recorded, "position": head.position},
    )


def went_back(before: RememberedHead, head: Head) -> LedgerWentBack:
    position = head.position
    if position < before.position:
        fact = f"the ledger ends at position {position}, and position {before.position} was acknowledged before"
    else:
        fact = f"the event at position {before.position} is not the one that was acknowledged there"
    return LedgerWentBack(
        f"{fact} (event {before.event_id}, recorded at {format_time(before.recorded_at)}): the ledger went back. "
        "Nothing is recorded, so that no position is used twice; bring the newer ledger back, or see inforce doctor "
        "head",
        {"position": position, "remembered_position": before.position, "remembered_event_id": before.event_id},
    )
