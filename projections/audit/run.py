"""An audit: parts of logs through one decider, in order, counted, written, all at one position of the ledger.

One thread reads, one decides, and this one counts and writes; the order is that of the log whatever the threads do.
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
from projections.audit.counting import Counting
from projections.audit.reading.batches import LogBatch
from projections.audit.reading.strict import LogRow
from projections.audit.schemas import DecidedBatch
from projections.audit.summary import Summary
from projections.query.pinned import Pin
from projections.query.query import KnownAt

Item = TypeVar("Item")
Decider = Callable[[pa.RecordBatch], DecidedBatch]
"""REQUESTS → VERDICTS, row by row in order."""

AHEAD: Final = 2
"""Parts that are read before they are wanted."""
DECIDED_AHEAD: Final = 2
"""And decided: rows are written in groups of two or three parts, and meanwhile so many are decided. With one ahead an
audit of JSON Lines takes a tenth longer."""
_PATIENCE: Final = 0.1


class RowSink(Protocol):
    """What becomes of the rows."""

    def take(self, part: LogBatch, verdicts: pa.RecordBatch) -> None:
        """Called with every part in order; `verdicts` has a row for each of its requests."""

    def reject(self, row: LogRow) -> None:
        """Called with every fault, in order, before its part is taken."""


def index_decider(ledger: Ledger, pin: Pin, known_at: KnownAt) -> Decider:
    """The fast decider, at the pin, over the index that is kept of the ledger. Raises what `open_index` raises."""
    # Not at the top: the kernel makes Arrow arrays when it is imported, which is to come after `limit_memory`.
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
    """Decides on every row, and counts it in `summary`. `progress` is told the rows done so far, after each part.
    Raises what reading the rows raises."""
    every_sink = tuple(sinks)
    with ExitStack() as stack:
        if threads:
            parts = stack.enter_context(Ahead(parts, "reading the log"))
        done: Iterable[tuple[LogBatch, DecidedBatch | None]] = _decided(parts, decide)
        if threads:
            done = stack.enter_context(Ahead(done, "deciding on the log", DECIDED_AHEAD))
        counting = stack.enter_context(Counting(summary))
        for part, decided in done:
            for row in part.faults:
                summary.rejects += 1
                for sink in every_sink:
                    sink.reject(row)
            summary.rows += part.rows
            if decided is not None:
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
    """Items, made by another thread a few ahead of where they are wanted. `close` it: then that thread ends."""

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
        except BaseException as error:  # it is raised where the items are wanted
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
                # With an end, so that Ctrl-C is heard while nothing comes, and closing while another thread waits here.
                item = self._queue.get(timeout=_PATIENCE)
            except Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                try:
                    raise item
                finally:
                    # It knows this frame, which must not know it.
                    del item
            yield item[0]

    def close(self) -> None:
        self._stop.set()
        # One that waits for a pipe that says nothing cannot be woken; it ends with the process.
        self._thread.join(1)


_M_MMAP_THRESHOLD: Final = -3
_LARGE: Final = 1 << 20


def limit_memory() -> None:
    """For the whole process: of the allocators that Arrow brings along the one that keeps least of what was given back,
    with which an audit holds a tenth less at its peak (where it was not built in, all stays as it is); large arrays of
    NumPy each in a mapping of its own, which goes when it is freed, and leaves no hole: 50 MB of a long audit; and no
    pandas, which Arrow imports, where it is installed, when it is first shown an array: 45 MB and a quarter of a second
    for nothing that an audit asks for."""
    with suppress(NotImplementedError):
        pa.set_memory_pool(pa.jemalloc_memory_pool())
    with suppress(OSError, AttributeError):
        # Of glibc, whose own threshold rises with what is freed; elsewhere there is no such function.
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        # Arrow looks twice: its Python and its C++, each once.
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
