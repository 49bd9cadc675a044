"""`cancels_scheduled`: a change retracts, with itself, every change of its setting that begins later."""

import json
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest

from ledger.append import group_commit
from ledger.append.submissions import BATCH_MAX
from ledger.clock import ManualClock
from ledger.errors import BadSubmission, VersionConflict
from ledger.opening import open_ledger
from ledger.receipts import Receipt
from ledger.store import Ledger
from ledger.times import format_time, parse_time
from tests.contracts.test_groups import queued, settle
from tests.contracts.test_submitting import SteppingClock
from tests.support.ledgers import GENESIS, NOW, change, key, submit
from tests.support.random_history import RandomHistory

HOUR = 3_600_000_000


def scheduled(hours: int, value: bool = True, **more: Any) -> dict[str, Any]:
    return change(value=value, effective_from=format_time(NOW + hours * HOUR), **more)


def cancelling(**more: Any) -> dict[str, Any]:
    return change(value=False, cancels_scheduled=True, **more)


def remaining(ledger: Ledger, subject: str, setting: str, begin: int) -> set[str]:
    """The ids of the unretracted changes of the setting that begin later than `begin`, read from the exported bytes."""
    events = [json.loads(entry.leaf) for entry in ledger.stream(subject)]
    retracted = {event["data"].get("retracts") for event in events}
    return {
        event["id"]
        for event in events
        if event["data"]["setting"] == setting
        and event["id"] not in retracted
        and "effective_from" in event["data"]
        and parse_time(event["data"]["effective_from"]) > begin
    }


def retractions(ledger: Ledger, receipts: tuple[Receipt, ...]) -> list[str]:
    """The ids of the changes that these events retract."""
    leaves = [json.loads(ledger.event(receipt.event_id).leaf) for receipt in receipts]
    return [leaf["data"]["retracts"] for leaf in leaves if "retracts" in leaf["data"]]


def test_an_opt_out_retracts_the_scheduled_opt_ins_in_one_submission(ledger: Ledger) -> None:
    before = submit(
        ledger, scheduled(1), scheduled(2, False), scheduled(3, effective_until=format_time(NOW + 9 * HOUR))
    )
    other = submit(ledger, change("org:other", effective_from=format_time(NOW + HOUR)))
    other_setting = submit(ledger, {**scheduled(1), "setting": "storage.inputs_outputs"})
    receipts = submit(ledger, cancelling(reason="never again", expected_version=4))
    assert retractions(ledger, receipts) == [receipt.event_id for receipt in before]
    assert [receipt.version for receipt in receipts] == [5, 6, 7, 8]
    assert {receipt.recorded_at for receipt in receipts} == {receipts[0].recorded_at}
    assert (receipts[0].effective_from, receipts[1].effective_from) == (receipts[0].recorded_at, None)
    assert set(ledger.reasons(receipt.position for receipt in receipts).values()) == {"never again"}
    assert remaining(ledger, "org:acme", "training.opt_in", receipts[0].recorded_at) == set()
    assert remaining(ledger, "org:acme", "storage.inputs_outputs", NOW) == {other_setting[0].event_id}
    assert remaining(ledger, "org:other", "training.opt_in", NOW) == {other[0].event_id}


@pytest.mark.parametrize(("offset", "cancelled"), [(-1, False), (0, False), (1, True)])
def test_a_change_is_cancelled_if_it_begins_later(ledger: Ledger, offset: int, cancelled: bool) -> None:
    begin = NOW + HOUR
    (other,) = submit(ledger, change(effective_from=format_time(begin + offset)))
    receipts = submit(ledger, cancelling(effective_from=format_time(begin)))
    assert retractions(ledger, receipts) == ([other.event_id] if cancelled else [])


@pytest.mark.parametrize(("recorded", "cancelled"), [(-1, True), (0, False), (1, False)])
def test_a_change_that_begins_while_its_cancellation_waits_is_not_cancelled(
    ledger: Ledger, recorded: int, cancelled: bool
) -> None:
    start = NOW + 1_000
    (other,) = submit(ledger, change(effective_from=format_time(start)))
    ledger.clock = SteppingClock(NOW + 10, start + recorded)
    receipts = submit(ledger, cancelling())
    assert receipts[0].recorded_at == start + recorded
    assert retractions(ledger, receipts) == ([other.event_id] if cancelled else [])


def test_retracting_what_is_scheduled_needs_no_reason_and_what_has_begun_has_the_reason_of_the_change(
    ledger: Ledger, clock: ManualClock
) -> None:
    before = submit(ledger, scheduled(1), scheduled(9))
    clock.now_us = NOW + 2 * HOUR
    with pytest.raises(BadSubmission, match="a backdated change needs a reason"):
        submit(ledger, cancelling(effective_from=format_time(NOW + 1)))
    receipts = submit(ledger, cancelling(effective_from=format_time(NOW + 1), reason="the form was filed late"))
    assert retractions(ledger, receipts) == [receipt.event_id for receipt in before]
    assert len(ledger.reasons(receipt.position for receipt in receipts)) == 3


def test_a_clear_cancels_too_and_a_retracted_change_is_left_alone(ledger: Ledger) -> None:
    first, second = submit(ledger, scheduled(1), scheduled(2))
    submit(ledger, {"type": "change.retracted", "event_id": first.event_id})
    clear = {"type": "setting.cleared", "subject": "org:acme", "setting": "training.opt_in", "cancels_scheduled": True}
    assert retractions(ledger, submit(ledger, clear)) == [second.event_id]
    assert retractions(ledger, submit(ledger, clear)) == []


def test_false_and_null_cancel_nothing_and_other_values_are_refused(ledger: Ledger) -> None:
    submit(ledger, scheduled(1))
    for value in (False, None):
        assert len(submit(ledger, change(cancels_scheduled=value))) == 1
    for wrong in ("true", 1, [True]):
        with pytest.raises(BadSubmission) as refused:
            submit(ledger, change(cancels_scheduled=wrong))
        assert refused.value.faults[0].pointer == "/events/0/cancels_scheduled"


def test_a_retry_gives_the_receipts_of_the_retractions_too(ledger: Ledger) -> None:
    submit(ledger, scheduled(1), scheduled(2))
    receipts = submit(ledger, cancelling(), idempotency=key("k"))
    submit(ledger, scheduled(3))
    assert submit(ledger, cancelling(), idempotency=key("k")) == receipts
    assert len(receipts) == 3


# In one batch


def test_a_later_submission_of_the_batch_is_scheduled_anew(ledger: Ledger) -> None:
    (before,) = submit(ledger, scheduled(5))
    receipts = submit(ledger, cancelling(), scheduled(5, False))
    assert retractions(ledger, receipts) == [before.event_id]
    assert [receipt.effective_from for receipt in receipts] == [receipts[0].recorded_at, NOW + 5 * HOUR, None]
    assert remaining(ledger, "org:acme", "training.opt_in", receipts[0].recorded_at) == {receipts[1].event_id}


@pytest.mark.parametrize("start", [None, NOW - HOUR, NOW + HOUR])
def test_a_batch_that_would_cancel_its_own_change_is_refused(ledger: Ledger, start: int | None) -> None:
    period = {} if start is None else {"effective_from": format_time(start), "reason": "late"}
    head = ledger.head()
    with pytest.raises(BadSubmission) as refused:
        submit(ledger, scheduled(2), cancelling(**period))
    assert refused.value.faults[0].pointer == "/events/1/cancels_scheduled"
    assert "put the later one behind" in refused.value.faults[0].detail
    if start == NOW - HOUR:
        with pytest.raises(BadSubmission, match="an earlier submission of this batch"):
            submit(ledger, change(), cancelling(**period))
    assert ledger.head() == head


@pytest.mark.parametrize(("recorded", "accepted"), [(0, True), (1, False)])
def test_a_change_at_recording_in_the_batch_is_later_only_if_it_is_recorded_later(
    ledger: Ledger, recorded: int, accepted: bool
) -> None:
    start = NOW + 1_000
    ledger.clock = SteppingClock(NOW + 10, start + recorded)
    bodies = change(), cancelling(effective_from=format_time(start), reason="planned")
    if accepted:
        assert len(submit(ledger, *bodies)) == 2
    else:
        with pytest.raises(BadSubmission, match="an earlier submission of this batch"):
            submit(ledger, *bodies)


def test_two_cancellations_of_one_setting_retract_each_change_once(ledger: Ledger) -> None:
    early, late = submit(ledger, scheduled(1), scheduled(3))
    receipts = submit(ledger, cancelling(), cancelling(effective_from=format_time(NOW + 2 * HOUR)))
    assert sorted(retractions(ledger, receipts)) == sorted([early.event_id, late.event_id])
    assert len(receipts) == 4


def test_a_change_is_not_both_cancelled_and_retracted(ledger: Ledger) -> None:
    first, second = submit(ledger, scheduled(1), scheduled(2))
    retraction = {"type": "change.retracted", "event_id": first.event_id}
    with pytest.raises(BadSubmission, match="retracted already"):
        submit(ledger, cancelling(), retraction)
    assert retractions(ledger, submit(ledger, retraction, cancelling())) == [first.event_id, second.event_id]


def test_the_bound_of_a_batch_counts_the_retractions(ledger: Ledger) -> None:
    submit(ledger, *(scheduled(1 + hours) for hours in range(BATCH_MAX)))
    with pytest.raises(BadSubmission) as refused:
        submit(ledger, cancelling())
    assert refused.value.faults[0].pointer == "/cancels_scheduled"
    assert "1000 scheduled changes" in refused.value.faults[0].detail
    assert "would record 1001 events" in refused.value.faults[0].detail
    (first, *_) = ledger.stream("org:acme")
    submit(ledger, {"type": "change.retracted", "event_id": json.loads(first.leaf)["id"]})
    assert len(submit(ledger, cancelling())) == BATCH_MAX
    assert remaining(ledger, "org:acme", "training.opt_in", NOW + 10) == set()


# At the same time


def test_a_change_that_another_process_schedules_meanwhile_is_cancelled_too(
    database_url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before,) = submit(ledger, scheduled(1))
    with open_ledger(database_url, clock=ledger.clock) as other:
        preconditions = ledger.recorder.append_preconditions
        meanwhile: list[Receipt] = []

        def other_is_quicker(*arguments: Any) -> Any:
            read = preconditions(*arguments)
            if not meanwhile:
                meanwhile.extend(submit(other, scheduled(2)))
            return read

        monkeypatch.setattr(ledger.recorder, "append_preconditions", other_is_quicker)
        receipts = submit(ledger, cancelling())
    assert retractions(ledger, receipts) == [before.event_id, meanwhile[0].event_id]
    assert remaining(ledger, "org:acme", "training.opt_in", receipts[0].recorded_at) == set()


def test_an_expected_version_still_counts(ledger: Ledger) -> None:
    submit(ledger, scheduled(1))
    with pytest.raises(VersionConflict):
        submit(ledger, cancelling(expected_version=0))


def test_in_one_group_a_cancellation_sees_what_the_members_before_it_schedule(ledger: Ledger) -> None:
    first, cancel, again = settle(ledger, queued(scheduled(1)), queued(cancelling()), queued(scheduled(2)))
    assert isinstance(first, tuple)
    assert isinstance(cancel, tuple)
    assert isinstance(again, tuple)
    assert retractions(ledger, cancel) == [first[0].event_id]
    assert [receipts[0].position for receipts in (first, cancel, again)] == [GENESIS + 1, GENESIS + 2, GENESIS + 4]
    assert remaining(ledger, "org:acme", "training.opt_in", NOW + 9) == {again[0].event_id}


def test_a_group_ends_where_its_retractions_fill_a_commit(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.append.commit.GROUP_EVENTS_MAX", 3)
    assert group_commit.GROUP_EVENTS_MAX > 3
    for subject in ("org:a", "org:b", "org:c"):
        submit(ledger, *(change(subject, effective_from=format_time(NOW + hours * HOUR)) for hours in (1, 2, 3)))
    group = [queued(change(subject, cancels_scheduled=True)) for subject in ("org:a", "org:b", "org:c")]
    assert ledger.committer.commit(group) == group[1:]
    outcomes = settle(ledger, *group[1:])
    assert [len(outcome) for outcome in outcomes if isinstance(outcome, tuple)] == [4, 4]


def test_many_writers_at_once_leave_nothing_that_begins_later_than_the_last_cancellation(
    database_url: str, ledger: Ledger
) -> None:
    with open_ledger(database_url, clock=ledger.clock) as other, ThreadPoolExecutor(6) as threads:

        def write(number: int) -> tuple[Receipt, ...]:
            body = cancelling() if number % 3 == 0 else scheduled(1 + number)
            return submit((ledger, other)[number % 2], body)

        list(threads.map(write, range(30)))
        last = submit(other, cancelling())
    assert remaining(ledger, "org:acme", "training.opt_in", last[0].recorded_at) == set()
    events = [json.loads(entry.leaf)["data"] for entry in ledger.stream("org:acme")]
    retracted = [data["retracts"] for data in events if "retracts" in data]
    assert len(retracted) == len(set(retracted)) == sum("effective_from" in data for data in events) - 11


@pytest.mark.parametrize("seed", range(12))
def test_after_a_cancellation_nothing_of_the_setting_begins_later(
    ledger: Ledger, clock: ManualClock, seed: int
) -> None:
    """For any history; and what begins earlier, or is of another setting or subject, is left alone."""
    random = Random(seed)
    history = RandomHistory(ledger, clock, seed)
    for _ in range(8):
        history.extend(12)
        clock.now_us += 1
        subject, setting, value = history._setting_value()
        offset = random.choice((None, None, -15, -1, 0, 1, 15))
        period = {} if offset is None else {"effective_from": format_time(clock.now_us + offset), "reason": "late"}
        everything = {
            (entry.subject, json.loads(entry.leaf)["data"]["setting"]) for entry in ledger.page(GENESIS, 1_000_000)
        }
        before = {pair: remaining(ledger, *pair, -(2**62)) for pair in everything}
        body = {**change(subject, value), "setting": setting, "cancels_scheduled": True, **period}
        receipts = submit(ledger, body)
        begin = receipts[0].effective_from
        assert begin is not None
        assert remaining(ledger, subject, setting, begin) == set()
        cancelled = set(retractions(ledger, receipts))
        history.retractable = [event_id for event_id in history.retractable if event_id not in cancelled]
        for pair, ids in before.items():
            now = remaining(ledger, *pair, -(2**62))
            if pair == (subject, setting):
                assert now == ids - cancelled | {receipts[0].event_id}
            else:
                assert now == ids
