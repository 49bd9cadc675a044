"""The projector: however it gets there, the stored timelines are the same, and they are those of the ledger."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.catalog import BUILT_IN
from ledger.clock import ManualClock, SystemClock
from ledger.errors import LedgerCorrupt
from ledger.opening import open_ledger
from ledger.store import Ledger
from projections.runner import CaughtUp, Runner
from projections.timelines import StepRow, TimelineStore, open_timelines
from projections.timelines.contract import LIVE, REBUILD, NotThere
from tests.support.histories import History, alter, expected, stored
from tests.support.ledgers import NOW, ORIGIN, change, submit

SPAWN = multiprocessing.get_context("spawn")
GENESIS = len(BUILT_IN)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def ledger(database_url: str, clock: ManualClock) -> Iterator[Ledger]:
    with open_ledger(database_url, create=True, clock=clock, origin=ORIGIN) as ledger:
        yield ledger


@pytest.fixture
def store(ledger: Ledger) -> TimelineStore:
    return open_timelines(ledger)


def begin_again(store: TimelineStore) -> None:
    with store.writing(LIVE) as tables:
        tables.drop(LIVE)
        tables.create(LIVE)


def assert_right(ledger: Ledger, store: TimelineStore) -> None:
    folded = expected(ledger)
    position, found = store.several(folded)
    assert position == ledger.head().position
    assert found == folded
    with store.reading() as tables:
        assert {row.subject for row in tables.rows()} == set(folded)


# Catching up


@pytest.mark.parametrize("seed", range(4))
def test_any_split_of_catching_up_stores_the_same_rows(
    ledger: Ledger, clock: ManualClock, store: TimelineStore, seed: int
) -> None:
    History(ledger, clock, seed).go_on(60)
    Runner(ledger, store).catch_up()
    whole = stored(store)
    assert_right(ledger, store)
    random = Random(seed)
    for page_events in (1, 2, 7, 30):
        begin_again(store)
        runner = Runner(ledger, store, page_events=page_events)
        while runner.catch_up(limit=random.randrange(1, 20)).position < ledger.head().position:
            pass
        assert stored(store) == whole


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32),
    turns=st.lists(st.tuples(st.integers(0, 8), st.integers(1, 9), st.integers(1, 20)), min_size=1, max_size=8),
)
def test_catching_up_in_any_turns_stores_what_a_rebuild_does(seed: int, turns: list[tuple[int, int, int]]) -> None:
    """Each turn: so many submissions, then a projector with such pages that takes so many events."""
    clock = ManualClock(NOW)
    with (
        TemporaryDirectory() as folder,
        open_ledger(f"sqlite:///{folder}/ledger.db", create=True, clock=clock, origin=ORIGIN) as ledger,
    ):
        history, store = History(ledger, clock, seed), open_timelines(ledger)
        for submissions, page_events, limit in turns:
            history.go_on(submissions)
            Runner(ledger, store, page_events=page_events).catch_up(limit)
        Runner(ledger, store).catch_up()
        assert_right(ledger, store)
        live = stored(store)
        rebuilt = Runner(ledger, store).rebuild()
        assert (rebuilt.live_equal, rebuilt.differences) == (True, ())
        assert stored(store) == live


def test_catching_up_as_events_come_stores_the_same_rows(
    ledger: Ledger, clock: ManualClock, store: TimelineStore
) -> None:
    history, runner = History(ledger, clock, seed=11), Runner(ledger, store)
    for _ in range(60):
        history.go_on(1)
        runner.catch_up()
    live = stored(store)
    assert_right(ledger, store)
    begin_again(store)
    runner.catch_up()
    assert stored(store) == live


def test_catching_up_says_whose_news_it_projected(ledger: Ledger, clock: ManualClock, store: TimelineStore) -> None:
    runner = Runner(ledger, store)
    assert runner.catch_up() == CaughtUp(GENESIS, frozenset({"catalog:settings"}))
    clock.now_us += 1
    submit(ledger, change("org:acme"), change("account:u1"))
    assert runner.catch_up() == CaughtUp(GENESIS + 2, frozenset({"org:acme", "account:u1"}))
    assert runner.catch_up() == CaughtUp(GENESIS + 2, frozenset())


def test_a_submission_is_never_split(ledger: Ledger, clock: ManualClock, store: TimelineStore) -> None:
    ends = [GENESIS]
    for size in (5, 1, 1, 30, 2):
        clock.now_us += 1
        ends.append(submit(ledger, *[change(f"org:o{n}") for n in range(size)])[-1].position)
    runner = Runner(ledger, store, page_events=3)
    seen = [runner.catch_up(limit=1).position for _ in ends]
    assert seen == ends
    assert_right(ledger, store)


def test_an_event_that_cannot_be_read_stops_the_projector_there(
    ledger: Ledger, clock: ManualClock, store: TimelineStore
) -> None:
    History(ledger, clock, seed=3).go_on(10)
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
    runner = Runner(ledger, store)
    for _ in range(2):
        with pytest.raises(LedgerCorrupt, match=f"the event at position {head.position + 1} cannot be projected"):
            runner.catch_up()
        assert store.tracked() == head.position
    before = stored(store)
    with pytest.raises(LedgerCorrupt, match=f"position {head.position + 1} "):
        runner.rebuild()
    assert stored(store) == before
    with pytest.raises(NotThere):
        stored(store, REBUILD)


def test_an_event_stored_in_anothers_place_is_not_projected(
    ledger: Ledger, clock: ManualClock, store: TimelineStore
) -> None:
    (receipt,) = submit(ledger, change())
    leaf = ledger.page(receipt.position - 1)[0].leaf
    alter(
        ledger,
        "INSERT INTO {events} (position, originator_id, originator_version, topic, state, recorded_at, leaf_hash)"
        " VALUES (?,?,?,?,?,?,?)",
        *(receipt.position + 1, "org:acme", 2, "setting.changed", leaf, receipt.recorded_at + 1, bytes(32)),
    )
    with pytest.raises(LedgerCorrupt, match=f"position {receipt.position + 1} says that it belongs elsewhere"):
        Runner(ledger, store).catch_up()
    assert store.tracked() == receipt.position


def test_timelines_ahead_of_their_ledger_are_refused(ledger: Ledger, store: TimelineStore) -> None:
    runner = Runner(ledger, store)
    runner.catch_up()
    alter(ledger, "UPDATE {timelines_tracking} SET position = ?", GENESIS + 5)
    with pytest.raises(LedgerCorrupt, match=f"at position {GENESIS + 5} and the ledger ends at {GENESIS}; run inforce"):
        runner.catch_up()
    rebuilt = runner.rebuild()
    assert (rebuilt.live_equal, rebuilt.differences, rebuilt.position) == (False, (), GENESIS)
    assert_right(ledger, store)


# Exactly once


def test_two_runners_at_once_project_every_event_once(
    ledger: Ledger, clock: ManualClock, store: TimelineStore, database_url: str
) -> None:
    History(ledger, clock, seed=5).go_on(80)
    start = threading.Barrier(4)

    def catch_up(page_events: int) -> int:
        with open_ledger(database_url) as another:
            runner = Runner(another, open_timelines(another), page_events=page_events)
            start.wait()
            return runner.catch_up().position

    with ThreadPoolExecutor(4) as pool:
        positions = set(pool.map(catch_up, (1, 1, 2, 3)))
    assert positions == {ledger.head().position}
    together = stored(store)
    assert_right(ledger, store)
    begin_again(store)
    Runner(ledger, store).catch_up()
    assert stored(store) == together


def test_many_threads_of_one_runner_find_their_own_writes(ledger: Ledger, store: TimelineStore) -> None:
    ledger.clock = SystemClock()
    runner = Runner(ledger, store)

    def write_and_read(thread: int) -> None:
        for value in range(10):
            (receipt,) = submit(ledger, change(f"org:t{thread}", value=value % 2 == 0))
            assert runner.catch_up().position >= receipt.position
            position, timelines = store.subject(f"org:t{thread}")
            assert position >= receipt.position
            held = timelines["training.opt_in"].in_force.at(receipt.recorded_at)
            assert held is not None
            assert held.event_id == receipt.event_id

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write_and_read, range(8)))
    assert_right(ledger, store)


def catch_up_slowly(url: str) -> None:
    with open_ledger(url) as ledger:
        Runner(ledger, open_timelines(ledger), page_events=1).catch_up()


def rebuild_slowly(url: str) -> None:
    with open_ledger(url) as ledger:
        Runner(ledger, open_timelines(ledger), page_events=1).rebuild()


def kill_once(process: multiprocessing.process.BaseProcess, reached: int, store: TimelineStore, rebuilt: bool) -> None:
    """Kills the process (-9) once it has projected as far as `reached`."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with store.reading(*([REBUILD] if rebuilt else [LIVE])) as tables:
                if tables.tracked(REBUILD if rebuilt else LIVE) >= reached:
                    break
        except NotThere:
            pass
        time.sleep(0.005)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL, "it was through before it was killed"


def test_a_projector_killed_in_between_is_gone_on_with(
    ledger: Ledger, clock: ManualClock, store: TimelineStore, database_url: str
) -> None:
    History(ledger, clock, seed=9).go_on(200)
    process = SPAWN.Process(target=catch_up_slowly, args=(database_url,))
    process.start()
    kill_once(process, 30, store, rebuilt=False)
    assert 30 <= store.tracked() < ledger.head().position
    Runner(ledger, store).catch_up()
    gone_on = stored(store)
    assert_right(ledger, store)
    begin_again(store)
    Runner(ledger, store).catch_up()
    assert stored(store) == gone_on


# Rebuilding


@pytest.mark.parametrize("seed", [1, 2])
def test_a_rebuild_equals_the_live_timelines_byte_for_byte(
    ledger: Ledger, clock: ManualClock, store: TimelineStore, seed: int
) -> None:
    history, runner = History(ledger, clock, seed), Runner(ledger, store, page_events=9)
    for _ in range(10):
        history.go_on(8)
        runner.catch_up()
    live = stored(store)
    head = ledger.head().position
    reached: list[tuple[int, int]] = []
    rebuilt = runner.rebuild(progress=lambda position, of: reached.append((position, of)))
    assert (rebuilt.position, rebuilt.events, rebuilt.subjects) == (head, head, len(live[2]))
    assert (rebuilt.live_equal, rebuilt.differences, rebuilt.swapped) == (True, (), True)
    assert reached[-1] == (head, head)
    assert stored(store) == live
    with pytest.raises(NotThere):
        stored(store, REBUILD)
    assert runner.rebuild().live_equal
    history.go_on(5)
    runner.catch_up()
    assert_right(ledger, store)


def test_a_check_leaves_everything_as_it_was(ledger: Ledger, clock: ManualClock, store: TimelineStore) -> None:
    History(ledger, clock, seed=4).go_on(30)
    runner = Runner(ledger, store)
    runner.catch_up()
    before = stored(store)
    checked = runner.rebuild(check_only=True)
    assert (checked.live_equal, checked.swapped) == (True, False)
    assert stored(store) == before
    with pytest.raises(NotThere):
        stored(store, REBUILD)


def test_a_row_that_was_tampered_with_is_reported_and_mended(
    ledger: Ledger, clock: ManualClock, store: TimelineStore
) -> None:
    History(ledger, clock, seed=6).go_on(40)
    runner = Runner(ledger, store)
    runner.catch_up()
    right = stored(store)
    row = next(row for row in right[1] if row.subject == "org:acme" and row.axis == "in_force")
    harm = "UPDATE {timelines_steps} SET until_us = ? WHERE subject = ? AND setting = ? AND axis = ? AND start_us = ?"
    alter(ledger, harm, row.until - 1, *row[:4])
    harmed = stored(store)
    for check_only in (True, False):
        (difference,) = (found := runner.rebuild(check_only=check_only)).differences
        assert not found.live_equal
        assert difference == (row.subject, row.setting, row.axis, row._replace(until=row.until - 1), row)
        assert stored(store) == (harmed if check_only else right)
    assert runner.rebuild().live_equal


@pytest.mark.parametrize(
    ("harm", "found"),
    [
        ("DELETE FROM {timelines_steps} WHERE subject = 'org:acme'", "org:acme"),
        ("UPDATE {timelines_steps} SET change = 'x' WHERE subject = 'org:acme'", "org:acme"),
        ("INSERT INTO {timelines_steps} VALUES ('org:none', 's', 'current', 1, 2, 3, 'x')", "org:none"),
        ("UPDATE {timelines_subjects} SET position = 999999 WHERE subject = 'org:acme'", "org:acme"),
        ("DELETE FROM {timelines_subjects} WHERE subject = 'org:acme'", "org:acme"),
        ("INSERT INTO {timelines_subjects} VALUES ('org:none', 1, 1)", "org:none"),
    ],
)
def test_every_kind_of_harm_is_found_although_events_go_on(
    ledger: Ledger, clock: ManualClock, store: TimelineStore, harm: str, found: str
) -> None:
    history, runner = History(ledger, clock, seed=8), Runner(ledger, store)
    history.go_on(30)
    runner.catch_up()
    alter(ledger, harm)
    history.go_on(3)
    rebuilt = runner.rebuild()
    assert not rebuilt.live_equal
    assert {difference.subject for difference in rebuilt.differences} >= {found}
    assert len(rebuilt.differences) <= 10
    assert_right(ledger, store)
    assert runner.rebuild().live_equal


def test_timelines_of_another_format_are_replaced(ledger: Ledger, clock: ManualClock, store: TimelineStore) -> None:
    History(ledger, clock, seed=2).go_on(10)
    runner = Runner(ledger, store)
    runner.catch_up()
    right = stored(store)
    alter(ledger, "UPDATE {timelines_tracking} SET name = 'steps.v0'")
    rebuilt = runner.rebuild()
    assert (rebuilt.live_equal, rebuilt.differences, rebuilt.swapped) == (False, (), True)
    assert stored(store) == right


def test_submissions_and_reads_go_on_while_timelines_are_rebuilt(
    ledger: Ledger, clock: ManualClock, store: TimelineStore, database_url: str
) -> None:
    History(ledger, clock, seed=10).go_on(60)
    ledger.clock = SystemClock()
    done = threading.Event()

    def go_on(worker: int) -> int:
        with open_ledger(database_url) as another:
            timelines = open_timelines(another)
            runner = Runner(another, timelines)
            count = 0
            while not done.is_set() or count < 3:
                (receipt,) = submit(another, change(f"org:w{worker}", value=count % 2 == 0))
                runner.catch_up()
                position, found = timelines.subject(f"org:w{worker}")
                assert position >= receipt.position
                held = found["training.opt_in"].current.at(receipt.recorded_at)
                assert held is not None
                assert held.event_id == receipt.event_id
                count += 1
            return count

    with ThreadPoolExecutor(2) as pool:
        workers = [pool.submit(go_on, worker) for worker in range(2)]
        try:
            rebuilds = [Runner(ledger, store, page_events=20).rebuild() for _ in range(5)]
        finally:
            done.set()
        assert all(worker.result() >= 3 for worker in workers)
    assert [(rebuilt.live_equal, rebuilt.swapped) for rebuilt in rebuilds] == [(True, True)] * 5
    Runner(ledger, store).catch_up()
    assert_right(ledger, store)


def test_a_swap_waits_for_readers_or_leaves_them_their_moment(
    ledger: Ledger, clock: ManualClock, store: TimelineStore
) -> None:
    History(ledger, clock, seed=12).go_on(40)
    runner = Runner(ledger, store)
    runner.catch_up()
    alter(ledger, "DELETE FROM {timelines_steps} WHERE subject = 'org:acme'")
    with ThreadPoolExecutor(1) as pool:
        with store.reading() as tables:
            before: list[StepRow] = list(tables.rows())
            rebuild = pool.submit(runner.rebuild)
            for _ in range(20):
                time.sleep(0.05)
                # Who comes while a swap is waited for is not kept waiting with it for long.
                assert store.tracked() == ledger.head().position
            assert list(tables.rows()) == before
        assert not rebuild.result(60).live_equal
    assert_right(ledger, store)


def test_a_rebuild_killed_in_between_leaves_the_live_timelines_alone(
    ledger: Ledger, clock: ManualClock, store: TimelineStore, database_url: str
) -> None:
    History(ledger, clock, seed=13).go_on(200)
    runner = Runner(ledger, store)
    runner.catch_up()
    live = stored(store)
    process = SPAWN.Process(target=rebuild_slowly, args=(database_url,))
    process.start()
    kill_once(process, 30, store, rebuilt=True)
    assert stored(store) == live
    assert runner.rebuild().live_equal
    assert stored(store) == live


def test_rebuilds_at_once_do_not_spoil_each_other(
    ledger: Ledger, clock: ManualClock, store: TimelineStore, database_url: str
) -> None:
    History(ledger, clock, seed=14).go_on(60)
    start = threading.Barrier(3)

    def rebuild(_: int) -> bool:
        with open_ledger(database_url) as another:
            runner = Runner(another, open_timelines(another), page_events=10)
            start.wait()
            try:
                return runner.rebuild().live_equal
            except NotThere:
                return True

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(rebuild, range(3)))
    Runner(ledger, store).catch_up()
    assert_right(ledger, store)


def test_sqlite_users_need_no_psycopg(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from ledger.opening import open_ledger\n"
        "from projections.timelines import open_timelines\n"
        "with open_ledger(sys.argv[1], create=True) as ledger:\n"
        "    assert open_timelines(ledger).tracked() == 0\n"
    )
    subprocess.run([sys.executable, "-c", code, f"sqlite:///{tmp_path}/ledger.db"], check=True)
