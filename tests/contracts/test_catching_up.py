"""The projector stores the ledger's timelines, the same however its work is split, and stops at unreadable events."""

from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.clock import ManualClock
from ledger.codec import leaf_hash
from ledger.errors import LedgerCorrupt
from ledger.opening import open_ledger
from ledger.store import Ledger
from projections.timelines.contract import LIVE, REBUILD, TablesMissing
from projections.timelines.projector import Projector
from projections.timelines.rebuild.rebuild import rebuild
from projections.timelines.store import TimelineStore, open_timelines
from tests.support.ledgers import GENESIS, NOW, ORIGIN, change, submit
from tests.support.random_history import RandomHistory, alter, assert_timelines, recreate_tables, stored_timelines


@pytest.mark.parametrize("seed", range(4))
def test_any_split_of_catching_up_stores_the_same_rows(
    ledger: Ledger, clock: ManualClock, store: TimelineStore, seed: int
) -> None:
    RandomHistory(ledger, clock, seed).extend(60)
    Projector(ledger, store).catch_up()
    whole = stored_timelines(store)
    assert_timelines(ledger, store)
    random = Random(seed)
    for page_events in (1, 2, 7, 30):
        recreate_tables(store)
        projector = Projector(ledger, store, page_events=page_events)
        while projector.catch_up(limit=random.randrange(1, 20)) < ledger.head().position:
            pass
        assert stored_timelines(store) == whole


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32),
    turns=st.lists(st.tuples(st.integers(0, 8), st.integers(1, 9), st.integers(1, 20)), min_size=1, max_size=8),
)
def test_catching_up_in_any_turns_stores_the_same_as_a_rebuild(seed: int, turns: list[tuple[int, int, int]]) -> None:
    """A turn: a number of submissions, then a projector with a page size and a limit of events."""
    clock = ManualClock(NOW)
    with (
        TemporaryDirectory() as folder,
        open_ledger(f"sqlite:///{folder}/ledger.db", create=True, clock=clock, origin=ORIGIN) as ledger,
    ):
        history, store = RandomHistory(ledger, clock, seed), open_timelines(ledger)
        for submissions, page_events, limit in turns:
            history.extend(submissions)
            Projector(ledger, store, page_events=page_events).catch_up(limit)
        Projector(ledger, store).catch_up()
        assert_timelines(ledger, store)
        live = stored_timelines(store)
        rebuilt = rebuild(Projector(ledger, store))
        assert (rebuilt.live_equal, rebuilt.differences) == (True, ())
        assert stored_timelines(store) == live


def test_catching_up_as_events_come_stores_the_same_rows(
    ledger: Ledger, clock: ManualClock, store: TimelineStore
) -> None:
    history, projector = RandomHistory(ledger, clock, seed=11), Projector(ledger, store)
    for _ in range(60):
        history.extend(1)
        projector.catch_up()
    live = stored_timelines(store)
    assert_timelines(ledger, store)
    recreate_tables(store)
    projector.catch_up()
    assert stored_timelines(store) == live


def test_catching_up_tells_the_position_that_it_reached(
    ledger: Ledger, clock: ManualClock, store: TimelineStore
) -> None:
    projector = Projector(ledger, store)
    assert projector.catch_up() == GENESIS
    clock.now_us += 1
    submit(ledger, change("org:acme"), change("account:u1"))
    assert projector.catch_up() == projector.catch_up() == GENESIS + 2


def test_a_submission_is_never_split(ledger: Ledger, clock: ManualClock, store: TimelineStore) -> None:
    ends = [GENESIS]
    for size in (5, 1, 1, 30, 2):
        clock.now_us += 1
        ends.append(submit(ledger, *[change(f"org:o{n}") for n in range(size)])[-1].position)
    projector = Projector(ledger, store, page_events=3)
    positions = [projector.catch_up(limit=1) for _ in ends]
    assert positions == ends
    assert_timelines(ledger, store)


def test_an_event_that_cannot_be_read_stops_the_projector_there(
    ledger: Ledger, clock: ManualClock, store: TimelineStore
) -> None:
    RandomHistory(ledger, clock, seed=3).extend(10)
    head = ledger.head()
    poison = b'{"specversion":"1.0","type":"inforce.unheard.of.v1"}'
    assert head.recorded_at is not None
    alter(
        ledger,
        "INSERT INTO {events} (position, originator_id, originator_version, topic, state, recorded_at, leaf_hash)"
        " VALUES (?,?,?,?,?,?,?)",
        *(head.position + 1, "org:poison", 1, "unheard.of", poison, head.recorded_at + 1, bytes(32)),
    )
    clock.now_us += 10
    submit(ledger, change())
    projector = Projector(ledger, store)
    for _ in range(2):
        with pytest.raises(LedgerCorrupt, match=f"the event at position {head.position + 1} cannot be projected"):
            projector.catch_up()
        assert store.tracked() == head.position
    before = stored_timelines(store)
    with pytest.raises(LedgerCorrupt, match=f"position {head.position + 1} "):
        rebuild(projector)
    assert stored_timelines(store) == before
    with pytest.raises(TablesMissing):
        stored_timelines(store, REBUILD)


def test_an_event_stored_in_the_place_of_another_is_not_projected(
    ledger: Ledger, clock: ManualClock, store: TimelineStore
) -> None:
    (receipt,) = submit(ledger, change())
    leaf = ledger.page(receipt.position - 1)[0].leaf
    alter(
        ledger,
        "INSERT INTO {events} (position, originator_id, originator_version, topic, state, recorded_at, leaf_hash)"
        " VALUES (?,?,?,?,?,?,?)",
        *(receipt.position + 1, "org:acme", 2, "setting.changed", leaf, receipt.recorded_at + 1, leaf_hash(leaf)),
    )
    with pytest.raises(
        LedgerCorrupt, match=f"the event at position {receipt.position + 1} cannot be projected.*its id "
    ):
        Projector(ledger, store).catch_up()
    assert store.tracked() == receipt.position


def test_timelines_ahead_of_their_ledger_are_refused(ledger: Ledger, store: TimelineStore) -> None:
    projector = Projector(ledger, store)
    projector.catch_up()
    with store.writing(LIVE) as tables:
        tables.complete(LIVE, GENESIS + 5, {})
    with pytest.raises(LedgerCorrupt, match=f"at position {GENESIS + 5} and the ledger ends at {GENESIS}; run inforce"):
        projector.catch_up()
    rebuilt = rebuild(projector)
    assert (rebuilt.live_equal, rebuilt.differences, rebuilt.position) == (False, (), GENESIS)
    assert_timelines(ledger, store)
