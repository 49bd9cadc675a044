"""The bases of decisions are cached, and never used for an instant or position at which they do not hold."""

import random
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.times import format_time
from projections.decisions.check import check
from projections.decisions.model import Decision, RequestRecord, read_record
from projections.query.as_of_view import AsOfView
from projections.query.decide import decide_from_memory
from projections.query.decision_cache import SPANS_MAX
from projections.query.query import IN_FORCE, PinnedQuery, Query
from tests.query.test_against_reference import GOVERNORS, grown
from tests.support.questions import CACHING, HOUR, NOON, STORAGE, TRAINING, QueryLedger, changed, defined, retracted
from tests.support.reference import Json, Reference


def _uncached(query: Query, record: RequestRecord) -> Decision:
    """The decision without any cache: `check` over a new view."""
    fresh = Query(query.ledger)
    decision = fresh.check(record)
    assert decision.outcome == check(record, AsOfView(fresh.context(), record.at, IN_FORCE))
    return decision


def _from_memory(bench: QueryLedger, records: list[RequestRecord]) -> list[Decision] | None:
    context = bench.query.context_nowait()
    return None if context is None else decide_from_memory(records, context)


@pytest.mark.parametrize("seed", range(3))
def test_at_every_boundary_cached_decisions_are_those_computed_anew(bench: QueryLedger, seed: int) -> None:
    """Events come between the questions, which are about every instant at which a period begins or ends, and about the
    microseconds before and after."""
    chance = random.Random(seed)
    for stage in range(4):
        grown(bench, chance, range(8 * stage, 8 * stage + 8))
        reference = Reference(entry.leaf for entry in bench.ledger.page(0))
        record: Json = {"key_id": "k1", "model_id": "m1", "handling": {"stored": True, "trained": True}}
        instants = range(NOON - 8, NOON + 90)
        records = [read_record({**record, "at": format_time(at)}, now=0) for at in instants]
        for _ in range(2):
            for one in chance.sample(records, len(records)):
                decision = bench.query.check(one)
                expected = reference.check(record, one.at, one.at)
                assert decision.outcome.verdict == expected["verdict"]
                assert list(decision.outcome.reasons) == expected["reasons"]
        fresh = Query(bench.ledger)
        assert bench.query.check_all(records) == [fresh.check(one) for one in records]
        for one in records[::9]:
            assert bench.query.check(one) == _uncached(bench.query, one)


def test_a_basis_is_made_once_and_found_again(bench: QueryLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True), changed("key:k1", "owner", "org:acme"))
    record = read_record({"key_id": "k1", "at": format_time(NOON + HOUR)}, now=0)
    first = bench.query.check(record)
    monkeypatch.setattr("projections.query.decide.decision_basis", None)
    assert bench.query.check(record._replace(at=NOON + HOUR + 1)).outcome is first.outcome
    with pytest.raises(TypeError):
        bench.query.check(record._replace(at=NOON - 1))


@pytest.mark.parametrize(
    "news",
    [
        changed("key:k1", "owner", "org:beta", NOON),
        changed("project:p1", "owner", "org:beta", NOON),
        changed("org:acme", STORAGE, False, NOON),
        changed("model:m1", "model.hosting", "passthrough", NOON),
        defined(CACHING, NOON, default=False),
    ],
    ids=["key", "project", "org", "model", "catalog"],
)
def test_news_of_any_subject_that_a_basis_rests_on_drops_it(bench: QueryLedger, news: Json) -> None:
    owners = [changed("key:k1", "owner", "project:p1"), changed("project:p1", "owner", "org:acme")]
    bench.submit(NOON, *owners, changed("org:acme", STORAGE, True), changed("model:m1", "model.hosting", "hosted"))
    record = read_record({"key_id": "k1", "model_id": "m1", "at": format_time(NOON + 2 * HOUR)}, now=0)
    before = bench.query.check(record)
    bench.submit(NOON + HOUR, news)
    after = bench.query.check(record)
    assert after.outcome != before.outcome
    assert after == _uncached(bench.query, record)


def test_a_basis_made_without_the_published_settings_decides_nothing_about_them(bench: QueryLedger) -> None:
    hosted, precision = ("model.hosting", "hosted"), ("model.precision", "bf16")
    bench.submit(NOON, *(changed("model:m1", *one) for one in (hosted, precision)))
    record = {"org_id": "acme", "model_id": "m1", "at": format_time(NOON + HOUR)}
    plain, served = (
        read_record(record | {"handling": one}, now=0) for one in ({"stored": False}, {"precision": "fp8"})
    )
    assert bench.query.check(plain).outcome.verdict == "compliant"
    assert decide_from_memory([served], bench.query.context()) is None
    assert bench.query.check(served).outcome.reasons == ("not_as_published",)
    # The new basis serves both kinds of record from memory.
    both = decide_from_memory([plain, served], bench.query.context())
    assert both is not None
    assert both == [_uncached(bench.query, one) for one in (plain, served)]


def test_hindsight_is_found_if_the_basis_was_cached_before_the_correction(bench: QueryLedger) -> None:
    (first,) = bench.submit(NOON, changed("org:acme", TRAINING, True))
    record = read_record({"org_id": "acme", "at": format_time(NOON + 5), "handling": {"trained": True}}, now=0)
    assert bench.query.check(record).hindsight is None
    bench.submit(NOON + HOUR, retracted(first.event_id))
    for _ in range(2):
        decision = bench.query.check(record)
        assert decision.outcome.verdict == "compliant"
        assert decision.hindsight is not None
        assert decision.hindsight.outcome.verdict == "violation"
    # The events that changed it are read from the ledger, so memory does not suffice.
    assert _from_memory(bench, [record]) is None


def test_a_pinned_question_does_not_see_bases_made_at_later_positions(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    record = read_record({"org_id": "acme", "at": format_time(NOON + HOUR)}, now=0)
    pinned = PinnedQuery(bench.query)
    bench.submit(NOON + 1, changed("org:acme", STORAGE, False))
    assert not bench.query.check(record).outcome.handling.may_store
    for _ in range(2):
        decision = pinned.check(record)
        assert decision.outcome.handling.may_store
        assert decision.as_of.position == pinned.pinned.position
    assert not bench.query.check(record).outcome.handling.may_store


def test_a_decision_from_memory_is_the_decision(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    record = read_record({"org_id": "acme", "at": format_time(NOON + 1), "handling": {"stored": True}}, now=0)
    assert _from_memory(bench, [record]) is None, "the cache is empty"
    expected = bench.query.check(record)
    bench.query.check(record)
    if bench.ledger.recorder.change_token_nowait() is None:
        assert _from_memory(bench, [record]) is None
        return
    assert _from_memory(bench, [record, record]) == [expected, expected]
    assert _from_memory(bench, [record, record._replace(org_id="beta")]) is None
    bench.submit(NOON + 2, changed("org:acme", STORAGE, False))
    assert _from_memory(bench, [record]) is None, "the ledger has a new event"


def test_one_key_has_a_bounded_number_of_spans(bench: QueryLedger) -> None:
    for step in range(SPANS_MAX + 10):
        bench.submit(NOON + step, changed("org:acme", STORAGE, step % 2 == 0))
    for step in range(SPANS_MAX + 10):
        record = read_record({"org_id": "acme", "at": format_time(NOON + step)}, now=0)
        assert bench.query.check(record).outcome.handling.may_store is (step % 2 == 0)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_with_caches_of_no_size_the_answers_are_the_same(bench: QueryLedger, seed: int) -> None:
    chance = random.Random(seed)
    head = bench.ledger.head().recorded_at or NOON
    bench.submit(max(NOON, head + 1), changed(chance.choice(GOVERNORS), CACHING, chance.random() < 0.5))
    tiny = Query(bench.ledger, memory_max=1)
    for _ in range(10):
        name, _, bare = chance.choice(GOVERNORS).partition(":")
        record = read_record({f"{name}_id": bare, "at": format_time(NOON + chance.randint(-5, 50))}, now=0)
        assert tiny.check(record) == bench.query.check(record)


def test_every_answer_is_right_for_the_position_that_it_names(bench: QueryLedger) -> None:
    """Four threads ask while one writes. The position of an answer alone determines what it must be."""
    stores: dict[int, bool] = {}
    (receipt,) = bench.submit(NOON, changed("org:acme", STORAGE, False, NOON - HOUR, NOON + HOUR))
    stores[receipt.position] = False
    record = RequestRecord(at=NOON + HOUR // 2, org_id="acme")
    answers: list[Decision] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def ask() -> None:
        try:
            while not done.is_set():
                answers.append(bench.query.check(record))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for step in range(1, 40):
        value = step % 2 == 1
        (receipt,) = bench.submit(NOON + step, changed("org:acme", STORAGE, value, NOON - HOUR, NOON + HOUR))
        stores[receipt.position] = value
        assert bench.query.check(record).as_of.position >= receipt.position
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(answers) > 4
    for answer in answers:
        assert answer.outcome.handling.may_store is stores[answer.as_of.position]
