"""Many submissions in one transaction: each has its own outcome, the same as if they had come one by one."""

from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.append.group_commit import QueuedSubmission
from ledger.append.submissions import parse_submissions
from ledger.clock import ManualClock, SystemClock
from ledger.codec import parse_leaf
from ledger.drafts import Idempotency
from ledger.errors import BadSubmission, IdempotencyKeyReused, InforceError, VersionConflict
from ledger.opening import open_ledger
from ledger.receipts import Receipt
from ledger.store import Ledger
from ledger.times import format_time
from tests.support.ledgers import GENESIS, NOW, OPERATOR, ORIGIN, change, define, key, submit


def queued(*bodies: dict[str, Any], idempotency: Idempotency | None = None) -> QueuedSubmission:
    return QueuedSubmission(parse_submissions({"events": list(bodies)}), OPERATOR, idempotency, True)


def settle(ledger: Ledger, *group: QueuedSubmission) -> list[tuple[Receipt, ...] | InforceError]:
    """Commits the group, and then the members that must be decided again, as the writer does."""
    committer = ledger.committer
    waiting = list(group)
    for _ in range(len(group) + 3):
        if not waiting:
            break
        waiting = committer.commit(waiting)
    assert all(one.settled for one in group)
    outcomes: list[tuple[Receipt, ...] | InforceError] = []
    for one in group:
        assert one.error is None or isinstance(one.error, InforceError)
        outcomes.append(one.error or one.outcome())
    return outcomes


def test_changes_of_one_subject_in_one_group_all_go_through(ledger: Ledger) -> None:
    outcomes = settle(ledger, *(queued(change(value=value)) for value in (True, False, True)))
    assert [receipts[0].version for receipts in outcomes if isinstance(receipts, tuple)] == [1, 2, 3]
    moments = [entry.recorded_at for entry in ledger.page(GENESIS)]
    assert moments == sorted(set(moments))


def test_of_submissions_that_expect_the_same_version_in_one_group_one_wins(ledger: Ledger) -> None:
    first, *others = settle(ledger, *(queued(change(expected_version=0)) for _ in range(4)))
    assert isinstance(first, tuple)
    for other in others:
        assert isinstance(other, VersionConflict)
        assert (other.expected, other.actual) == (0, 1)
    assert len(ledger.stream("org:acme")) == 1


def test_a_member_may_expect_a_version_that_an_earlier_member_makes(ledger: Ledger) -> None:
    first, second = settle(ledger, queued(change()), queued(change(expected_version=1)))
    assert isinstance(first, tuple)
    assert isinstance(second, tuple)


def test_a_fault_concerns_one_member_only(ledger: Ledger) -> None:
    (target,) = submit(ledger, change("org:r"))
    retraction = {"type": "change.retracted", "event_id": target.event_id, "reason": "a slip"}
    outcomes = settle(
        ledger,
        queued(change("org:a")),
        queued(change("org:b", value="yes")),
        queued(retraction),
        queued(retraction),
        queued(change("org:c", expected_version=9)),
        queued(change("org:d"), change("model:d")),
        queued({**retraction, "event_id": "no such id"}),
        queued(change("org:e"), idempotency=key("k", b"one")),
        queued(change("org:f")),
    )
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [
        tuple,
        BadSubmission,
        tuple,
        BadSubmission,
        VersionConflict,
        BadSubmission,
        BadSubmission,
        tuple,
        tuple,
    ]
    assert "retracted already" in str(outcomes[3])
    assert [entry.subject for entry in ledger.page(GENESIS + 1)] == ["org:a", "org:r", "org:e", "org:f"]
    reused, again = settle(
        ledger,
        queued(change("org:e"), idempotency=key("k", b"two")),
        queued(change("org:e", expected_version=0), idempotency=key("k", b"one")),
    )
    assert isinstance(reused, IdempotencyKeyReused)
    assert again == outcomes[7]


def test_submissions_after_a_definition_are_decided_by_it(ledger: Ledger) -> None:
    uses = {**change(), "setting": "beta.search"}
    early, defined, late = settle(ledger, queued(uses), queued(define()), queued(uses))
    assert isinstance(early, BadSubmission)
    assert isinstance(defined, tuple)
    assert isinstance(late, tuple)


def test_a_refusal_because_of_an_unrecorded_member_is_decided_again(
    database_url: str, ledger: Ledger, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first member becomes stale, so the second's expected version holds after all, and then the first's does
    not."""
    append = ledger.recorder.append
    calls: list[Any] = []

    def first_is_late(requests: Any, clock_: Any) -> Any:
        if not calls:
            clock.now_us += 1_000_000
        calls.append(requests)
        return append(requests, clock_)

    monkeypatch.setattr(ledger.recorder, "append", first_is_late)
    soon = format_time(NOW + 1_000)
    first, second = settle(ledger, queued(change(effective_from=soon)), queued(change(expected_version=0, value=False)))
    assert isinstance(first, BadSubmission)
    assert "backdated" in str(first)
    assert isinstance(second, tuple)


SUBJECTS = ["org:a", "org:b", "account:u", "model:m"]


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    subject = draw(st.sampled_from(SUBJECTS))
    kind = draw(st.sampled_from(["change", "change", "change", "clear", "retract", "define"]))
    offset = draw(st.sampled_from([None, None, -5, 0, 1, 2, 3, 5, 1000]))
    more: dict[str, Any] = {}
    if offset is not None:
        more["effective_from"] = format_time(NOW + 10 + offset)
    if draw(st.booleans()):
        more["reason"] = "because"
    expected = draw(st.sampled_from([None, None, None, 0, 1, 2]))
    if expected is not None:
        more["expected_version"] = expected
    if kind == "retract":
        more.pop("effective_from", None)
        return {"type": "change.retracted", "event_id": draw(st.integers(0, 2)), **more}
    if kind == "define":
        return {**define(), **more}
    setting = draw(st.sampled_from(["training.opt_in", "beta.search"]))
    if kind == "clear":
        return {"type": "setting.cleared", "subject": subject, "setting": setting, **more}
    return {"type": "setting.changed", "subject": subject, "setting": setting, "value": draw(st.booleans()), **more}


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.lists(bodies(), min_size=1, max_size=3), st.sampled_from([None, None, "k1", "k2"])),
        min_size=2,
        max_size=8,
    )
)
def test_a_group_has_the_outcome_of_the_same_submissions_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, submissions: list[tuple[list[dict[str, Any]], str | None]]
) -> None:
    """Equal down to the bytes, except positions and times; those too if nothing was decided again."""
    results = []
    for together in (True, False):
        folder = tmp_path_factory.mktemp("group")
        clock = ManualClock(NOW)
        with open_ledger(f"sqlite:///{folder}/ledger.db", create=True, clock=clock, origin=ORIGIN) as ledger:
            # Constant, because a group decides some submissions twice.
            ledger.committer.entropy = lambda count: b"\x5a" * count
            targets = [submit(ledger, change(f"org:{name}"))[0].event_id for name in "abc"]
            clock.now_us = NOW + 10
            group = []
            for number, (events, name) in enumerate(submissions):
                named = [
                    {**event, "event_id": targets[event["event_id"]]} if "event_id" in event else event
                    for event in events
                ]
                # Every key only once, because the writer refuses a key that is in flight.
                group.append(queued(*named, idempotency=None if name is None else key(f"{name}{number}")))
            results.append(result(ledger, [group] if together else [[one] for one in group]))
    grouped, single = results
    assert grouped.outcomes == single.outcomes
    assert grouped.streams == single.streams
    if grouped.rounds == 1:
        assert grouped.leaves == single.leaves


class Result(NamedTuple):
    outcomes: list[Any]
    streams: dict[str, list[Any]]
    leaves: list[bytes]
    rounds: int


def result(ledger: Ledger, groups: list[list[QueuedSubmission]]) -> Result:
    """The outcome of the groups, committed one after another."""
    committer = ledger.committer
    rounds = 0
    for group in groups:
        waiting = group
        while waiting:
            waiting = committer.commit(waiting)
            rounds += 1
    outcomes = [
        [(receipt.subject, receipt.version) for receipt in one.receipts] if one.receipts else [type(one.error)]
        for group in groups
        for one in group
    ]
    entries = ledger.page(GENESIS)
    streams: dict[str, list[Any]] = {}
    for entry in entries:
        data = parse_leaf(entry.leaf).data
        now = data.effective_from == format_time(entry.recorded_at)
        row = (entry.topic, entry.version, data.setting, data.value, data.retracts, now or data.effective_from)
        streams.setdefault(entry.subject, []).append(row)
    return Result(outcomes, streams, [entry.leaf for entry in entries], rounds)


def test_an_append_reads_the_clock_once(ledger: Ledger) -> None:
    ledger.clock = SystemClock()
    before = ledger.clock.now()
    outcomes = settle(ledger, *(queued(change(f"org:{number}")) for number in range(5)))
    after = ledger.clock.now()
    moments = [receipts[0].recorded_at for receipts in outcomes if isinstance(receipts, tuple)]
    assert before <= moments[0] <= after
    assert moments == list(range(moments[0], moments[0] + 5))
