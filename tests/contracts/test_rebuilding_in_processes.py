"""A rebuild by several processes gives the same as by one, and its workers end with the process that began them."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from ledger.clock import ManualClock
from ledger.errors import LedgerCorrupt, LedgerUnavailable
from ledger.opening import open_ledger
from ledger.store import Ledger
from projections.timelines.contract import REBUILD, TablesMissing
from projections.timelines.projector import Projector
from projections.timelines.rebuild import fold_range
from projections.timelines.rebuild.external_sort import SubjectRange, ranges
from projections.timelines.rebuild.fold_range import FoldedRows, ReadProgress, fold_ranges
from projections.timelines.rebuild.rebuild import rebuild
from projections.timelines.rebuild.workers import PROCESSES_MAX, Workers, fold_in_workers, usual_processes
from projections.timelines.store import TimelineStore
from tests.support.ledgers import NOW, ORIGIN, change, submit
from tests.support.random_history import RandomHistory, alter, assert_timelines, stored_timelines
from tests.support.waiting import GIVE_UP_S

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def history(ledger: Ledger, clock: ManualClock) -> RandomHistory:
    history = RandomHistory(ledger, clock, seed=21)
    history.extend(80)
    return history


def test_any_number_of_processes_and_any_cut_store_the_same_bytes(
    ledger: Ledger, store: TimelineStore, database_url: str, history: RandomHistory
) -> None:
    projector = Projector(ledger, store)
    projector.catch_up()
    live = stored_timelines(store)
    for count, bucket_events in ((2, 10), (3, 1), (5, 1000)):
        rebuilt = rebuild(
            projector, workers=Workers(database_url, count), bucket_events=bucket_events, workers_events_min=0
        )
        assert (rebuilt.live_equal, rebuilt.differences, rebuilt.swapped) == (True, (), True)
        assert stored_timelines(store) == live
    assert_timelines(ledger, store)


def test_every_event_is_read_once_however_many_fit_in_memory(ledger: Ledger, history: RandomHistory) -> None:
    head = ledger.head().position
    whole = list(fold_ranges(ledger.recorder, head, [SubjectRange("", None)]))
    rows = [row for message in whole if isinstance(message, FoldedRows) for row in message.rows]
    for bucket_events in (1, 7, 50):
        for held_events in (1, 5, 10_000):
            cut = ranges(ledger.recorder, head, bucket_events)
            messages = list(fold_ranges(ledger.recorder, head, cut, held_events=held_events))
            assert sum(message.events for message in messages if isinstance(message, ReadProgress)) == head
            assert sum(message.events for message in messages if isinstance(message, FoldedRows)) == head
            assert [row for message in messages if isinstance(message, FoldedRows) for row in message.rows] == rows


def test_large_events_are_read_held_and_folded_a_few_at_a_time(
    ledger: Ledger, history: RandomHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = ledger.head().position
    cut = ranges(ledger.recorder, head, 1000)
    whole = list(fold_ranges(ledger.recorder, head, cut))
    rows = [row for message in whole if isinstance(message, FoldedRows) for row in message.rows]
    monkeypatch.setattr(fold_range, "READ_BYTES", 1)
    for held_bytes, bucket_bytes in ((1, 2**40), (2**40, 1), (300, 700)):
        messages = list(fold_ranges(ledger.recorder, head, cut, held_bytes=held_bytes, bucket_bytes=bucket_bytes))
        reads = [message.positions for message in messages if isinstance(message, ReadProgress)]
        assert reads == [1] * head
        folded = [message for message in messages if isinstance(message, FoldedRows)]
        assert [row for message in folded for row in message.rows] == rows
        if bucket_bytes == 1:
            assert [len(message.rows) for message in folded] == [1] * len(rows)
        else:
            assert (len(folded) > len(cut)) is (bucket_bytes == 700)


def test_the_ranges_are_all_subjects_each_once(ledger: Ledger, history: RandomHistory) -> None:
    cut = ranges(ledger.recorder, ledger.head().position, 5)
    assert len(cut) > 3
    assert (cut[0].above, cut[-1].upto) == ("", None)
    assert [piece.upto for piece in cut[:-1]] == [piece.above for piece in cut[1:]]
    assert [piece.above for piece in cut] == sorted({piece.above for piece in cut})


def test_an_event_that_a_worker_cannot_read_is_named_by_position(
    ledger: Ledger, clock: ManualClock, store: TimelineStore, database_url: str, history: RandomHistory
) -> None:
    projector = Projector(ledger, store)
    projector.catch_up()
    before = stored_timelines(store)
    head = ledger.head()
    assert head.recorded_at is not None
    alter(
        ledger,
        "INSERT INTO {events} (position, originator_id, originator_version, topic, state, recorded_at, leaf_hash)"
        " VALUES (?,?,?,?,?,?,?)",
        *(head.position + 1, "org:poison", 1, "unheard.of", b"{}", head.recorded_at + 1, bytes(32)),
    )
    clock.now_us += 10
    submit(ledger, change())
    with pytest.raises(LedgerCorrupt, match=f"the event at position {head.position + 1} "):
        rebuild(projector, workers=Workers(database_url, 2), bucket_events=20, workers_events_min=0)
    assert stored_timelines(store) == before
    with pytest.raises(TablesMissing):
        stored_timelines(store, REBUILD)


def test_a_killed_worker_is_noticed(
    ledger: Ledger, store: TimelineStore, database_url: str, history: RandomHistory
) -> None:
    projector = Projector(ledger, store)
    projector.catch_up()
    before = stored_timelines(store)

    def kill_the_workers(_position: int, _head: int) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    with pytest.raises(LedgerUnavailable, match=r"a process of the rebuild is gone \(exit code -9\)"):
        rebuild(
            projector,
            workers=Workers(database_url, 2),
            bucket_events=1,
            workers_events_min=0,
            progress=kill_the_workers,
        )
    assert stored_timelines(store) == before


def test_no_room_for_the_temporary_file_is_an_error_that_says_so(
    ledger: Ledger, store: TimelineStore, history: RandomHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    cut = ranges(ledger.recorder, ledger.head().position, 10)
    with pytest.raises(LedgerUnavailable, match=r"the temporary file in /nowhere cannot be used .*TMPDIR"):
        list(fold_ranges(ledger.recorder, ledger.head().position, cut, held_events=10))


def test_an_interrupt_from_the_keyboard_does_not_reach_the_workers(
    ledger: Ledger, database_url: str, history: RandomHistory
) -> None:
    head = ledger.head().position
    messages = fold_in_workers(Workers(database_url, 2), head, ranges(ledger.recorder, head, 20))
    next(messages)
    children = multiprocessing.active_children()
    assert len(children) == 2
    for child in children:
        (blocked,) = (
            line.split()[1]
            for line in Path(f"/proc/{child.pid}/status").read_text().splitlines()
            if line.startswith("SigBlk:")
        )
        assert int(blocked, 16) & (1 << (signal.SIGINT - 1))
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert sum(message.events for message in messages if isinstance(message, FoldedRows)) == head


def test_by_default_no_more_workers_run_than_one_writer_keeps_up_with(monkeypatch: pytest.MonkeyPatch) -> None:
    for processors, processes in ((None, 1), (1, 1), (2, 2), (64, PROCESSES_MAX)):
        monkeypatch.setattr("os.cpu_count", lambda processors=processors: processors)
        assert usual_processes() == processes


def read_for_ever(url: str, file: str) -> None:
    """A parent of two workers that never reads their messages."""
    with open_ledger(url) as ledger:
        head = ledger.head().position
        messages = fold_in_workers(Workers(url, 2), head, ranges(ledger.recorder, head, 20))
        next(messages)
        Path(file).write_text(" ".join(str(child.pid) for child in multiprocessing.active_children()))
        time.sleep(60)


def test_workers_end_with_the_process_that_began_them(tmp_path: Path) -> None:
    url, file = f"sqlite:///{tmp_path}/ledger.db", tmp_path / "pids"
    with open_ledger(url, create=True, clock=ManualClock(NOW), origin=ORIGIN) as ledger:
        clock = ledger.clock
        assert isinstance(clock, ManualClock)
        for number in range(400):
            clock.now_us += 1
            # More than a pipe holds, so that the workers wait for a reader.
            submit(ledger, *[change(f"org:o{number}.{n}", reason="x" * 100) for n in range(10)])
    process = SPAWN.Process(target=read_for_ever, args=(url, str(file)))
    process.start()
    deadline = time.monotonic() + GIVE_UP_S
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    workers = [int(pid) for pid in file.read_text().split()]
    assert workers
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    while any(
        Path(f"/proc/{pid}/stat").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text() for pid in workers
    ):
        assert time.monotonic() < deadline, "a worker went on for nobody"
        time.sleep(0.01)
