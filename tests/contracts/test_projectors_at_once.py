"""Several projectors, killed ones, readers and writers at once: each event counts once, and every answer is right."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from ledger.clock import ManualClock, SystemClock
from ledger.opening import open_ledger
from ledger.store import Ledger
from projections.timelines.contract import LIVE, OLD, REBUILD, Side, StoredRow, TablesMissing
from projections.timelines.projector import Progress, Projector
from projections.timelines.rebuild.rebuild import RebuildSuperseded, rebuild
from projections.timelines.store import TimelineStore, open_timelines
from tests.support.ledgers import change, submit
from tests.support.random_history import RandomHistory, alter, assert_timelines, recreate_tables, stored_timelines
from tests.support.waiting import GIVE_UP_S

SPAWN = multiprocessing.get_context("spawn")


# Exactly once


def test_two_projectors_at_once_project_every_event_once(
    ledger: Ledger, clock: ManualClock, store: TimelineStore, database_url: str
) -> None:
    RandomHistory(ledger, clock, seed=5).extend(80)
    start = threading.Barrier(4)

    def catch_up(page_events: int) -> int:
        with open_ledger(database_url, clock=ledger.clock) as another:
            projector = Projector(another, open_timelines(another), page_events=page_events)
            start.wait()
            return projector.catch_up()

    with ThreadPoolExecutor(4) as pool:
        positions = set(pool.map(catch_up, (1, 1, 2, 3)))
    assert positions == {ledger.head().position}
    together = stored_timelines(store)
    assert_timelines(ledger, store)
    recreate_tables(store)
    Projector(ledger, store).catch_up()
    assert stored_timelines(store) == together


def test_many_threads_of_one_projector_find_their_own_writes(ledger: Ledger, store: TimelineStore) -> None:
    ledger.clock = SystemClock()
    projector = Projector(ledger, store)

    def write_and_read(thread: int) -> None:
        for value in range(10):
            (receipt,) = submit(ledger, change(f"org:t{thread}", value=value % 2 == 0))
            assert projector.catch_up() >= receipt.position
            position, timelines = store.subject(f"org:t{thread}")
            assert position >= receipt.position
            change_at_receipt = timelines["training.opt_in"].in_force.at(receipt.recorded_at)
            assert change_at_receipt is not None
            assert change_at_receipt.event_id == receipt.event_id

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write_and_read, range(8)))
    assert_timelines(ledger, store)


def catch_up_slowly(url: str) -> None:
    with open_ledger(url) as ledger:
        Projector(ledger, open_timelines(ledger), page_events=1).catch_up()


def rebuild_slowly(url: str, bucket_events: int) -> None:
    with open_ledger(url) as ledger:
        rebuild(Projector(ledger, open_timelines(ledger)), bucket_events=bucket_events)


def kill_once(process: multiprocessing.process.BaseProcess, reached: Callable[[], bool]) -> None:
    """Kills the process (-9) once `reached` is true."""
    deadline = time.monotonic() + GIVE_UP_S
    while time.monotonic() < deadline:
        try:
            if reached():
                break
        except TablesMissing:
            pass
        time.sleep(0.002)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL, "it was through before it was killed"


def test_another_projector_goes_on_after_one_that_was_killed(
    ledger: Ledger, clock: ManualClock, store: TimelineStore, database_url: str
) -> None:
    RandomHistory(ledger, clock, seed=9).extend(200)
    process = SPAWN.Process(target=catch_up_slowly, args=(database_url,))
    process.start()
    kill_once(process, lambda: store.tracked() >= 30)
    assert 30 <= store.tracked() < ledger.head().position
    Projector(ledger, store).catch_up()
    gone_on = stored_timelines(store)
    assert_timelines(ledger, store)
    recreate_tables(store)
    Projector(ledger, store).catch_up()
    assert stored_timelines(store) == gone_on


# Rebuilding


def test_submissions_and_reads_go_on_while_timelines_are_rebuilt(
    ledger: Ledger, clock: ManualClock, store: TimelineStore, database_url: str
) -> None:
    RandomHistory(ledger, clock, seed=10).extend(60)
    ledger.clock = SystemClock()
    done = threading.Event()

    def go_on(worker: int) -> int:
        with open_ledger(database_url, clock=ledger.clock) as another:
            timelines = open_timelines(another)
            projector = Projector(another, timelines)
            count = 0
            while not done.is_set() or count < 3:
                (receipt,) = submit(another, change(f"org:w{worker}", value=count % 2 == 0))
                projector.catch_up()
                position, results = timelines.subject(f"org:w{worker}")
                assert position >= receipt.position
                change_at_receipt = results["training.opt_in"].current.at(receipt.recorded_at)
                assert change_at_receipt is not None
                assert change_at_receipt.event_id == receipt.event_id
                count += 1
            return count

    with ThreadPoolExecutor(2) as pool:
        workers = [pool.submit(go_on, worker) for worker in range(2)]
        try:
            rebuilds = [rebuild(Projector(ledger, store, page_events=20), bucket_events=20) for _ in range(5)]
        finally:
            done.set()
        assert all(worker.result() >= 3 for worker in workers)
    assert [(rebuilt.live_equal, rebuilt.swapped) for rebuilt in rebuilds] == [(True, True)] * 5
    Projector(ledger, store).catch_up()
    assert_timelines(ledger, store)


def test_a_swap_waits_for_readers_or_leaves_them_their_state(
    ledger: Ledger, clock: ManualClock, store: TimelineStore
) -> None:
    RandomHistory(ledger, clock, seed=12).extend(40)
    projector = Projector(ledger, store)
    projector.catch_up()
    alter(ledger, "DELETE FROM {timelines_subjects} WHERE subject = 'org:acme'")
    with ThreadPoolExecutor(1) as pool:
        with store.reading() as tables:
            before: list[StoredRow] = list(tables.rows())
            rebuilding = pool.submit(rebuild, projector)
            for _ in range(20):
                time.sleep(0.05)
                # A reader that comes while a swap waits does not wait with it for long.
                assert store.tracked() == ledger.head().position
            assert list(tables.rows()) == before
        assert not rebuilding.result(60).live_equal
    assert_timelines(ledger, store)


def test_a_rebuild_killed_in_between_leaves_the_live_timelines_alone(
    ledger: Ledger, clock: ManualClock, store: TimelineStore, database_url: str
) -> None:
    RandomHistory(ledger, clock, seed=13).extend(40)
    for number in range(60):
        clock.now_us += 1
        submit(ledger, *[change(f"account:n{number}.{n}") for n in range(10)])
    projector = Projector(ledger, store)
    projector.catch_up()
    live = stored_timelines(store)

    def reached() -> bool:
        with store.reading(REBUILD) as tables:
            return tables.count_subjects(REBUILD) >= 20

    process = SPAWN.Process(target=rebuild_slowly, args=(database_url, 1))
    process.start()
    kill_once(process, reached)
    assert stored_timelines(store) == live
    with store.reading(REBUILD) as tables:
        assert tables.count_subjects(REBUILD) < len(live[1])
    assert rebuild(projector).live_equal
    assert stored_timelines(store) == live


def test_a_rebuild_ends_if_another_began_after_it(ledger: Ledger, clock: ManualClock, store: TimelineStore) -> None:
    RandomHistory(ledger, clock, seed=14).extend(60)
    projector = Projector(ledger, store)
    projector.catch_up()
    live = stored_timelines(store)
    later: list[bool] = []

    def begin_another(_position: int, _head: int) -> None:
        if not later:
            later.append(False)
            later[0] = rebuild(Projector(ledger, store)).live_equal

    with pytest.raises(RebuildSuperseded, match="which ended for that; the live ones are as they were"):
        rebuild(projector, progress=begin_another)
    assert later == [True]
    assert stored_timelines(store) == live


def test_a_rebuild_ends_also_if_another_began_when_it_was_nearly_done(
    ledger: Ledger, clock: ManualClock, store: TimelineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    RandomHistory(ledger, clock, seed=14).extend(20)
    projector = Projector(ledger, store)
    projector.catch_up()
    live = stored_timelines(store)
    catch_up_side = projector.catch_up_side

    def begin_another(side: Side, progress: Progress | None = None) -> int:
        if side == REBUILD:
            with store.writing(LIVE, REBUILD, OLD) as tables:
                tables.set_aside(REBUILD)
                tables.begin(REBUILD, "another")
        return catch_up_side(side, progress=progress)

    with monkeypatch.context() as patched:
        patched.setattr(projector, "catch_up_side", begin_another)
        with pytest.raises(RebuildSuperseded):
            rebuild(projector, check_only=True, workers_events_min=0)
    with store.reading(REBUILD) as tables:
        assert tables.claim(REBUILD) == "another"
    assert stored_timelines(store) == live
    assert rebuild(projector).live_equal


def test_rebuilds_at_once_do_not_spoil_each_other(
    ledger: Ledger, clock: ManualClock, store: TimelineStore, database_url: str
) -> None:
    RandomHistory(ledger, clock, seed=14).extend(60)
    start = threading.Barrier(3)

    def rebuilt(_: int) -> bool | None:
        with open_ledger(database_url, clock=ledger.clock) as another:
            projector = Projector(another, open_timelines(another), page_events=10)
            start.wait()
            try:
                return rebuild(projector, bucket_events=10).live_equal
            except RebuildSuperseded:
                return None

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(rebuilt, range(3)))
    assert True in results
    assert False not in results
    Projector(ledger, store).catch_up()
    assert_timelines(ledger, store)
