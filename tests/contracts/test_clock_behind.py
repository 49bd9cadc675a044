"""A clock that is far behind the ledger's head records nothing: on both databases, by every way to append."""

import pytest
from eventsourcing.persistence import EventStore

from ledger.append.acknowledge import clock_acknowledgement
from ledger.clock import ManualClock
from ledger.codec import LedgerMapper
from ledger.errors import BadInput, ClockBehind, NotWritable
from ledger.opening import open_ledger
from ledger.recorders.postgres import PostgresLedgerRecorder
from ledger.recorders.sqlite import SQLiteLedgerRecorder
from ledger.store import Ledger
from ledger.times import SECOND, format_time
from tests.support.append_requests import AppendRequestBuilder
from tests.support.ledgers import GENESIS, NOW, OPERATOR, change, key, submit

BOUND = 60 * SECOND
YEAR = 365 * 86_400 * SECOND


def poison(ledger: Ledger, clock: ManualClock, ahead: int = YEAR) -> int:
    """Records one event by a clock that is ahead, and sets the clock right again. Answers its recorded_at."""
    clock.now_us = NOW + ahead
    (receipt,) = submit(ledger, change("org:poisoned"))
    clock.now_us = NOW
    return receipt.recorded_at


@pytest.mark.parametrize("behind", [BOUND - 1, BOUND, BOUND + 1])
def test_an_append_is_refused_only_beyond_the_bound(ledger: Ledger, clock: ManualClock, behind: int) -> None:
    head = poison(ledger, clock, behind)
    if behind <= BOUND:
        assert submit(ledger, change())[0].recorded_at == head + 1
        return
    with pytest.raises(ClockBehind) as refused:
        submit(ledger, change())
    assert format_time(NOW) in refused.value.detail
    assert format_time(head) in refused.value.detail
    assert ledger.head() == (GENESIS + 1, head)


@pytest.mark.parametrize("behind", [BOUND, BOUND + 1])
def test_the_recorder_itself_refuses_because_the_library_appends_without_a_committer(
    ledger: Ledger, clock: ManualClock, behind: int
) -> None:
    request = AppendRequestBuilder(ledger).build(change("org:other"), now=NOW + YEAR)
    poison(ledger, clock, behind)
    if behind > BOUND:
        with pytest.raises(ClockBehind):
            ledger.recorder.append([request], clock)
        with ledger.recorder.exclusive(), pytest.raises(ClockBehind):
            ledger.recorder.append([request], clock)
        assert ledger.head().position == GENESIS + 1
    else:
        assert ledger.recorder.append([request], clock) != [None]


def test_nothing_is_judged_by_a_moment_that_has_not_come(ledger: Ledger, clock: ManualClock) -> None:
    """By the poisoned head, a change from tomorrow on would be refused as backdated."""
    poison(ledger, clock)
    with pytest.raises(ClockBehind):
        submit(ledger, change(effective_from=format_time(NOW + 86_400 * SECOND)))


def test_a_retry_of_a_recorded_submission_still_gets_its_receipts(ledger: Ledger, clock: ManualClock) -> None:
    first = submit(ledger, change(), idempotency=key("k"))
    poison(ledger, clock)
    assert submit(ledger, change(), idempotency=key("k")) == first


def test_another_process_has_the_same_answer_and_the_mended_clock_goes_on(
    ledger: Ledger, clock: ManualClock, database_url: str
) -> None:
    head = poison(ledger, clock)
    with open_ledger(database_url, clock=clock) as other:
        with pytest.raises(ClockBehind):
            submit(other, change())
        with pytest.raises(ClockBehind):
            other.require_writable()
        clock.now_us = head + 5
        other.require_writable()
        assert submit(other, change())[0].recorded_at == head + 5


@pytest.mark.parametrize("bound_s", [1.0, 3600.0])
def test_the_bound_is_configurable(ledger: Ledger, clock: ManualClock, database_url: str, bound_s: float) -> None:
    head = poison(ledger, clock, round(bound_s * SECOND))
    with open_ledger(database_url, clock=clock, clock_behind_max_s=bound_s) as other:
        assert submit(other, change())[0].recorded_at == head + 1
        with pytest.raises(ClockBehind, match=f"more than {bound_s:g} seconds"):
            submit(other, change())


@pytest.mark.parametrize("bound_s", [0, 0.999, -1, float("nan"), 1e9 + 1, 1e300, float("inf")])
def test_a_bound_below_a_second_or_beyond_a_life_is_refused(database_url: str, bound_s: float) -> None:
    with pytest.raises(BadInput, match="a number of seconds from 1 to 1000000000"):
        open_ledger(database_url, create=True, clock_behind_max_s=bound_s)


def test_each_change_of_state_is_reported_once(ledger: Ledger, clock: ManualClock) -> None:
    changes: list[NotWritable | None] = []
    ledger.recorder.append_guard.on_change = changes.append
    submit(ledger, change())
    head = poison(ledger, clock)
    for _ in range(3):
        with pytest.raises(ClockBehind):
            submit(ledger, change())
        with pytest.raises(ClockBehind):
            ledger.require_writable()
    assert [type(one) for one in changes] == [ClockBehind]
    clock.now_us = head
    submit(ledger, change())
    submit(ledger, change())
    assert [type(one) for one in changes] == [ClockBehind, type(None)]


def acknowledge(ledger: Ledger) -> None:
    head = ledger.head()
    assert head.recorded_at is not None
    submissions = clock_acknowledgement(ledger.catalog(), NOW, head.recorded_at, "the clock was ahead")
    ledger.recorder.append_guard.acknowledging = True
    try:
        ledger.submit(submissions, actor=OPERATOR)
    finally:
        ledger.recorder.append_guard.acknowledging = False


def test_an_acknowledgement_lets_every_process_go_on(ledger: Ledger, clock: ManualClock, database_url: str) -> None:
    head = poison(ledger, clock)
    with open_ledger(database_url, clock=clock) as operator:
        acknowledge(operator)
        assert ledger.head() == (GENESIS + 3, head + 1), "the definition and the change"
        for count in (1, 2, 3):
            assert submit(ledger, change())[0].recorded_at == head + 1 + count
            assert ledger.head().position == GENESIS + 3 + count
    with open_ledger(database_url, clock=clock) as other:
        # A submission of several events takes one µs for all of them.
        assert submit(other, change("org:a"), change("org:b"))[0].recorded_at == head + 5
        assert submit(other, change())[0].recorded_at == head + 6


def test_an_acknowledgement_is_for_the_clock_of_then_only(ledger: Ledger, clock: ManualClock) -> None:
    poison(ledger, clock)
    acknowledge(ledger)
    submit(ledger, change())
    poison(ledger, clock, 2 * YEAR)
    with pytest.raises(ClockBehind):
        submit(ledger, change())
    acknowledge(ledger)
    submit(ledger, change())


def test_the_eventsourcing_library_is_refused_too(ledger: Ledger, clock: ManualClock) -> None:
    plan = AppendRequestBuilder(ledger).build(change("org:other"), now=NOW + YEAR).plan
    poison(ledger, clock)
    recorder = ledger.recorder
    assert isinstance(recorder, SQLiteLedgerRecorder | PostgresLedgerRecorder)
    store = EventStore(LedgerMapper(ledger.source), recorder)
    with pytest.raises(ClockBehind):
        store.put(plan.drafts, plan=plan, clock=clock)
    assert ledger.head().position == GENESIS + 1
