"""A submission is recorded once, however often it is sent; whole or not at all; later than all before it."""

from typing import Any

import pytest

from ledger.append.submissions import parse_submissions
from ledger.clock import ManualClock
from ledger.drafts import KEY_LENGTH_MAX
from ledger.errors import (
    BadInput,
    BadSubmission,
    IdempotencyKeyReused,
    LedgerCorrupt,
    LedgerUnavailable,
    SubmissionInFlight,
)
from ledger.opening import open_ledger
from ledger.recorders.sqlite import SQLiteLedgerRecorder
from ledger.store import Ledger
from ledger.subjects import ACTOR_LENGTH_MAX
from ledger.times import format_time
from tests.support.ledgers import GENESIS, NOW, OPERATOR, change, define, definition, key, known_submission, submit

# Idempotency


def test_a_retry_answers_the_first_receipts_and_records_nothing(ledger: Ledger, clock: ManualClock) -> None:
    first = submit(ledger, change(), change("org:b", reason="ticket"), idempotency=key("k"))
    head = ledger.head()
    clock.now_us += 1_000_000
    submit(ledger, change())
    assert submit(ledger, change(), change("org:b", reason="ticket"), idempotency=key("k")) == first
    assert ledger.head().position == head.position + 1


def test_a_retry_is_known_to_another_ledger_object(database_url: str, ledger: Ledger) -> None:
    first = submit(ledger, change(), idempotency=key("k"))
    with open_ledger(database_url, clock=ledger.clock) as other:
        assert submit(other, change(), idempotency=key("k")) == first


def test_a_retry_with_an_expected_version_is_no_conflict(ledger: Ledger) -> None:
    first = submit(ledger, change(expected_version=0), idempotency=key("k"))
    assert submit(ledger, change(expected_version=0), idempotency=key("k")) == first


def test_a_key_used_for_another_body_is_refused(ledger: Ledger) -> None:
    submit(ledger, change(), idempotency=key("k", b"one"))
    head = ledger.head()
    with pytest.raises(IdempotencyKeyReused):
        submit(ledger, change(value=False), idempotency=key("k", b"two"))
    assert ledger.head() == head


def test_the_same_key_of_another_caller_is_another_key(ledger: Ledger) -> None:
    first = submit(ledger, change(), idempotency=key("k", b"one", "alice"))
    second = submit(ledger, change(), idempotency=key("k", b"two", "bob"))
    assert second[0].position == first[0].position + 1


def test_a_refused_submission_leaves_its_key_free(ledger: Ledger) -> None:
    with pytest.raises(BadSubmission):
        submit(ledger, change(value="yes"), idempotency=key("k", b"bad"))
    assert submit(ledger, change(), idempotency=key("k", b"good"))[0].version == 1


def test_a_retry_while_the_first_is_being_recorded_is_in_flight(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = ledger.recorder.append
    seen: list[type[BaseException]] = []

    def retry_meanwhile(*arguments: Any) -> Any:
        with pytest.raises(SubmissionInFlight) as error:
            submit(ledger, change(), idempotency=key("k"))
        seen.append(error.type)
        return append(*arguments)

    monkeypatch.setattr(ledger.recorder, "append", retry_meanwhile)
    submit(ledger, change(), idempotency=key("k"))
    assert seen == [SubmissionInFlight]
    monkeypatch.undo()
    assert submit(ledger, change(), idempotency=key("k"))[0].version == 1


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("expected_version", [None, 0])
def test_the_same_submission_through_two_ledgers_at_once_is_recorded_once(
    database_url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, expected_version: int | None, seen: bool
) -> None:
    """`seen`: whether the decision is made on a ledger that has the other's events already."""
    body = change() if expected_version is None else change(expected_version=expected_version)
    with open_ledger(database_url, clock=ledger.clock) as other:
        preconditions = ledger.recorder.append_preconditions
        done: list[Any] = []

        def other_is_quicker(*arguments: Any) -> Any:
            before = preconditions(*arguments)
            if not done:
                done.append(submit(other, body, idempotency=key("k")))
            return preconditions(*arguments) if seen else before

        monkeypatch.setattr(ledger.recorder, "append_preconditions", other_is_quicker)
        assert submit(ledger, body, idempotency=key("k")) == done[0]
    assert len(ledger.stream("org:acme")) == 1


@pytest.mark.parametrize("bad", ["", "nul\0inside", "k" * 257, "half \ud800"])
def test_a_key_that_a_database_cannot_store_is_bad_input(ledger: Ledger, bad: str) -> None:
    with pytest.raises(BadInput):
        submit(ledger, change(), idempotency=key(bad))
    with pytest.raises(BadInput):
        submit(ledger, change(), idempotency=key("k", caller=bad))
    assert ledger.head().position == GENESIS


def test_the_longest_key_of_the_widest_characters_is_stored(ledger: Ledger) -> None:
    # Characters that PostgreSQL cannot compress in its index.
    widest = "".join(chr(0x20000 + 7919 * number % 40_000) for number in range(ACTOR_LENGTH_MAX))
    longest = key(widest[:KEY_LENGTH_MAX], caller=widest[::-1])
    first = submit(ledger, change(), idempotency=longest)
    assert submit(ledger, change(), idempotency=longest) == first


# Atomic submissions


def test_a_bad_tenth_item_writes_nothing_and_is_named(ledger: Ledger) -> None:
    bodies = [change(f"org:{number}", reason="a reason") for number in range(9)]
    with pytest.raises(BadSubmission) as refused:
        submit(ledger, *bodies, change("model:m"), idempotency=key("k"))
    assert [fault.pointer for fault in refused.value.faults] == ["/events/9/setting"]
    assert ledger.head().position == GENESIS
    assert known_submission(ledger, "alice", "k") is None
    assert ledger.recorder.personal(list(range(100))) == {}


def test_a_failure_after_the_events_were_inserted_leaves_nothing(ledger: Ledger) -> None:
    sqlite = isinstance(ledger.recorder, SQLiteLedgerRecorder)
    with ledger.recorder.transaction(commit=True) as cursor:
        for statement in _FAILING_SQLITE if sqlite else _FAILING_POSTGRESQL:
            cursor.execute(statement)
    with pytest.raises((LedgerUnavailable, LedgerCorrupt), match="after the insert"):
        submit(ledger, change(reason="a reason"))
    assert ledger.head().position == GENESIS
    assert submit(ledger, change())[0].position == GENESIS + 1


_FAILING_SQLITE = (
    "CREATE TRIGGER failing BEFORE INSERT ON personal_data BEGIN SELECT RAISE(ABORT, 'after the insert'); END",
)
_FAILING_POSTGRESQL = (
    "CREATE FUNCTION failing() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'after the insert'; END$$",
    "CREATE TRIGGER failing BEFORE INSERT ON inforce.personal_data EXECUTE FUNCTION failing()",
)


def test_an_empty_submission_is_a_bad_submission(ledger: Ledger) -> None:
    with pytest.raises(BadSubmission):
        ledger.submit((), actor=OPERATOR)


@pytest.mark.parametrize("actor", ["", "a" * 257, "\ud800"])
def test_a_malformed_actor_is_bad_input(ledger: Ledger, actor: str) -> None:
    with pytest.raises(BadInput, match="an actor is a text of 1 to 256 characters"):
        ledger.submit(parse_submissions(change()), actor=actor)
    assert ledger.head().position == GENESIS


# Recorded time


def test_one_submission_has_one_recorded_at(ledger: Ledger, clock: ManualClock) -> None:
    clock.now_us += 5
    receipts = submit(ledger, *(change(f"org:{number}") for number in range(10)))
    assert {receipt.recorded_at for receipt in receipts} == {NOW + 5}


@pytest.mark.parametrize("step", [-19_000_000, -1, 0, 1])
def test_recorded_at_rises_with_every_submission_under_any_clock(ledger: Ledger, clock: ManualClock, step: int) -> None:
    times = [NOW]
    for _ in range(3):
        clock.now_us += step
        times.append(submit(ledger, change())[0].recorded_at)
    assert times == [NOW, NOW + 1, NOW + 2, NOW + 3]


def test_a_clock_set_back_refuses_no_valid_submission(ledger: Ledger, clock: ManualClock) -> None:
    clock.now_us = NOW - 1000
    with pytest.raises(BadSubmission):
        submit(ledger, change(effective_until=format_time(NOW + 1)))
    (receipt,) = submit(ledger, change(effective_until=format_time(NOW + 2)))
    assert (receipt.recorded_at, receipt.effective_from) == (NOW + 1, NOW + 1)


class SteppingClock:
    """Answers the given instants in turn, and then always the last one."""

    def __init__(self, *instants: int) -> None:
        self.instants = list(instants)

    def now(self) -> int:
        return self.instants.pop(0) if len(self.instants) > 1 else self.instants[0]


@pytest.mark.parametrize(("recorded", "accepted"), [(-1, True), (0, False), (1, False)])
def test_an_open_start_is_never_recorded_at_or_after_the_end_of_its_period(
    ledger: Ledger, recorded: int, accepted: bool
) -> None:
    end = NOW + 1_000
    ledger.clock = SteppingClock(NOW + 1, end + recorded)
    if accepted:
        (receipt,) = submit(ledger, change(effective_until=format_time(end)))
        assert receipt.effective_from == end + recorded
    else:
        with pytest.raises(BadSubmission) as refused:
            submit(ledger, change(effective_until=format_time(end)))
        assert refused.value.faults[0].pointer == "/effective_until"
        assert ledger.head().position == GENESIS


@pytest.mark.parametrize(("recorded", "accepted"), [(-1, True), (0, True), (1, False)])
def test_a_change_that_became_backdated_while_it_waited_needs_a_reason(
    ledger: Ledger, recorded: int, accepted: bool
) -> None:
    start = NOW + 1_000
    ledger.clock = SteppingClock(NOW + 1, start + recorded)
    if accepted:
        assert submit(ledger, change(effective_from=format_time(start)))[0].recorded_at == start + recorded
    else:
        with pytest.raises(BadSubmission, match="needs a reason"):
            submit(ledger, change(effective_from=format_time(start)))
        ledger.clock = SteppingClock(NOW + 1, start + recorded)
        submit(ledger, change(effective_from=format_time(start), reason="late"))


@pytest.mark.parametrize(("recorded", "accepted"), [(-1, True), (0, False), (1, False)])
def test_a_definition_that_takes_effect_between_decision_and_append_is_decided_again(
    ledger: Ledger, recorded: int, accepted: bool
) -> None:
    start = NOW + 1_000
    submit(ledger, define())
    submit(ledger, define(definition=definition(kinds=["account"]), effective_from=format_time(start)))
    ledger.clock = SteppingClock(NOW + 10, start + recorded)
    body = {**change(), "setting": "beta.search"}
    if accepted:
        assert submit(ledger, body)[0].recorded_at == start + recorded
    else:
        with pytest.raises(BadSubmission) as refused:
            submit(ledger, body)
        assert refused.value.faults[0].pointer == "/setting"
        assert ledger.stream("org:acme") == []


@pytest.mark.parametrize(("recorded", "accepted"), [(-1, True), (0, True), (1, False)])
def test_a_change_cannot_precede_the_definition_that_came_with_it(
    ledger: Ledger, recorded: int, accepted: bool
) -> None:
    start = NOW + 1_000
    ledger.clock = SteppingClock(NOW + 10, start + recorded)
    body = {**change(), "setting": "beta.search", "effective_from": format_time(start), "reason": "planned"}
    if accepted:
        definition_receipt, receipt = submit(ledger, define(), body)
        assert definition_receipt.effective_from is not None
        assert receipt.effective_from is not None
        assert definition_receipt.effective_from <= receipt.effective_from
    else:
        with pytest.raises(BadSubmission, match="not defined yet"):
            submit(ledger, define(), body)
