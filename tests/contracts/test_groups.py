"""Many submissions in one transaction: each has its own outcome, the same as if they had come one by one."""

from typing import Any, NamedTuple

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.append.group_commit import QueuedSubmission
from ledger.append.submissions import parse_submissions
from ledger.clock import ManualClock, SystemClock
from ledger.codec import fill_templates, leaf_hash, parse_leaf
from ledger.drafts import Idempotency
from ledger.errors import BadSubmission, IdempotencyKeyReused, InforceError, VersionConflict
from ledger.opening import open_ledger
from ledger.receipts import Receipt
from ledger.recorders.assign_positions import assign_positions
from ledger.recorders.contract import AppendPreconditions, AppendRequest, KnownSubmission, Placement
from ledger.store import Ledger
from ledger.times import BEGINNING, END, format_time
from tests.support.append_requests import AppendRequestBuilder
from tests.support.ledgers import GENESIS, NOW, OPERATOR, ORIGIN, change, define, key, known_submission, submit

# Appending requests


def test_each_request_has_its_own_position_and_time(ledger: Ledger, clock: ManualClock) -> None:
    builder = AppendRequestBuilder(ledger)
    requests = [builder.build(change("org:a")), builder.build(change("org:b"), change("org:a"))]
    clock.now_us = NOW + 10
    outcomes = ledger.recorder.append([*requests, builder.build(change("org:a"))], clock)
    assert outcomes == [
        Placement(GENESIS + 1, NOW + 10),
        Placement(GENESIS + 2, NOW + 11),
        Placement(GENESIS + 4, NOW + 12),
    ]
    assert [(e.position, e.subject, e.version, e.recorded_at - NOW) for e in ledger.page(GENESIS)] == [
        (GENESIS + 1, "org:a", 1, 10),
        (GENESIS + 2, "org:b", 1, 11),
        (GENESIS + 3, "org:a", 2, 11),
        (GENESIS + 4, "org:a", 3, 12),
    ]


@pytest.mark.parametrize(
    ("moved_by", "expected"), [(-3_600_000_000, NOW + 1), (0, NOW + 1), (1, NOW + 1), (2, NOW + 2)]
)
def test_recorded_at_stays_above_the_last_when_the_clock_steps_back(
    ledger: Ledger, clock: ManualClock, moved_by: int, expected: int
) -> None:
    request = AppendRequestBuilder(ledger).build(change())
    clock.now_us = NOW + moved_by
    assert ledger.recorder.append([request], clock) == [Placement(GENESIS + 1, expected)]


@pytest.mark.parametrize("late", [-1, 0, 1])
def test_a_request_recorded_too_late_is_stale_and_so_are_those_that_rely_on_it(
    ledger: Ledger, clock: ManualClock, late: int
) -> None:
    builder = AppendRequestBuilder(ledger)
    start = NOW + 100
    bound = builder.build(change("org:a", effective_from=format_time(start)), now=NOW + 50)
    requests = [bound, builder.build(change("org:a")), builder.build(change("org:b"))]
    clock.now_us = start + late
    first, second, third = ledger.recorder.append(requests, clock)
    if late <= 0:
        assert (first, second) == (Placement(GENESIS + 1, start + late), Placement(GENESIS + 2, start + late + 1))
    else:
        assert (first, second, third) == (None, None, Placement(GENESIS + 1, start + late))


def test_each_request_of_a_mixed_group_has_its_own_outcome(ledger: Ledger, clock: ManualClock) -> None:
    first = submit(ledger, change("org:known"), idempotency=key("known"))
    before = AppendRequestBuilder(ledger, {"org:moved": 0})
    moved = before.build(change("org:moved"))
    on_moved = before.build(change("org:moved"), change("org:c"))
    submit(ledger, change("org:moved"))
    builder = AppendRequestBuilder(ledger)
    head = ledger.head()
    outcomes = ledger.recorder.append(
        [
            builder.build(change("org:a", reason="one"), idempotency=key("a")),
            moved,
            builder.build(change("org:known"), idempotency=key("known", b"whatever")),
            on_moved,
            builder.build(change("org:known")),
            builder.build(change("org:b", reason="two"), change("org:a", reason="three"), idempotency=key("b")),
            builder.build(change("org:d"), idempotency=key("b")),
            builder.build(change("org:a")),
        ],
        clock,
    )
    known = KnownSubmission(key("known").body_sha256, first[0].position, 1)
    assert head.recorded_at is not None
    at = head.recorded_at
    assert outcomes == [
        Placement(head.position + 1, at + 1),
        None,
        known,
        None,
        None,
        Placement(head.position + 2, at + 2),
        None,
        Placement(head.position + 4, at + 3),
    ]
    positions = range(head.position + 1, head.position + 5)
    assert [entry.position for entry in ledger.page(head.position)] == list(positions)
    personal = ledger.recorder.personal(list(range(1, head.position + 9)))
    assert {position: data.reason for position, data in personal.items()} == dict(
        zip(positions, ("one", "two", "three"), strict=False)
    )
    assert known_submission(ledger, "alice", "a") == KnownSubmission(key("a").body_sha256, head.position + 1, 1)
    assert known_submission(ledger, "alice", "b") == KnownSubmission(key("b").body_sha256, head.position + 2, 2)


def test_a_group_of_stale_requests_writes_nothing(ledger: Ledger, clock: ManualClock) -> None:
    builder = AppendRequestBuilder(ledger, {"org:a": 7})
    head, mark = ledger.head(), ledger.recorder.append_preconditions(["org:a"])
    assert ledger.recorder.append([builder.build(change("org:a")), builder.build(change("org:a"))], clock) == [
        None,
        None,
    ]
    assert ledger.recorder.append([], clock) == []
    assert (ledger.head(), ledger.recorder.append_preconditions(["org:a"])) == (head, mark)


@st.composite
def groups(draw: st.DrawFn) -> list[tuple[list[str], bool, bool, str | None]]:
    """For each request: subjects, whether its versions are wrong, whether it is too late, its key."""
    request = st.tuples(
        st.lists(st.sampled_from(["org:a", "org:b", "org:c"]), min_size=1, max_size=3),
        st.sampled_from([False, False, True]),
        st.sampled_from([False, False, True]),
        st.sampled_from([None, None, "used", "x", "y"]),
    )
    return draw(st.lists(request, min_size=1, max_size=6))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(groups())
def test_both_databases_assign_positions_by_the_plain_rule(
    ledger: Ledger, clock: ManualClock, group: list[tuple[list[str], bool, bool, str | None]]
) -> None:
    clock.now_us += 1_000_000
    if known_submission(ledger, "alice", "used") is None:
        submit(ledger, change("org:z"), idempotency=key("used"))
    builder = AppendRequestBuilder(ledger)
    requests: list[AppendRequest] = []
    for subjects, wrong, late, name in group:
        if wrong:
            builder.versions[subjects[0]] = 1_000_000 + len(requests)
        more: dict[str, Any] = {"effective_from": format_time(clock.now_us - 1)} if late else {}
        # Unique among the examples, except "used".
        unique = name if name in (None, "used") else f"{name}{clock.now_us}"
        requests.append(
            builder.build(
                *(change(subject, **more) for subject in subjects),
                now=clock.now_us - 2,
                idempotency=None if unique is None else key(unique),
            )
        )
    relied = {subject for request in requests for subject in request.plan.versions}
    preconditions = ledger.recorder.append_preconditions(relied, [request.key for request in requests if request.key])
    expected = assign_positions(requests, preconditions, clock.now())
    assert ledger.recorder.append(requests, clock) == expected
    positions = [entry.position for entry in ledger.page(preconditions.head.position)]
    assert positions == list(range(preconditions.head.position + 1, preconditions.head.position + 1 + len(positions)))


def test_the_preconditions_equal_separate_reads(ledger: Ledger) -> None:
    submit(ledger, change("org:a"), change("org:a"), idempotency=key("k"))
    keys = [("alice", "k"), ("alice", "none"), ("bob", "k")]
    known = known_submission(ledger, "alice", "k")
    assert known is not None
    assert ledger.recorder.append_preconditions(["org:a", "org:none", "catalog:settings"], keys) == AppendPreconditions(
        ledger.head(), {"org:a": 2, "org:none": 0, "catalog:settings": GENESIS}, {("alice", "k"): known}
    )
    assert ledger.recorder.append_preconditions([]) == AppendPreconditions(ledger.head(), {}, {})


# The bytes

ODD = ["\\", '"', "é", "\u2028", "𐀀", "\x7f", "\x01", "\\x01I", "\0", "%", "$1", "\\001T", "''"]


@pytest.mark.parametrize(
    "moment",
    [
        BEGINNING + 1_000,
        -62_000_000_000_000_001,
        -1,
        0,
        1,
        86_400_000_000 - 1,
        951_782_400_000_000 - 1,
        NOW + 123,
        END - 1_000,
    ],
)
def test_the_bytes_are_those_of_the_codec_at_every_instant(database_url: str, moment: int) -> None:
    clock = ManualClock(moment)
    with open_ledger(database_url, create=True, clock=clock, origin=ORIGIN) as ledger:
        requests = odd_requests(ledger)
        outcomes = ledger.recorder.append(requests, clock)
        expected = [
            leaf
            for request, outcome in zip(requests, outcomes, strict=True)
            for leaf in fill_templates(request.templates, *required(outcome))
        ]
        entries = ledger.page(GENESIS)
        assert [entry.leaf for entry in entries] == expected
        assert [entry.leaf_hash for entry in entries] == [leaf_hash(leaf) for leaf in expected]
        assert parse_leaf(expected[0]).time == format_time(ledger.page(GENESIS)[0].recorded_at)
        texts = [data.reason for data in ledger.recorder.personal([entry.position for entry in entries]).values()]
        assert sorted(texts) == sorted(ODD)


def odd_requests(ledger: Ledger) -> list[Any]:
    builder = AppendRequestBuilder(ledger, entropy=lambda count: b"\xa7" * count)
    texts = [
        {"type": "setting.changed", "subject": f"model:m{n}", "setting": "model.author", "value": odd, "reason": odd}
        for n, odd in enumerate(ODD)
    ]
    return [
        builder.build(*texts[:5]),
        builder.build(*texts[5:]),
        builder.build({"type": "setting.cleared", "subject": "org:acme", "setting": "training.opt_in"}),
    ]


def required(outcome: Any) -> Placement:
    assert isinstance(outcome, Placement)
    return outcome


def test_a_database_of_another_encoding_keeps_the_bytes(postgres_server_url: str, postgres_url: str) -> None:
    """`SQL_ASCII` has no characters, only bytes: filling in the placeholders must not interpret them."""
    name = "inforce_test_ascii"
    with psycopg.connect(postgres_server_url, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {name}")
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'")
        try:
            url = postgres_url.replace(postgres_url.rpartition("/")[2].partition("?")[0], f"{name}") + (
                "&client_encoding=utf8"
            )
            clock = ManualClock(NOW)
            with open_ledger(url, create=True, clock=clock, origin=ORIGIN) as ledger:
                requests = odd_requests(ledger)
                outcomes = ledger.recorder.append(requests, clock)
                expected = [
                    leaf
                    for request, outcome in zip(requests, outcomes, strict=True)
                    for leaf in fill_templates(request.templates, *required(outcome))
                ]
                assert [entry.leaf for entry in ledger.page(GENESIS)] == expected
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


# Committing groups of submissions


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
