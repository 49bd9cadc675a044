"""An audit keeps the order of the log, counts every row once, and ends whatever happens in it."""

import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pytest

from projections.audit.index.reference import compile_by_fold
from projections.audit.kernel.kernel import Kernel
from projections.audit.reading.batches import LogBatch, request_batch
from projections.audit.reading.strict import LogRow
from projections.audit.run import Ahead, run
from projections.audit.schemas import VERDICTS, DecidedBatch
from projections.audit.summary import Summary, summary_json
from projections.decisions.model import Observed, RequestRecord
from projections.query.pinned import PinnedQuery
from projections.query.query import IN_FORCE, Query
from tests.audit.index.worlds import World
from tests.audit.strategies import slow_decider
from tests.support.ledgers import NOW, open_with_clock


class CachedSubject:
    """A sink that keeps the rows' lines, and those of the faults before them."""

    def __init__(self) -> None:
        self.lines: list[int] = []
        self.verdicts: list[pa.RecordBatch] = []

    def take(self, part: LogBatch, verdicts: pa.RecordBatch) -> None:
        assert verdicts.num_rows == len(part.lines)
        self.lines += part.lines.tolist()
        self.verdicts.append(verdicts)

    def reject(self, row: LogRow) -> None:
        self.lines.append(-row.line)


@pytest.fixture
def query(tmp_path: Path) -> Iterator[PinnedQuery]:
    ledger, clock = open_with_clock(f"sqlite:///{tmp_path}/ledger.db")
    with ledger:
        World(ledger, clock, 3).go_on(80)
        yield PinnedQuery(Query(ledger))


def parts(count: int, size: int = 20) -> list[LogBatch]:
    chance, found, line = Random(1), [], 0
    for number in range(count):
        records, lines = [], []
        for _ in range(size):
            line += 1
            lines.append(line)
            done = Observed(chance.choice((True, False, None)), None, chance.choice((True, None)), None, None, None)
            ids = (chance.choice(("k1", None)), None, chance.choice(("acme", "beta")), None, chance.choice(("c", None)))
            records.append(RequestRecord(NOW + chance.randrange(10**7), *ids, f"r{line}", None, done))
        line += 1
        faults = [LogRow("a.log", line, None, "no request")] if number % 2 else []
        found.append(LogBatch("a.log", np.array(lines, np.int64), request_batch(records), faults))
    return found


@pytest.mark.parametrize("threads", [False, True])
def test_every_row_is_taken_and_counted_once_in_its_order(query: PinnedQuery, threads: bool) -> None:
    made, summary, kept = parts(30), Summary(query.pinned, IN_FORCE), CachedSubject()
    told: list[int] = []
    run(made, slow_decider(query, IN_FORCE), summary, sinks=[kept], progress=told.append, threads=threads)
    assert [abs(line) for line in kept.lines] != kept.lines
    expected: list[int] = []
    for part in made:
        expected += [-row.line for row in part.faults] + part.lines.tolist()
    assert kept.lines == expected
    assert (summary.rows, summary.rejects) == (30 * 20 + 15, 15)
    assert sum(summary.verdicts.values()) == 600
    assert told == sorted(told)
    assert told[-1] == summary.rows


def test_the_kernel_comes_to_what_the_rows_come_to(query: PinnedQuery) -> None:
    summaries, verdicts = [], []
    kernel = Kernel(compile_by_fold(query.ledger, IN_FORCE))
    for decide in (slow_decider(query, IN_FORCE), kernel.decide):
        summary, kept = Summary(query.pinned, IN_FORCE), CachedSubject()
        run(parts(20), decide, summary, sinks=[kept])
        summaries.append(summary_json(summary))
        verdicts.append(pa.Table.from_batches(kept.verdicts, schema=VERDICTS).to_pylist())
    assert summaries[0] == summaries[1]
    assert verdicts[0] == verdicts[1]


class Broken(Exception):
    pass


@pytest.mark.parametrize("threads", [False, True])
def test_what_breaks_while_reading_is_raised_after_what_was_read(query: PinnedQuery, threads: bool) -> None:
    def breaking() -> Iterator[LogBatch]:
        yield from parts(3)
        raise Broken

    kept = CachedSubject()
    with pytest.raises(Broken):
        run(breaking(), slow_decider(query, IN_FORCE), Summary(query.pinned, IN_FORCE), sinks=[kept], threads=threads)
    assert len(kept.verdicts) == 3
    assert_no_reader()


def test_what_breaks_while_deciding_ends_the_reading(query: PinnedQuery) -> None:
    read: list[int] = []

    def endless() -> Iterator[LogBatch]:
        while True:
            read.append(1)
            yield parts(1)[0]

    def breaking(_requests: pa.RecordBatch) -> DecidedBatch:
        raise Broken

    with pytest.raises(Broken):
        run(endless(), breaking, Summary(query.pinned, IN_FORCE))
    assert_no_reader()
    assert len(read) < 20


def test_no_more_is_read_ahead_than_has_room() -> None:
    read: list[int] = []

    def counted() -> Iterator[LogBatch]:
        for part in parts(50, 1):
            read.append(1)
            yield part

    ahead = Ahead(counted(), "reading the log")
    try:
        first = next(iter(ahead))
        assert first.rows == 1
        threading.Event().wait(0.3)
        # One that waits to be put, one that was taken, and those between.
        assert len(read) <= 6
    finally:
        ahead.close()
    assert_no_reader()


def assert_no_reader() -> None:
    assert not [thread for thread in threading.enumerate() if thread.name.endswith("the log")]
