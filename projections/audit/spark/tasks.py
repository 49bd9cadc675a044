"""What Spark's Python workers do: batches of a log's lines or rows to verdicts and rejects.

Reading is `projections.audit.reading`'s, deciding the kernel's; here is only what tells them where a batch stands in
its file. An index is opened once in a process, under its name, and used by every task that comes to it later.
Proved by tests/audit/spark.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, groupby, pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from pyspark import AccumulatorParam

from ledger.errors import InforceError
from projections.audit.index import storage as files
from projections.audit.index.schema import PolicyIndex
from projections.audit.kernel.batch_decider import BatchDecider
from projections.audit.kernel.request_columns import ROWS_MAX
from projections.audit.reading import text_logs
from projections.audit.reading.batches import LogBatch
from projections.audit.reading.blocks import LineBlock, LineBlocks, count_lines
from projections.audit.reading.fields import ColumnMapping
from projections.audit.reading.parquet import ParquetColumns
from projections.audit.reading.strict import LogFormat, RowParser
from projections.audit.schemas import REQUESTS, VERDICTS
from projections.audit.spark.inputs import from_spark_path
from projections.audit.spark.slices import slice_numbers, unpack
from projections.audit.verdict_files import OUTPUT_SCHEMA

SOURCE, LINE, FAULT, SLICE = "source", "line", "reason", "slice"
_WHERE: Final = [pa.field(SOURCE, pa.string()), pa.field(LINE, pa.int64()), pa.field(FAULT, pa.string())]
DECIDED: Final = pa.schema([*_WHERE, *(field.with_nullable(True) for field in list(OUTPUT_SCHEMA)[2:])])
"""A verdict, or where `reason` is not null a reject, whose other columns are null."""
READ: Final = pa.schema([*_WHERE, pa.field(SLICE, pa.int32()), *(field.with_nullable(True) for field in REQUESTS)])
"""A request and which slice decides it, or a reject."""
BLOCK_BYTES: Final = 1 << 23
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

Batches = Iterable[pa.RecordBatch]


class Split(NamedTuple):
    """The lines of a file from one place on. `first`: the first one's number; `header`: what a CSV file begins with."""

    first: int
    header: bytes


class TaskLog(NamedTuple):
    """What a task has to know of a log: `splits` by the place (bytes) where they begin."""

    name: str
    mapping: ColumnMapping
    log_format: LogFormat | None
    splits: dict[int, Split]


LogsByPath = dict[str, TaskLog]
"""By their paths, as `inputs.normal_path` has them."""
Paths = list[tuple[str, ...]]
"""Of columns, from the top one down."""
Seen = Callable[[RowParser], None]
"""Told of a log's rows once they are read."""
Read = Callable[[Batches, Seen], Iterator[LogBatch]]
Task = Callable[[Batches], Iterator[pa.RecordBatch]]


class SeenColumns(AccumulatorParam[set[tuple[str, str]]]):
    """The (log, field) of which a line has had the column that was named for the field. A task that is run twice adds
    the same."""

    def zero(self, value: set[tuple[str, str]]) -> set[tuple[str, str]]:
        return set()

    def addInPlace(self, value1: set[tuple[str, str]], value2: set[tuple[str, str]]) -> set[tuple[str, str]]:
        return value1 | value2


def read_lines(logs: LogsByPath) -> Read:
    """Of batches of (path, start, value: bytes without the newline), a file's stretch in its order."""

    def parts(batches: Batches, seen: Seen) -> Iterator[LogBatch]:
        runs = chain.from_iterable(_runs(batch, 0) for batch in batches)
        for (path, start), found in groupby(runs, key=lambda run: run[:2]):
            log = logs[from_spark_path(path)]
            stretch, rows = log.splits[start], RowParser(log.name, log.mapping)
            blocks = _Blocks((batch.column("value") for *_, batch in found), stretch, start == 0)
            yield from text_logs.read_batches(blocks, rows, log.log_format)
            seen(rows)

    return parts


def read_whole(logs: LogsByPath) -> Read:
    """Of batches of (path, content: a whole file's bytes)."""

    def parts(batches: Batches, seen: Seen) -> Iterator[LogBatch]:
        for batch in batches:
            for path, content in zip(batch.column("path").to_pylist(), batch.column("content"), strict=True):
                log = logs[from_spark_path(path)]
                rows = RowParser(log.name, log.mapping)
                stream = io.BytesIO(content.as_py())
                yield from text_logs.read_batches(LineBlocks(stream, log.name, BLOCK_BYTES), rows, log.log_format)
                seen(rows)

    return parts


def read_rows(logs: LogsByPath, schema: pa.Schema, paths: Paths) -> Read:
    """Of batches of (path, start: a row's place in its file from 0 on, and the columns at `paths` of files with that
    schema)."""

    def parts(batches: Batches, _seen: Seen) -> Iterator[LogBatch]:
        readers: dict[str, ParquetColumns] = {}
        for batch in batches:
            # A task may have left out nothing, but may begin anywhere.
            for path, first, run in _runs(batch, 1):
                log = logs[from_spark_path(path)]
                if path not in readers:
                    readers[path] = ParquetColumns(schema, RowParser(log.name, log.mapping))
                reader = readers[path]
                said = {
                    field: _typed(run.column(2 + paths.index(at)), reader.types[field])
                    if at in paths
                    else pa.nulls(run.num_rows)
                    for field, at in reader.paths.items()
                }
                yield reader.log_batch(said, run.num_rows, first + 1)

    return parts


def _typed(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """As the file has it, where Spark has it otherwise."""
    if pa.types.is_timestamp(kind):
        if pa.types.is_integer(column.type):
            return column.view(kind)
        # Of an instant and of a local time these are the same numbers.
        return column.view(pa.timestamp(column.type.unit, kind.tz))
    return column.cast(kind) if pa.types.is_decimal(column.type) else column


def _runs(batch: pa.RecordBatch, step: int) -> Iterator[tuple[str, int, pa.RecordBatch]]:
    """(path, start, rows) of rows that follow each other: of one path, and of starts that rise by `step`."""
    if not batch.num_rows:
        return
    codes = batch.column("path").dictionary_encode().indices.to_numpy()
    starts = batch.column("start").to_numpy()
    cuts = np.flatnonzero((np.diff(codes) != 0) | (np.diff(starts) != step)) + 1
    for begin, end in pairwise([0, *cuts.tolist(), batch.num_rows]):
        yield batch.column("path")[begin].as_py(), int(starts[begin]), batch.slice(begin, end - begin)


class _Blocks:
    """A `BlockSource` of columns of lines."""

    def __init__(self, columns: Iterator[pa.Array], stretch: Split, begins: bool) -> None:
        self._columns = columns
        self._next = stretch.first
        self._kept = b""
        self._header = stretch.header
        self._begins = begins

    def put_back(self, data: bytes, lines: int) -> None:
        self._kept = data + self._kept
        self._next -= lines

    def __iter__(self) -> Iterator[LineBlock]:
        if self._header:
            # Of another stretch: it stands before this one's first line, which keeps its number.
            header = self._header + b"\n"
            yield LineBlock(self._next - 1, 1, header, len(header), False)
        for last, data in _with_last(self._data()):
            yield self._block(self._kept + data, last)
        while self._kept:
            yield self._block(self._kept, True)

    def _block(self, whole: bytes, last: bool) -> LineBlock:
        first, lines = self._next, count_lines(whole, len(whole))
        self._kept = b""
        self._next += lines
        return LineBlock(first, lines, whole, len(whole), last)

    def _data(self) -> Iterator[bytes]:
        begins = self._begins
        for column in self._columns:
            data = b"\n".join(column.to_pylist()) + b"\n"
            if begins:
                data, begins = data.removeprefix(_BYTE_ORDER_MARK), False
            yield data


def _with_last(items: Iterator[bytes]) -> Iterator[tuple[bool, bytes]]:
    before: bytes | None = None
    for item in items:
        if before is not None:
            yield False, before
        before = item
    if before is not None:
        yield True, before


def decided(read: Read, index: str, named: Any) -> Task:
    """DECIDED of a log's batches. `index`: the name under which the archive of one was sent; `named`: an accumulator
    of `SeenColumns`."""

    def decide(batches: Batches) -> Iterator[pa.RecordBatch]:
        kernel = _sent(index).kernel
        for part in _said(read(batches, _adding(named))):
            yield from _rejects(part, DECIDED)
            for start in range(0, len(part.lines), ROWS_MAX):
                rows = part.requests.slice(start, ROWS_MAX)
                yield _verdicts(part.source, part.lines[start : start + ROWS_MAX], kernel.decide(rows).verdicts)

    return decide


def requests(read: Read, slices: int, named: Any) -> Task:
    """READ of a log's batches."""

    def found(batches: Batches) -> Iterator[pa.RecordBatch]:
        for part in _said(read(batches, _adding(named))):
            yield from _rejects(part, READ)
            if len(part.lines):
                where = [pa.repeat(pa.scalar(part.source), len(part.lines)), pa.array(part.lines, pa.int64())]
                where += [pa.nulls(len(part.lines), pa.string()), pa.array(slice_numbers(part.requests, slices))]
                yield pa.RecordBatch.from_arrays([*where, *part.requests.columns], schema=READ)

    return found


def decided_by_slice(index: str) -> Callable[[pa.Table, pa.Table], pa.Table]:
    """DECIDED of READ requests and the one slice that decides them. `index`: of the archive of what slices share."""

    def decide(rows: pa.Table, slices: pa.Table) -> pa.Table:
        if not rows.num_rows:
            return DECIDED.empty_table()
        part = unpack(slices.column("content")[0].as_buffer(), _sent(index).whole)
        kernel = BatchDecider(part)
        found = []
        for batch in rows.combine_chunks().to_batches(ROWS_MAX):
            asked = batch.select(REQUESTS.names).cast(REQUESTS)
            found.append(_verdicts(batch.column(SOURCE), batch.column(LINE), kernel.decide(asked).verdicts))
        return pa.Table.from_batches(found)

    return decide


def _adding(named: Any) -> Seen:
    return lambda rows: named.add({(rows.source, field) for field in rows.seen})


class _Index(NamedTuple):
    whole: PolicyIndex
    kernel: BatchDecider


_sent_before: dict[str, _Index] = {}
"""Of this process, which lives for many tasks."""


def _sent(name: str) -> _Index:
    if name not in _sent_before:
        from pyspark import SparkFiles

        stored = files.load(Path(SparkFiles.get(name)) / "index")
        if stored is None:
            raise FileNotFoundError("the policy index has not come to this executor")
        stored.verify()
        index = stored.index()
        _sent_before.clear()
        _sent_before[name] = _Index(index, BatchDecider(index))
    return _sent_before[name]


class UnusableLog(Exception):
    """A log that is none: begins with MARK and says why in one line."""


REFUSAL: Final = "inforce refuses: "


def _said(parts: Iterator[LogBatch]) -> Iterator[LogBatch]:
    try:
        yield from parts
    except InforceError as error:
        raise UnusableLog(f"{REFUSAL}{error}") from None


def _rejects(part: LogBatch, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    if part.faults:
        rows = [{SOURCE: fault.source, LINE: fault.line, FAULT: fault.fault} for fault in part.faults]
        yield pa.RecordBatch.from_pylist(rows, schema=schema)


def _verdicts(source: Any, lines: Any, verdicts: pa.RecordBatch) -> pa.RecordBatch:
    rows = verdicts.num_rows
    where = [pa.repeat(pa.scalar(source), rows) if isinstance(source, str) else source]
    where += [lines if isinstance(lines, pa.Array) else pa.array(lines, pa.int64()), pa.nulls(rows, pa.string())]
    columns = [verdicts.column(name).cast(DECIDED.field(name).type) for name in VERDICTS.names]
    return pa.RecordBatch.from_arrays([*where, *columns], schema=DECIDED)
