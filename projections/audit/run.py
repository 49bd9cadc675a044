"""Runs an audit: reads batches of a log, decides them, counts them and passes them on, all at one pin of the ledger.

One thread reads, one decides, and the calling thread counts and writes. The order is always that of the log.
Proved by tests/audit/io/test_run.py and tests/test_real_logs.py.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from queue import Empty, Full, Queue
from types import ModuleType
from typing import Final, Generic, Protocol, Self, TypeVar

import numpy as np
import pyarrow as pa

from ledger.store import Ledger
from projections.audit.counting import VerdictCounter
from projections.audit.reading.batches import LogBatch
from projections.audit.reading.strict import LogRow
from projections.audit.schemas import DecidedBatch, observes
from projections.audit.summary import Summary
from projections.query.query import KnownAt
from projections.temporal.coordinates import Pin

Item = TypeVar("Item")
Decider = Callable[[pa.RecordBatch], DecidedBatch]
"""REQUESTS → VERDICTS, in the order of the rows."""

AHEAD: Final = 2
"""Batches that are read ahead."""
DECIDED_AHEAD: Final = 2
"""Batches that are decided ahead: verdicts are written in groups of two or three batches, and deciding goes on
meanwhile. With one batch ahead an audit of JSON Lines takes a tenth longer."""
_PATIENCE: Final = 0.1


class RowSink(Protocol):
    """Receives the rows of an audit."""

    def take(self, part: LogBatch, verdicts: pa.RecordBatch) -> None:
        """Called with each batch in order. `verdicts` has a row for each of its requests."""

    def reject(self, row: LogRow) -> None:
        """Called with each fault in order, before `take` for the same batch."""


def index_decider(ledger: Ledger, pin: Pin, known_at: KnownAt) -> Decider:
    """Decides at the pin over the ledger's policy index, which it opens. Raises what `open_index` raises."""
    # Imported here because these modules create Arrow arrays when imported, which must come after `limit_memory`.
    from projections.audit.index.open import open_index
    from projections.audit.kernel.batch_decider import BatchDecider

    return BatchDecider(open_index(ledger, known_at, pin=pin)).decide


def run(
    parts: Iterable[LogBatch],
    decide: Decider,
    summary: Summary,
    *,
    sinks: Iterable[RowSink] = (),
    progress: Callable[[int], None] | None = None,
    threads: bool = True,
) -> None:
    """Decides every row and counts it in `summary`. `progress` gets the number of rows so far, after each batch.

    Raises what reading the batches raises.
    """
    every_sink = tuple(sinks)
    with ExitStack() as stack:
        if threads:
            parts = stack.enter_context(Ahead(parts, "reading the log"))
        decided_batches: Iterable[tuple[LogBatch, DecidedBatch | None]] = _decided(parts, decide)
        if threads:
            decided_batches = stack.enter_context(Ahead(decided_batches, "deciding on the log", DECIDED_AHEAD))
        counting = stack.enter_context(VerdictCounter(summary))
        for part, decided in decided_batches:
            for row in part.faults:
                summary.rejects += 1
                for sink in every_sink:
                    sink.reject(row)
            summary.rows += part.rows
            if decided is not None:
                summary.observed = summary.observed or observes(part.requests)
                counting.take(decided)
                for sink in every_sink:
                    sink.take(part, decided.verdicts)
            if progress is not None:
                progress(summary.rows)
        counting.finish()


def _decided(parts: Iterable[LogBatch], decide: Decider) -> Iterator[tuple[LogBatch, DecidedBatch | None]]:
    for part in parts:
        yield part, decide(part.requests) if len(part.lines) else None


class Ahead(Generic[Item]):
    """Items that another thread takes from `items` a few ahead of their use. `close` ends that thread."""

    def __init__(self, items: Iterable[Item], name: str, room: int = AHEAD) -> None:
        self._items = items
        self._queue: Queue[tuple[Item] | BaseException | None] = Queue(room)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._make, name=name, daemon=True)
        self._thread.start()

    def _make(self) -> None:
        try:
            for item in self._items:
                if not self._put((item,)):
                    return
            self._put(None)
        except BaseException as error:  # raised again in the thread that uses the items
            self._put(error)

    def _put(self, item: tuple[Item] | BaseException | None) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_PATIENCE)
            except Full:
                continue
            return True
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Item]:
        while not self._stop.is_set():
            try:
                # With a timeout, so that Ctrl-C works while nothing comes, and `close` while another thread waits here.
                item = self._queue.get(timeout=_PATIENCE)
            except Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                try:
                    raise item
                finally:
                    # The error refers to this frame; breaking the cycle frees both at once.
                    del item
            yield item[0]

    def close(self) -> None:
        self._stop.set()
        # A thread that waits for a silent pipe cannot be woken; it ends with the process.
        self._thread.join(1)


_M_MMAP_THRESHOLD: Final = -3
_LARGE: Final = 1 << 20


def limit_memory() -> None:
    """Makes this process save memory, before it first uses Arrow.

    Arrow gets the allocator that retains the least freed memory, with which an audit peaks a tenth lower. Large NumPy
    arrays get mappings of their own, which the system takes back when they are freed: 50 MB of a long audit. And Arrow
    does not import pandas when it first sees an array: 45 MB and a quarter of a second for nothing that an audit uses.
    """
    with suppress(NotImplementedError):
        pa.set_memory_pool(pa.jemalloc_memory_pool())
    with suppress(OSError, AttributeError):
        # Only glibc has this function; its threshold would otherwise rise with the size of freed arrays.
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        # Arrow looks for pandas twice, once from Python and once from C++.
        pa.array(np.zeros(1))
        pa.array(["a text"])
    finally:
        sys.meta_path.remove(finder)


class _NoPandas(MetaPathFinder):
    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "pandas":
            raise ImportError
        return None
