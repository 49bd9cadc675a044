"""Compiles a ledger's policy index: reads every event once, in two threads, and folds all of them together.

Reading and scanning run without Python's lock, so that threads suffice and no data moves between processes.
`reference.compile_by_fold` makes the same index slowly. Proved by tests/audit/index/test_compile.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from typing import Final

import numpy as np

from ledger.errors import DamagedEvent
from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT
from projections.audit.arrays import UInt32s, UInt64s
from projections.audit.index.codes import Codes
from projections.audit.index.collect import EventCollector
from projections.audit.index.directory import axes, read_directory
from projections.audit.index.event_columns import EventColumns, NameColumns
from projections.audit.index.hash_table import slots_for, with_more
from projections.audit.index.parse_leaves import COMPILED, LeafParser
from projections.audit.index.pin import pin_of
from projections.audit.index.read_leaves import leaf_pages
from projections.audit.index.reference import both_catalogs
from projections.audit.index.schema import CatalogSteps, PolicyIndex, Subjects
from projections.audit.index.tables import TableCompiler, extend_slices, since_of
from projections.audit.numba_support import worth_compiling
from projections.temporal.changes import read_entries
from projections.temporal.coordinates import IN_FORCE, KnownAt, Pin

READ_EVENTS: Final = 4_000
"""Positions that one transaction reads: a long transaction lets SQLite's log grow, and this much data stays in the
processor's cache until it is scanned."""
THREADS: Final = 2

Progress = Callable[[int, int], None]
"""Called with the number of events that are read, and the number of all."""


def compile_index(
    ledger: Ledger,
    known_at: KnownAt = IN_FORCE,
    pin: Pin | None = None,
    progress: Progress | None = None,
    *,
    read_events: int = READ_EVENTS,
) -> PolicyIndex:
    """The index of `ledger` at `pin` (None: its head): in force, as known at an instant (µs), or now (None).

    Raises `LedgerCorrupt` at an event that cannot be read, and `LedgerUnavailable`.
    """
    pin = pin or pin_of(ledger)
    columns, slots = _read(ledger, pin.position, progress or (lambda _done, _all: None), read_events)
    subjects = _subjects(columns.names, slots)
    codes = Codes(subjects)
    catalogs = read_catalogs(ledger, known_at, pin, codes)
    since = np.concatenate([[0], since_of(columns)])
    compiler = TableCompiler(columns, known_at, codes, np.arange(len(subjects), dtype=np.int32))
    del columns
    tables = compiler.compile()
    # A definition's default may be a subject that no event names.
    subjects = with_more(subjects, *codes.subjects())
    return PolicyIndex(
        pin=pin,
        known_at=known_at,
        subjects=subjects,
        slices=extend_slices(tables.slices, len(subjects)),
        links=tables.links,
        policies=tables.policies,
        models=tables.models,
        catalog=catalogs[0],
        later_catalog=catalogs[1],
        texts=codes.texts(),
        assertions=tables.assertions,
        since=since,
        directory=read_directory(ledger, pin.position),
    )


def read_catalogs(ledger: Ledger, known_at: KnownAt, pin: Pin, codes: Codes) -> tuple[CatalogSteps, CatalogSteps]:
    entries = takewhile(lambda entry: entry.position <= pin.position, ledger.stream_entries(CATALOG_SUBJECT))
    return both_catalogs(*axes(read_entries(entries), known_at), codes)


def require_positions(positions: UInt32s, after: int, until: int) -> None:
    """Raises `DamagedEvent` unless the leaves after position `after` name the positions that they stand at."""
    expected = np.arange(after + 1, until + 1)
    if not np.array_equal(positions, expected):
        same = positions[: len(expected)] == expected[: len(positions)]
        raise DamagedEvent(after + 1 + int(np.argmin(np.append(same, False))), "another position is in its bytes")


def _read(ledger: Ledger, until: int, progress: Progress, read_events: int) -> tuple[EventColumns, UInt64s | None]:
    """All events, and the hash table of their names if compiled code made one."""
    compiled = worth_compiling(until, *COMPILED)
    parser, collector = LeafParser(ledger.origin, compiled=compiled), EventCollector(until, compiled=compiled)
    stopped, lock = threading.Event(), threading.Lock()
    events_read = 0

    def read(share: Sequence[int]) -> None:
        nonlocal events_read
        for after in share:
            if stopped.is_set():
                break
            for page in leaf_pages(ledger, after, min(after + read_events, until), read_events):
                batch = parser.parse(page.leaves)
                require_positions(batch.position, page.after, page.until)
                collector.put(page.after, batch)
                with lock:
                    events_read += page.until - page.after
                    progress(events_read, until)

    # Each thread reads one stretch, so that neighbouring pages of the database belong to one thread.
    starts = range(0, until, read_events)
    share = max(1, -(-len(starts) // THREADS))
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            shares = [starts[at : at + share] for at in range(0, len(starts), share)]
            for _share in pool.map(read, shares):
                pass
        finally:
            # A thread that failed or was interrupted ends the others.
            stopped.set()
    return collector.columns(), collector.slots


def _subjects(names: NameColumns, slots: UInt64s | None) -> Subjects:
    """The subjects: the code of each is its row among the names."""
    offsets = np.append(names.starts, len(names.bytes))
    if slots is None:
        slots = slots_for(names.kinds, offsets, names.bytes)
    return Subjects(names.kinds, offsets, names.bytes, slots)
