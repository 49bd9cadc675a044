"""Processes that use and change one index at once get right answers, even if some are killed at any moment."""

import multiprocessing
import random
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from ledger.clock import ManualClock
from ledger.opening import open_ledger
from projections.audit.index import open as index_open
from projections.audit.index.open import open_index
from projections.audit.index.pin import pin_of
from projections.audit.index.reference import compile_by_fold
from projections.temporal.coordinates import IN_FORCE, KnownAt
from tests.audit.index.canonical import canonical
from tests.audit.index.random_ledger import RandomLedger
from tests.support.ledgers import GENESIS, NOW, open_with_clock

SPAWN = multiprocessing.get_context("spawn")
AXES: list[KnownAt] = [IN_FORCE, IN_FORCE, None, *(NOW + second * 1_000_000 for second in range(5))]


def _open_again_and_again(url: str, folder: Path, seed: int, begun: Event, over: Event) -> None:
    chance = random.Random(seed)
    # Some processes extend the index, the others compile it anew.
    pytest.MonkeyPatch().setattr(index_open, "_FEW_EVENTS", chance.choice((3, 5000)))
    with open_ledger(url, clock=ManualClock(NOW + 10**12)) as ledger:
        while not over.is_set():
            known_at = chance.choice(AXES)
            pin = pin_of(ledger, max(GENESIS, ledger.head().position - chance.choice((0, 0, 0, 1, 7))))
            index = open_index(ledger, known_at, folder, pin=pin)
            assert index.pin == pin
            assert canonical(index) == canonical(compile_by_fold(ledger, known_at, pin))
            begun.set()


def test_every_opened_index_is_right_whichever_process_is_killed(tmp_path: Path) -> None:
    url, folder = f"sqlite:///{tmp_path}/ledger.db", tmp_path / "index"
    ledger, clock = open_with_clock(url)
    chance, over = random.Random(5), SPAWN.Event()

    def started(seed: int) -> tuple[multiprocessing.process.BaseProcess, Event]:
        begun = SPAWN.Event()
        process = SPAWN.Process(target=_open_again_and_again, args=(url, folder, seed, begun, over))
        process.start()
        return process, begun

    with ledger:
        world = RandomLedger(ledger, clock, 5)
        world.go_on(30)
        processes = [started(seed) for seed in range(3)]
        for seed in range(3, 9):
            killed, begun = processes.pop(0)
            assert begun.wait(60)
            for _ in range(5):
                time.sleep(chance.random() / 10)
                world.go_on(chance.randrange(3))
            assert killed.is_alive()
            killed.kill()
            killed.join()
            processes.append(started(seed))
        assert all(begun.wait(60) for _, begun in processes)
        over.set()
        for process, _ in processes:
            process.join(60)
        assert [process.exitcode for process, _ in processes] == [0, 0, 0]
        for known_at in AXES:
            assert canonical(open_index(ledger, known_at, folder)) == canonical(compile_by_fold(ledger, known_at))
