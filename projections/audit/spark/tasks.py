"""The work of Spark's Python workers: from batches of a log's lines or rows to verdicts and rejects.

`projections.audit.reading` reads and the kernel decides; this module only tells them where a batch stands in its file.
A process opens an index once, by its name, for all its tasks. Proved by tests/audit/spark.
"""

from __future__ import annotations

import io
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, groupby, pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from pyspark import AccumulatorParam

from ledger.errors import InforceError
from projections.audit.index import storage
from projections.audit.index.schema import PolicyIndex
from projections.audit.kernel.batch_decider import BatchDecider
from projections.audit.kernel.request_columns import ROWS_MAX
from projections.audit.reading import text_logs
from projections.audit.reading.any_log import SEEKABLE, read_bytes, read_seekable
from projections.audit.reading.batches import LogBatch, as_mapped
from projections.audit.reading.blocks import LineBlock, LineBlocks, count_lines
from projections.audit.reading.fields import ColumnMapping
from projections.audit.reading.parquet import ParquetColumns
from projections.audit.reading.plain_columns import is_uuid, plain_column
from projections.audit.reading.shape import LogShape
from projections.audit.reading.strict import RowParser
from projections.audit.schemas import REQUESTS, VERDICTS, as_happened, observes
from projections.audit.spark.errors import REFUSAL, UnusableLog
from projections.audit.spark.inputs import from_spark_path
from projections.audit.spark.slices import slice_numbers, unpack
from projections.audit.verdict_files import OUTPUT_SCHEMA

SOURCE, LINE, FAULT, SLICE = "source", "line", "reason", "slice"
_PLACE: Final = [pa.field(SOURCE, pa.string()), pa.field(LINE, pa.int64()), pa.field(FAULT, pa.string())]
RESULTS: Final = pa.schema([*_PLACE, *(field.with_nullable(True) for field in list(OUTPUT_SCHEMA)[2:])])
"""Verdicts and rejects. A reject has a `reason`, and null in all columns of a verdict."""
SLICED_REQUESTS: Final = pa.schema(
    [*_PLACE, pa.field(SLICE, pa.int32()), *(field.with_nullable(True) for field in REQUESTS)]
)
"""Requests with the slice that decides them, and rejects."""
BLOCK_BYTES: Final = 1 << 23

Batches = Iterable[pa.RecordBatch]


class Split(NamedTuple):
    """The lines of a file from one place on. `first`: number of the first line. `header`: of a CSV file."""

    first: int
    header: bytes


class TaskLog(NamedTuple):
    """The facts about a log that a task needs. `splits`: by their first byte."""

    name: str
    mapping: ColumnMapping
    shape: LogShape
    splits: dict[int, Split]


LogsByPath = dict[str, TaskLog]
"""By `inputs.normal_path`."""
Paths = list[tuple[str, ...]]
"""Columns of Parquet, each with the names from the top-level column down."""
Read = Callable[[Batches], Iterator[LogBatch]]
Task = Callable[[Batches], Iterator[pa.RecordBatch]]


Facts = set[tuple[str, str, str]]
MAPPED: Final = "mapped"
OBSERVES: Final = "observes"
FORM: Final = "form"


class NotedColumns(AccumulatorParam[Facts]):
    """(log, MAPPED, field) for a mapped column that some line has had, (log, OBSERVES, "") if some row has observed
    handling, (log, FORM, what it is), and (log, …) for each of the `facts` of a `ColumnSurvey`. A repeated task adds
    nothing new."""

    def zero(self, value: Facts) -> Facts:
        return set()

    def addInPlace(self, value1: Facts, value2: Facts) -> Facts:
        return value1 | value2


def read_lines(logs: LogsByPath, noted: Any) -> Read:
    """Reads batches of (path, start, value: bytes without the newline), with the lines of a split in order.

    `noted`: accumulator of `NotedColumns`.
    """

    def read(batches: Batches) -> Iterator[LogBatch]:
        runs = chain.from_iterable(_runs(batch, 0) for batch in batches)
        for (path, start), same_split in groupby(runs, key=lambda run: run[:2]):
            log = logs[from_spark_path(path)]
            parser = RowParser(log.name, log.mapping, log.shape)
            columns = (batch.column("value") for *_, batch in same_split)
            blocks = _ColumnBlocks(columns, log.splits[start], at_file_start=start == 0)
            yield from _given(text_logs.read_batches(blocks, parser), log, noted)
            _add_noted(noted, parser)

    return read


def read_whole(logs: LogsByPath, noted: Any) -> Read:
    """Reads batches of (path, content: all bytes of a file). `noted`: as for `read_lines`."""

    def read(batches: Batches) -> Iterator[LogBatch]:
        for batch in batches:
            for path, content in zip(batch.column("path").to_pylist(), batch.column("content"), strict=True):
                log = logs[from_spark_path(path)]
                parser = RowParser(log.name, log.mapping, log.shape)
                stream = io.BytesIO(content.as_py())
                if stream.getvalue()[:4] in SEEKABLE:
                    batches_read = read_seekable(stream, parser)
                else:
                    blocks = LineBlocks(stream, log.name, BLOCK_BYTES, log.shape.row_bytes_max)
                    batches_read = read_bytes(blocks, parser)
                yield from _given(batches_read, log, noted)
                _add_noted(noted, parser)

    return read


def _add_noted(noted: Any, parser: RowParser) -> None:
    facts = {(MAPPED, field) for field in parser.present_fields} | parser.survey.facts()
    if parser.form is not None:
        facts.add((FORM, parser.form))
    noted.add({(parser.source, *fact) for fact in facts})


def _given(batches: Iterable[LogBatch], log: TaskLog, noted: Any) -> Iterator[LogBatch]:
    """The batches as the log's mapping has them; notes whether a row has observed handling."""
    for batch in batches:
        if observes(batch.requests):
            noted.add({(log.name, OBSERVES, "")})
        yield as_mapped(batch, log.mapping)


def read_rows(logs: LogsByPath, schema: pa.Schema, paths: Paths, noted: Any) -> Read:
    """Reads batches of (path, start: a row's place in its file from 0, the columns at `paths`), of files with that
    schema. `noted`: as for `read_lines`."""

    def read(batches: Batches) -> Iterator[LogBatch]:
        by_path: dict[str, ParquetColumns] = {}
        for batch in batches:
            # A task leaves out no rows, but may begin anywhere in a file.
            for path, first, run in _runs(batch, 1):
                log = logs[from_spark_path(path)]
                if path not in by_path:
                    by_path[path] = ParquetColumns(schema, RowParser(log.name, log.mapping, log.shape))
                columns = by_path[path]
                values = {
                    field: _typed(run.column(2 + paths.index(column)), columns.types[field])
                    if column in paths
                    else pa.nulls(run.num_rows)
                    for field, column in columns.paths.items()
                }
                yield from _given([columns.log_batch(values, run.num_rows, first + 1)], log, noted)

    return read


def _typed(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """The column with the type that the file has, which Spark may have replaced."""
    if pa.types.is_timestamp(kind):
        if pa.types.is_integer(column.type):
            return column.view(kind)
        # An instant and a local time are the same numbers.
        return column.view(pa.timestamp(column.type.unit, kind.tz))
    if is_uuid(kind):
        return plain_column(pa.ExtensionArray.from_storage(kind, column.cast(pa.binary(16))))
    return column.cast(kind) if pa.types.is_decimal(column.type) else column


def _runs(batch: pa.RecordBatch, step: int) -> Iterator[tuple[str, int, pa.RecordBatch]]:
    """(path, start, rows) of adjacent rows that have one path, and whose starts rise by `step`."""
    if not batch.num_rows:
        return
    codes = batch.column("path").dictionary_encode().indices.to_numpy()
    starts = batch.column("start").to_numpy()
    cuts = np.flatnonzero((np.diff(codes) != 0) | (np.diff(starts) != step)) + 1
    for begin, end in pairwise([0, *cuts.tolist(), batch.num_rows]):
        yield batch.column("path")[begin].as_py(), int(starts[begin]), batch.slice(begin, end - begin)


class _ColumnBlocks:
    """A `BlockSource` of columns of lines."""

    def __init__(self, columns: Iterator[pa.Array], split: Split, *, at_file_start: bool) -> None:
        self._columns = columns
        self._next = split.first
        self._carried = b""
        self._header = split.header
        self._at_file_start = at_file_start

    def put_back(self, data: bytes, lines: int, *, wants_more: bool = True) -> None:
        self._carried = data + self._carried
        self._next -= lines

    def __iter__(self) -> Iterator[LineBlock]:
        if self._header:
            # The header is in another split. It precedes this split's first line, which keeps its number.
            header = self._header + b"\n"
            yield LineBlock(self._next - 1, 1, header, len(header), False)
        for last, data in _with_last(self._data()):
            yield self._block(self._carried + data, last)
        while self._carried:
            yield self._block(self._carried, True)

    def _block(self, data: bytes, last: bool) -> LineBlock:
        first, lines = self._next, count_lines(data, len(data))
        self._carried = b""
        self._next += lines
        return LineBlock(first, lines, data, len(data), last)

    def _data(self) -> Iterator[bytes]:
        at_file_start = self._at_file_start
        for column in self._columns:
            data = b"\n".join(column.to_pylist()) + b"\n"
            if at_file_start:
                data, at_file_start = data.removeprefix(BOM_UTF8), False
            yield data


def _with_last(items: Iterator[bytes]) -> Iterator[tuple[bool, bytes]]:
    """(whether it is the last, item)"""
    before: bytes | None = None
    for item in items:
        if before is not None:
            yield False, before
        before = item
    if before is not None:
        yield True, before


def decide_log(read: Read, index: str) -> Task:
    """From a log's batches to RESULTS. `index`: name of its archive."""

    def decide(batches: Batches) -> Iterator[pa.RecordBatch]:
        decider = _sent_index(index).decider
        for batch in _refusing(read(batches)):
            yield from _rejects(batch, RESULTS)
            for start in range(0, len(batch.lines), ROWS_MAX):
                place = _place(batch.source, batch.lines[start : start + ROWS_MAX])
                yield _results(place, decider, batch.requests.slice(start, ROWS_MAX))

    return decide


def slice_log(read: Read, slices: int) -> Task:
    """From a log's batches to SLICED_REQUESTS."""

    def slice_batches(batches: Batches) -> Iterator[pa.RecordBatch]:
        for batch in _refusing(read(batches)):
            yield from _rejects(batch, SLICED_REQUESTS)
            if len(batch.lines):
                place = [*_place(batch.source, batch.lines), pa.array(slice_numbers(batch.requests, slices))]
                yield pa.RecordBatch.from_arrays([*place, *batch.requests.columns], schema=SLICED_REQUESTS)

    return slice_batches


def decide_by_slice(index: str, *, happened: bool) -> Callable[[pa.Table, pa.Table], pa.Table]:
    """From SLICED_REQUESTS and the one slice that decides them to RESULTS. `index`: name of the archive of the part
    that slices share."""

    def decide(rows: pa.Table, slices: pa.Table) -> pa.Table:
        if not rows.num_rows:
            return RESULTS.empty_table()
        decider = BatchDecider(unpack(slices.column("content")[0].as_buffer(), _sent_index(index).shared))
        results = []
        for batch in rows.combine_chunks().to_batches(ROWS_MAX):
            place = [batch.column(field.name) for field in _PLACE]
            requests = batch.select(REQUESTS.names).cast(REQUESTS)
            results.append(_results(place, decider, as_happened(requests) if happened else requests))
        return pa.Table.from_batches(results)

    return decide


class _SentIndex(NamedTuple):
    shared: PolicyIndex
    decider: BatchDecider


_sent: dict[str, _SentIndex] = {}
"""The latest index of this process, which lives for many tasks."""


def _sent_index(name: str) -> _SentIndex:
    if name not in _sent:
        from pyspark import SparkFiles

        stored = storage.load(Path(SparkFiles.get(name)) / "index")
        if stored is None:
            raise FileNotFoundError("the policy index is missing on this executor")
        stored.verify()
        index = stored.index()
        _sent.clear()
        _sent[name] = _SentIndex(index, BatchDecider(index))
    return _sent[name]


def _refusing(batches: Iterator[LogBatch]) -> Iterator[LogBatch]:
    try:
        yield from batches
    except InforceError as error:
        raise UnusableLog(f"{REFUSAL}{error}") from None


def _rejects(batch: LogBatch, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    if batch.faults:
        rows = [{SOURCE: row.source, LINE: row.line, FAULT: row.fault} for row in batch.faults]
        yield pa.RecordBatch.from_pylist(rows, schema=schema)


def _place(source: str, lines: Any) -> list[pa.Array]:
    """The columns of _PLACE for rows without a fault."""
    return [pa.repeat(pa.scalar(source), len(lines)), pa.array(lines, pa.int64()), pa.nulls(len(lines), pa.string())]


def _results(place: list[pa.Array], decider: BatchDecider, requests: pa.RecordBatch) -> pa.RecordBatch:
    verdicts = decider.decide(requests).verdicts
    columns = [verdicts.column(name).cast(RESULTS.field(name).type) for name in VERDICTS.names]
    return pa.RecordBatch.from_arrays([*place, *columns], schema=RESULTS)
