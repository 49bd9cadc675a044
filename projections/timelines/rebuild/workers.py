"""Several processes that read and fold a ledger, each its own subjects. They hand on rows and write nothing."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from ledger.errors import InforceError, LedgerCorrupt, LedgerUnavailable
from ledger.opening import open_recorder
from projections.timelines.rebuild.external_sort import HELD_EVENTS, Range
from projections.timelines.rebuild.fold_range import Folded, Read, fold_ranges

# Forked, a process would have the connections and the locks of this one.
_SPAWN: Final = multiprocessing.get_context("spawn")


PROCESSES_MAX: Final = 6
"""Of those that are started unasked: one process writes what they fold, and is busy with so many."""


def usual_processes() -> int:
    """That read and fold a large ledger: one for each processor, up to a few."""
    return min(os.cpu_count() or 1, PROCESSES_MAX)


class Workers(NamedTuple):
    """So many processes, which open the ledger at `url` themselves."""

    url: str
    processes: int


class _Failed(Struct, tag=True, array_like=True):
    corrupt: bool
    detail: str


class _Done(Struct, tag=True, array_like=True):
    """A worker has handed on everything."""


_Message = Read | Folded | _Failed | _Done
# A fifth of what pickling them costs.
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder[_Message](_Message).decode


def fold_in_workers(
    workers: Workers, until: int, ranges: Sequence[Range], *, held_events: int = HELD_EVENTS
) -> Iterator[Read | Folded]:
    """As `fold_ranges`; rows come in the order of their keys from each worker, and from several in turns.

    Raises as the workers' own errors, and `LedgerUnavailable` where one is gone.
    """
    share = -(-len(ranges) // workers.processes)
    shares = [ranges[at : at + share] for at in range(0, len(ranges), share)]
    running: dict[Connection, BaseProcess] = {}
    try:
        for one in shares:
            receiving, sending = _SPAWN.Pipe(duplex=False)
            process: BaseProcess = _SPAWN.Process(
                target=_work, args=(sending, workers.url, until, list(one), held_events), daemon=True
            )
            with _without_interrupts():
                process.start()
            sending.close()
            running[receiving] = process
        yield from _received(running)
    finally:
        for receiving, process in running.items():
            receiving.close()
            process.terminate()
            process.join()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process that is started in here is never interrupted from the keyboard: who began it is, and ends it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _received(running: dict[Connection, BaseProcess]) -> Iterator[Read | Folded]:
    open_ends: list[Any] = list(running)
    while open_ends:
        for receiving in wait(open_ends):
            assert isinstance(receiving, Connection)
            try:
                message = _decode(receiving.recv_bytes())
            except EOFError:
                running[receiving].join()
                raise LedgerUnavailable(
                    f"a process of the rebuild is gone (exit code {running[receiving].exitcode}); run it again, or with"
                    " fewer processes if the machine has too little memory for so many"
                ) from None
            match message:
                case _Done():
                    open_ends.remove(receiving)
                case _Failed(corrupt, detail):
                    raise LedgerCorrupt(detail) if corrupt else LedgerUnavailable(detail)
                case _:
                    yield message


def _work(sending: Connection, url: str, until: int, ranges: list[Range], held_events: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Nothing here goes round in a circle, and to look for it among so many objects costs a quarter of the time.
    gc.disable()
    # Whoever receives is gone: there is nobody left to tell.
    with suppress(BrokenPipeError):
        try:
            recorder = open_recorder(url)
            try:
                for message in fold_ranges(recorder, until, ranges, held_events=held_events):
                    sending.send_bytes(_encode(message))
            finally:
                recorder.close()
        except InforceError as error:
            sending.send_bytes(_encode(_Failed(isinstance(error, LedgerCorrupt), error.detail)))
        else:
            sending.send_bytes(_encode(_Done()))


def _end_with_parent() -> None:
    """A parent that is killed says nothing: without it, this process would go on to the end for nobody."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
