"""An audit keeps the order of the log, counts every row once, and ends after any failure."""

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
from projections.query.query import IN_FORCE, PinnedQuery, Query
from tests.audit.index.random_ledger import RandomLedger
from tests.audit.strategies import slow_decider
from tests.support.ledgers import NOW, open_with_clock


class RecordingSink:
    """Records the lines of rows, and those of faults as negative numbers."""

    def __init__(self) -> None:
        self.lines: list[int] = []
        self.verdicts: list[pa.RecordBatch] = []

    def take(self, batch: LogBatch, verdicts: pa.RecordBatch) -> None:
        assert verdicts.num_rows == len(batch.lines)
        self.lines += batch.lines.tolist()
        self.verdicts.append(verdicts)

    def reject(self, row: LogRow) -> None:
        self.lines.append(-row.line)


@pytest.fixture
def query(tmp_path: Path) -> Iterator[PinnedQuery]:
    ledger, clock = open_with_clock(f"sqlite:///{tmp_path}/ledger.db")
    with ledger:
        RandomLedger(ledger, clock, 3).go_on(80)
        yield PinnedQuery(Query(ledger))


def log_batches(count: int, size: int = 20) -> list[LogBatch]:
    chance, batches_drawn, line = Random(1), [], 0
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
        batches_drawn.append(LogBatch("a.log", np.array(lines, np.int64), request_batch(records), faults))
    return batches_drawn


@pytest.mark.parametrize("threads", [False, True])
def test_every_row_reaches_the_sinks_and_the_counts_once_in_order(query: PinnedQuery, threads: bool) -> None:
    batches, summary, sink = log_batches(30), Summary(query.pinned, IN_FORCE), RecordingSink()
    counts: list[int] = []
    run(batches, slow_decider(query, IN_FORCE), summary, sinks=[sink], progress=counts.append, threads=threads)
    assert [abs(line) for line in sink.lines] != sink.lines
    expected: list[int] = []
    for batch in batches:
        expected += [-row.line for row in batch.faults] + batch.lines.tolist()
    assert sink.lines == expected
    assert (summary.rows, summary.rejects) == (30 * 20 + 15, 15)
    assert sum(summary.verdicts.values()) == 600
    assert counts == sorted(counts)
    assert counts[-1] == summary.rows


def test_the_kernel_gives_the_result_of_the_row_by_row_path(query: PinnedQuery) -> None:
    summaries, verdicts = [], []
    kernel = Kernel(compile_by_fold(query.ledger, IN_FORCE))
    for decide in (slow_decider(query, IN_FORCE), kernel.decide):
        summary, sink = Summary(query.pinned, IN_FORCE), RecordingSink()
        run(log_batches(20), decide, summary, sinks=[sink])
        summaries.append(summary_json(summary))
        verdicts.append(pa.Table.from_batches(sink.verdicts, schema=VERDICTS).to_pylist())
    assert summaries[0] == summaries[1]
    assert verdicts[0] == verdicts[1]


class Broken(Exception):
    pass


@pytest.mark.parametrize("threads", [False, True])
def test_a_failure_while_reading_is_raised_after_the_batches_before_it(query: PinnedQuery, threads: bool) -> None:
    def breaking() -> Iterator[LogBatch]:
        yield from log_batches(3)
        raise Broken

    sink = RecordingSink()
    with pytest.raises(Broken):
        run(breaking(), slow_decider(query, IN_FORCE), Summary(query.pinned, IN_FORCE), sinks=[sink], threads=threads)
    assert len(sink.verdicts) == 3
    assert_no_reader()


def test_a_failure_while_deciding_ends_the_reading(query: PinnedQuery) -> None:
    reads: list[int] = []

    def endless() -> Iterator[LogBatch]:
        while True:
            reads.append(1)
            yield log_batches(1)[0]

    def breaking(_requests: pa.RecordBatch) -> DecidedBatch:
        raise Broken

    with pytest.raises(Broken):
        run(endless(), breaking, Summary(query.pinned, IN_FORCE))
    assert_no_reader()
    assert len(reads) < 20


def test_reading_ahead_is_bounded() -> None:
    reads: list[int] = []

    def counted() -> Iterator[LogBatch]:
        for batch in log_batches(50, 1):
            reads.append(1)
            yield batch

    ahead = Ahead(counted(), "reading the log")
    try:
        first = next(iter(ahead))
        assert first.rows == 1
        threading.Event().wait(0.3)
        # One batch waits to enter the queue, one was taken out, and the others are in it.
        assert len(reads) <= 6
    finally:
        ahead.close()
    assert_no_reader()


def assert_no_reader() -> None:
    assert not [thread for thread in threading.enumerate() if thread.name.endswith("the log")]
