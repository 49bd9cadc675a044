"""Processes that read and fold a ledger, each its own subjects. They send rows to this process and write nothing."""

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
from projections.timelines.rebuild.external_sort import SubjectRange
from projections.timelines.rebuild.fold_range import FoldedRows, ReadProgress, fold_ranges

# A forked process would inherit the connections and the locks of this one.
_SPAWN: Final = multiprocessing.get_context("spawn")


PROCESSES_MAX: Final = 6
"""By default: the one process that writes their rows is busy with so many."""


def usual_processes() -> int:
    """The default number of processes for a large ledger: one for each processor, up to `PROCESSES_MAX`."""
    return min(os.cpu_count() or 1, PROCESSES_MAX)


class Workers(NamedTuple):
    """A number of processes, each of which opens the ledger at `url` itself."""

    url: str
    processes: int


class _Failed(Struct, tag=True, array_like=True):
    corrupt: bool
    detail: str


class _Done(Struct, tag=True, array_like=True):
    """A worker has sent everything."""


_Message = ReadProgress | FoldedRows | _Failed | _Done
# Costs a fifth of pickling.
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder[_Message](_Message).decode


def fold_in_workers(
    workers: Workers, until: int, ranges: Sequence[SubjectRange]
) -> Iterator[ReadProgress | FoldedRows]:
    """As `fold_ranges`; each worker's rows come in the order of their keys, mixed with those of the others.

    Raises the workers' errors, and `LedgerUnavailable` if a worker was killed.
    """
    share = -(-len(ranges) // workers.processes)
    shares = [ranges[at : at + share] for at in range(0, len(ranges), share)]
    running: dict[Connection, BaseProcess] = {}
    try:
        for one in shares:
            receiving, sending = _SPAWN.Pipe(duplex=False)
            process: BaseProcess = _SPAWN.Process(
                target=_work, args=(sending, workers.url, until, list(one)), daemon=True
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
    """Ctrl-C does not reach a process started in here: it reaches this one, which ends the others."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _received(running: dict[Connection, BaseProcess]) -> Iterator[ReadProgress | FoldedRows]:
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


def _work(sending: Connection, url: str, until: int, ranges: list[SubjectRange]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # No object here is in a reference cycle, and collecting cycles among so many objects costs a quarter of the time.
    gc.disable()
    # A broken pipe: the receiving process is gone.
    with suppress(BrokenPipeError):
        try:
            recorder = open_recorder(url)
            try:
                for message in fold_ranges(recorder, until, ranges):
                    sending.send_bytes(_encode(message))
            finally:
                recorder.close()
        except InforceError as error:
            sending.send_bytes(_encode(_Failed(isinstance(error, LedgerCorrupt), error.detail)))
        else:
            sending.send_bytes(_encode(_Done()))


def _end_with_parent() -> None:
    """Ends this process with its parent. A killed parent cannot send a signal, and the work would go on for nothing."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
