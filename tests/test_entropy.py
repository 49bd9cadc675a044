"""No bytes are handed out twice: not to two threads, not to a process and its child."""

import multiprocessing
import os
import threading
from multiprocessing.connection import Connection

import pytest

from ledger import entropy
from ledger.entropy import PIECE, random_bytes


@pytest.mark.parametrize("count", [0, 1, 10, 16, PIECE, PIECE + 1, 1000])
def test_it_answers_as_many_bytes_as_requested(count: int) -> None:
    assert len(random_bytes(count)) == count


def test_no_two_pieces_are_equal_across_many_buffers() -> None:
    drawn = [random_bytes(16) for _ in range(10_000)]
    assert len(set(drawn)) == len(drawn)


def test_the_bytes_come_from_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def urandom(count: int) -> bytes:
        calls.append(count)
        return bytes(range(256)) * (count // 256) + bytes(range(count % 256))

    monkeypatch.setattr(os, "urandom", urandom)
    monkeypatch.setattr(entropy, "_buffer", [])
    pieces = {random_bytes(PIECE) for _ in range(8)}
    assert pieces == {bytes(range(start, start + PIECE)) for start in range(0, 256, PIECE)}
    assert len(calls) == 1, "all at a time"


def test_no_two_threads_get_the_same_bytes() -> None:
    results: list[list[bytes]] = [[] for _ in range(8)]
    together = threading.Barrier(len(results))

    def draw(into: list[bytes]) -> None:
        together.wait()
        into.extend(random_bytes(16) for _ in range(5000))

    threads = [threading.Thread(target=draw, args=(into,)) for into in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    drawn = [piece for into in results for piece in into]
    assert len(set(drawn)) == len(drawn) == 8 * 5000


def _send(sending: Connection) -> None:
    sending.send([random_bytes(16) for _ in range(300)])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")
@pytest.mark.filterwarnings("ignore:.*use of fork.. may lead to deadlocks:DeprecationWarning")
def test_no_forked_process_gets_the_bytes_of_its_parent() -> None:
    random_bytes(16)
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_send, args=(sending,))
    child.start()
    theirs = receiving.recv()
    child.join()
    ours = [random_bytes(16) for _ in range(300)]
    assert not set(theirs) & set(ours)
