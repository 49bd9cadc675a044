"""A pinned query's answers stay those of its position, however far the ledger moves on."""

from ledger.times import format_time
from projections.decisions.model import RequestRecord, decision_json
from projections.query.query import IN_FORCE, KnownAt, PinnedQuery, Query
from tests.support.ledgers import NOW, change, open_with_clock, submit
from tests.support.random_history import RandomHistory


def test_answers_are_the_same_before_and_after_the_ledger_moves_on(database_url: str) -> None:
    ledger, clock = open_with_clock(database_url)
    with ledger:
        history = RandomHistory(ledger, clock, seed=7)
        history.extend(60)
        until = clock.now_us
        span = range(NOW - 50, until + 50, max(1, (until - NOW) // 40))
        records = [
            RequestRecord(at, org_id=org, account_id=account, model_id="a/b")
            for at in span
            for org, account in (("acme", None), ("beta", None), (None, "u1"), (None, "U3"))
        ]
        instants: list[KnownAt] = [IN_FORCE, NOW + (until - NOW) // 2, until]
        early, late = PinnedQuery(Query(ledger)), PinnedQuery(Query(ledger))
        expected = {known_at: early.check_all(records, known_at) for known_at in instants}
        assert early.pinned == late.pinned
        history.extend(60)
        Query(ledger).context()
        for known_at, decisions in expected.items():
            assert [decision_json(d) for d in late.check_all(records, known_at)] == [
                decision_json(d) for d in decisions
            ]
        assert PinnedQuery(Query(ledger)).pinned.position > late.pinned.position


def test_hindsight_knows_nothing_that_was_recorded_after_the_pin(database_url: str) -> None:
    ledger, clock = open_with_clock(database_url)
    with ledger:
        query = Query(ledger)
        clock.now_us = NOW + 1000
        record = RequestRecord(NOW + 500, org_id="acme")
        pinned = PinnedQuery(query)
        correction = change(effective_from=format_time(NOW + 100), reason="filed late")
        submit(ledger, correction)
        assert query.check(record).hindsight is not None
        assert pinned.check(record).hindsight is None
        assert pinned.check(record, None).outcome.handling.may_train is False


def test_the_pin_names_the_event_by_its_leaf_hash(database_url: str) -> None:
    ledger, _clock = open_with_clock(database_url)
    with ledger:
        (receipt,) = submit(ledger, change())
        pin = PinnedQuery(Query(ledger)).pinned
        entry = ledger.event(receipt.event_id)
        assert (pin.position, pin.recorded_at, pin.leaf_hash) == (
            receipt.position,
            receipt.recorded_at,
            entry.leaf_hash.hex(),
        )
        assert pin.origin == ledger.origin
