"""Every answer is pinned to one position of the ledger: fresh after a write, and consistent while others write."""

import json
import threading
from collections.abc import Iterable
from typing import Any

import pytest

from ledger.append.submissions import parse_submissions
from ledger.clock import ManualClock
from ledger.errors import LedgerUnavailable
from ledger.opening import open_ledger
from ledger.receipts import Receipt
from ledger.recorders.contract import Entry
from ledger.subjects import CATALOG_SUBJECT
from ledger.times import format_time
from projections.decisions.model import read_record
from projections.query.query import IN_FORCE, KnownAt, PinnedQuery, Query
from projections.temporal.effective_timeline import NO_TIMELINES
from tests.support.questions import CACHING, HOUR, NOON, START, STORAGE, QueryLedger, changed, retracted
from tests.support.random_history import SUBJECTS, RandomHistory
from tests.support.reference import Json


def test_a_read_after_an_acknowledged_write_sees_it_by_any_writer(bench: QueryLedger, database_url: str) -> None:
    with open_ledger(database_url, clock=bench.clock) as other_ledger:
        other = Query(other_ledger)
        for step in range(4):
            writer, reader = (bench.ledger, other) if step % 2 else (other_ledger, bench.query)
            bench.clock.now_us = NOON + step
            (receipt,) = writer.submit(parse_submissions(changed("org:acme", STORAGE, step % 2 == 0)), actor="ops")
            for query in (reader, bench.query, other):
                answer = query.state("org:acme", at=NOON + step)
                assert answer.position == receipt.position
                assert answer.settings[STORAGE].value is (step % 2 == 0)


def test_all_decisions_of_a_batch_are_pinned_to_one_position(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    records = [read_record({"org_id": f"o{index % 7}"}, NOON) for index in range(50)]
    decisions = bench.query.check_all(iter(records))
    assert {decision.as_of.position for decision in decisions} == {bench.ledger.head().position}
    assert {decision.as_of.known_at for decision in decisions} == {NOON}


@pytest.mark.parametrize("room", [20_000, 30, 0])
def test_many_decisions_at_one_known_at_read_each_subject_once_while_the_cache_has_room(
    bench: QueryLedger, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr("projections.query.snapshots.FOLDED_MAX", room)
    bench.submit(NOON, changed("org:acme", STORAGE, True), changed("org:beta", STORAGE, True))
    bench.submit(NOON + 2, changed("org:acme", STORAGE, False))
    records = [read_record({"org_id": org}, NOON + 3) for org in ("acme", "beta", "acme", "nobody") * 5]
    expected = [bench.query.check(record, NOON + 1) for record in records]
    assert {decision.outcome.handling.may_store for decision in expected} == {True, False}
    read: list[str] = []
    stream = bench.ledger.stream

    def counted(subject: str, *args: Any, **more: Any) -> Any:
        read.append(subject)
        return stream(subject, *args, **more)

    monkeypatch.setattr(bench.ledger, "stream", counted)
    assert bench.query.check_all(records, NOON + 1) == expected
    if room == 20_000:
        assert sorted(read) == [CATALOG_SUBJECT, "org:acme", "org:beta", "org:nobody"]


def test_what_is_kept_of_many_subjects_is_bounded_by_the_size_of_their_values(
    bench: QueryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was bounded by a count, which 20,000 values of 64 KB fill with more than a gigabyte."""
    monkeypatch.setattr("projections.query.snapshots.ASSERTIONS_MAX", 1000)
    monkeypatch.setattr("projections.query.snapshots.FOLDED_MAX", 1000)
    # As if these were small, because large values are not kept at all.
    monkeypatch.setattr("projections.temporal.changes.LARGE_BYTES", 10**9)
    large = [f"{number}-{'x' * 240}" for number in range(200)]
    for number in range(30):
        bench.submit(NOON + number, changed(f"org:o{number}", "residency.regions", large))
    bench.submit(NOON + 99, changed("org:last", STORAGE, True))
    context = bench.query.context()
    for number in range(30):
        subject = f"org:o{number}"
        assert bench.query.state(subject, at=NOON + 40, known_at=IN_FORCE).settings["residency.regions"].value
        assert context.folded(subject, NOON + 40)

    def kept(assertions: Iterable[Any]) -> int:
        return sum(len(json.dumps(one.value)) for one in assertions if one.value is not None)

    assert 0 < sum(kept(every) for every, _scheduled in context.snapshot._assertions.values()) < 600_000
    folded = (
        step for timelines in context._folded.values() for timeline in timelines.values() for step in timeline.changes
    )
    assert 0 < kept(change for change in folded if change is not None) < 600_000


def test_a_tiny_cache_gives_the_same_answers(bench: QueryLedger) -> None:
    subjects = [f"org:o{index}" for index in range(6)]
    bench.submit(NOON, *(changed(subject, STORAGE, index % 2 == 0) for index, subject in enumerate(subjects)))
    tiny = Query(bench.ledger, memory_max=1)
    for known_at in (None, IN_FORCE):
        for _round in range(2):
            for subject in subjects:
                assert tiny.state(subject, at=NOON, known_at=known_at) == bench.query.state(
                    subject, at=NOON, known_at=known_at
                )
    bench.submit(NOON + 1, changed(subjects[0], STORAGE, False))
    assert tiny.state(subjects[0], at=NOON + 1).settings[STORAGE].value is False
    assert tiny.state(subjects[2], at=NOON + 1).settings[STORAGE].value is True


def test_a_question_stays_at_its_position_while_the_timelines_move_on(
    bench: QueryLedger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key was read before it changed hands, the organization's settings after."""
    bench.submit(NOON, changed("org:a", STORAGE, True, NOON - HOUR), changed("key:k1", "owner", "org:a", NOON - HOUR))
    record = read_record({"key_id": "k1", "handling": {"stored": True}}, NOON + HOUR)
    read = bench.query.store.subject
    moved: list[Receipt] = []

    def read_and_move_on(subject: str) -> Any:
        history = read(subject)
        if subject == "key:k1" and not moved:
            with open_ledger(database_url, clock=ManualClock(NOON + 1)) as ledger:
                events = [changed("key:k1", "owner", "org:b"), changed("org:a", STORAGE, False)]
                events.append(changed("org:b", STORAGE, True))
                moved.extend(ledger.submit(parse_submissions({"events": events}), actor="other"))
                Query(ledger).context()
        return history

    monkeypatch.setattr(bench.query.store, "subject", read_and_move_on)
    decision = bench.query.check(record)
    assert (decision.outcome.verdict, decision.outcome.governed_by.subject) == ("compliant", "org:a")
    assert decision.as_of.position == moved[0].position - 1
    assert bench.query.check(record).outcome.governed_by.subject == "org:b"
    assert bench.query.check(record).as_of.position == moved[-1].position


def test_answers_stay_consistent_while_another_writes_and_projects(bench: QueryLedger, database_url: str) -> None:
    """The key changes hands with every submission, and only the org that has it then stores. No answer ever shows the
    new owner with the old settings, or an older position than the answer before."""

    def handed_over(step: int) -> list[Json]:
        orgs = ["org:a", "org:b"]
        until = NOON + 2 * HOUR
        stores = [changed(org, STORAGE, orgs.index(org) == step % 2, NOON - HOUR, until) for org in orgs]
        return [*stores, changed("key:k1", "owner", orgs[step % 2], NOON - HOUR, until)]

    bench.submit(NOON, *handed_over(0))
    rounds = 25
    failures: list[BaseException] = []

    def write() -> None:
        try:
            with open_ledger(database_url, clock=ManualClock(NOON)) as ledger:
                other = Query(ledger)
                for step in range(1, rounds):
                    ledger.submit(parse_submissions({"events": handed_over(step)}), actor="other")
                    other.context()
        except BaseException as error:
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    last = 0
    count = 0
    record = read_record({"key_id": "k1", "handling": {"stored": True}}, NOON + HOUR)
    while writer.is_alive() or count < 3:
        choices: list[KnownAt] = [None, IN_FORCE, NOON + count]
        decision = bench.query.check(record, choices[count % 3])
        count += 1
        assert decision.outcome.verdict == "compliant"
        assert decision.as_of.position >= last
        last = decision.as_of.position
    writer.join()
    assert failures == []
    final = bench.query.check(record)
    assert final.as_of.position == bench.ledger.head().position
    assert final.outcome.governed_by.subject == "org:a"


def test_the_known_at_of_an_answer_is_at_most_the_present(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    later = NOON + HOUR
    record = read_record({"org_id": "acme", "at": format_time(later)}, now=0)
    assert bench.query.check(record).as_of[:2] == (later, NOON)
    assert bench.query.check(record, later).as_of.known_at == NOON
    assert bench.query.state("org:acme", at=NOON, known_at=later).known_at == NOON
    assert bench.query.timeline("org:acme", known_at=later).known_at == NOON
    assert bench.query.diff("org:acme", start=START, end=later, known_at=later).known_at == NOON
    assert bench.query.catalog(at=later, known_at=IN_FORCE).known_at == NOON


def test_the_known_at_of_a_pinned_answer_is_before_events_recorded_since(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    pinned = PinnedQuery(bench.query)
    bench.submit(NOON + HOUR, changed("org:acme", STORAGE, False))
    bench.clock.now_us = NOON + 2 * HOUR
    decision = pinned.check(read_record({"org_id": "acme", "at": format_time(NOON)}, now=0), None)
    assert decision.outcome.handling.may_store
    assert decision.as_of.known_at == NOON


def test_cached_timelines_follow_the_events_as_the_stored_ones_do(bench: QueryLedger) -> None:
    past = RandomHistory(bench.ledger, bench.clock, seed=11)
    for _ in range(40):
        past.extend(2)
        cached, stored = bench.query.context(), Query(bench.ledger).context()
        for subject in (*SUBJECTS, CATALOG_SUBJECT):
            cached_timelines, expected = (context.snapshot.subject(subject).timelines for context in (cached, stored))
            for setting, timelines in expected.items():
                assert cached_timelines[setting] == timelines, (subject, setting)
            for setting in cached_timelines.keys() - expected.keys():
                assert cached_timelines[setting] == NO_TIMELINES, "all changes of the setting were retracted"


def test_in_force_and_current_stay_one_object_in_memory_until_they_differ(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    bench.query.context().snapshot.subject("org:acme")
    bench.submit(NOON + 1, changed("org:acme", STORAGE, False), changed("org:acme", CACHING, False, NOON + HOUR))
    cached = bench.query.context().snapshot.subject("org:acme")
    assert all(both.in_force is both.current for both in cached.timelines.values())
    assert cached.timelines == Query(bench.ledger).context().snapshot.subject("org:acme").timelines
    bench.submit(NOON + 2, changed("org:acme", STORAGE, True, NOON - HOUR))
    later = bench.query.context().snapshot.subject("org:acme").timelines
    assert later[STORAGE].in_force is not later[STORAGE].current
    assert later[STORAGE] != cached.timelines[STORAGE]
    assert later[CACHING].in_force is later[CACHING].current


def test_answers_are_the_same_with_and_without_effective_timelines(
    bench: QueryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = RandomHistory(bench.ledger, bench.clock, seed=12)
    past.extend(80)
    last = bench.clock.now_us
    records = [
        read_record({"org_id": "acme", "account_id": None, "at": format_time(at), "handling": {"trained": True}}, now=0)
        for at in range(START, last + HOUR, max(1, (last - START) // 50))
    ]
    expected = bench.query.check_all(records)
    monkeypatch.setattr("projections.query.as_of_view.EFFECTIVE_STEPS_MAX", 0)
    assert Query(bench.ledger).check_all(records) == expected


def test_events_half_applied_when_the_database_failed_are_not_applied_twice(
    bench: QueryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In force, a value must not show before its submission, as it would if its event were applied again."""
    bench.submit(NOON, changed("org:a", STORAGE, False, NOON - HOUR))
    assert bench.query.state("org:a", at=NOON).settings[STORAGE].value is False
    bench.submit(NOON + 10, changed("org:a", STORAGE, True, NOON - HOUR))
    bench.submit(NOON + 20, changed("org:a", STORAGE, False, NOON + 15))
    bench.submit(NOON + 30, changed("org:b", STORAGE, True, NOON))
    page = bench.ledger.page
    pages: list[int] = []

    def page_that_fails_once(
        after: int, limit: int = 1000, until: int | None = None, bytes_max: int | None = None
    ) -> list[Entry]:
        if until is None:
            return page(after, limit, bytes_max=bytes_max)
        pages.append(after)
        if len(pages) == 3:
            raise LedgerUnavailable("the database is gone")
        return page(after, 1, until)

    monkeypatch.setattr(bench.ledger, "page", page_that_fails_once)
    with pytest.raises(LedgerUnavailable):
        bench.query.state("org:a", at=NOON + 15, known_at=IN_FORCE)
    for query in (bench.query, Query(bench.ledger)):
        for at, value in ((NOON + 9, False), (NOON + 10, True), (NOON + 19, True), (NOON + 20, False)):
            assert query.state("org:a", at=at, known_at=IN_FORCE).settings[STORAGE].value is value
    assert len(pages) >= 3


def test_a_pinned_timeline_shows_the_same_settings_when_the_ledger_has_moved_on(bench: QueryLedger) -> None:
    """All changes of one setting were retracted before they held. Found by tests/simulation."""
    bench.submit(NOON, changed("org:acme", CACHING, False))
    (scheduled,) = bench.submit(NOON + 1, changed("org:acme", STORAGE, True, NOON + HOUR))
    bench.submit(NOON + 2, retracted(scheduled.event_id))
    pinned = PinnedQuery(bench.query)
    before = pinned.timeline("org:acme")
    bench.submit(NOON + 3, changed("org:acme", CACHING, True))
    bench.query.context()
    assert pinned.timeline("org:acme") == before
    assert {interval.setting for interval in before.intervals} == {CACHING}
