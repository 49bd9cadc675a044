"""The append of a group of requests: positions, times, stale requests and bytes, on every database."""

from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.clock import ManualClock
from ledger.codec import fill_templates, leaf_hash, parse_leaf
from ledger.opening import open_ledger
from ledger.recorders.assign_positions import assign_positions
from ledger.recorders.contract import AppendPreconditions, AppendRequest, KnownSubmission, Placement
from ledger.store import Ledger
from ledger.times import BEGINNING, END, format_time
from tests.support.append_requests import AppendRequestBuilder
from tests.support.ledgers import GENESIS, NOW, ORIGIN, change, key, known_submission, submit


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


@pytest.mark.parametrize(("moved_by", "expected"), [(-60_000_000, NOW + 1), (0, NOW + 1), (1, NOW + 1), (2, NOW + 2)])
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
    known = known_submission(ledger, "alice", "known")
    assert known is not None
    assert known[1:] == (first[0].position, 1)
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

ODD = ["\\", '"', "é", "a\u2028b", "𐀀", "a\x7f", "\x01b", "\\x01I", "\0c", "%", "$1", "\\001T", "''"]


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
