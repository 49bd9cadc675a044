"""A log as Spark's data frames: lines with where they stand, files as a whole, rows of Parquet.

Spark's readers are asked for bytes and plain columns alone; what those mean is read by `tasks`, as on one machine.
Proved by tests/audit/spark.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Final

import pyarrow as pa

from projections.audit.reading.parquet import ParquetColumns
from projections.audit.reading.strict import LogFormat, RawLine, RowParser, is_json
from projections.audit.spark.hadoop import hadoop_path
from projections.audit.spark.inputs import Input, from_spark_path, normal_path
from projections.audit.spark.tasks import LogsByPath, Paths, Split, TaskLog

_SPECIAL: Final = re.compile(r"([\\*?\[\]{}])")
_BLANK: Final = " \t\r\x0b\x0c"
"""Of what a line that says nothing consists: see `projections.audit.reading.strict.is_blank`."""
_BYTE_ORDER_MARK: Final = "\ufeff"


def line_frame(spark: Any, found: Sequence[Input]) -> Any:
    """(path, start, value) of every line of texts: where a stretch is read by one task, it is in order."""
    frame = spark.read.option("lineSep", "\n").option("recursiveFileLookup", "true")
    frame = frame.text([_escaped(one.path) for one in found])
    return frame.selectExpr("_metadata.file_path AS path", "_metadata.file_block_start AS start", "value")


def whole_of(spark: Any, found: Sequence[Input]) -> Any:
    """(path, content) of every file."""
    return file_frame(spark, *(one.path for one in found))


def file_frame(spark: Any, *names: str) -> Any:
    """(path, content) of files, or of those in folders."""
    frame = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    frame = frame.load([_escaped(hadoop_path(name)) for name in names])
    return frame.selectExpr("_metadata.file_path AS path", "content")


def task_logs(found: Sequence[Input], log_format: LogFormat | None = None) -> LogsByPath:
    """Of files that are not cut."""
    return {normal_path(one.path): TaskLog(one.file.name, one.file.mapping, log_format, {}) for one in found}


def row_frames(spark: Any, found: Sequence[Input]) -> Iterator[tuple[Any, LogsByPath, pa.Schema, Paths]]:
    """Of files with the same columns each: (path, start: a row's place in its file, and as many columns as there are
    paths); which logs these are; the files' schema; the wanted columns, from the top one down.

    Raises `BadRecord` for columns that cannot be."""
    by_schema = sorted(found, key=lambda one: str(one.schema))
    for _, group in groupby(by_schema, key=lambda one: str(one.schema)):
        files = list(group)
        schema = files[0].schema
        assert schema is not None
        wanted = {
            path
            for one in files
            for path in ParquetColumns(schema, RowParser(one.file.name, one.file.mapping)).paths.values()
        }
        paths = sorted(path for path in wanted if not pa.types.is_null(_type(schema, path)))
        frame = spark.read.schema(_read(schema, paths)).option("recursiveFileLookup", "true")
        frame = frame.parquet(*[_escaped(one.path) for one in files])
        own = [f"{'.'.join(_quoted(name) for name in path)} AS column{number}" for number, path in enumerate(paths)]
        frame = frame.selectExpr("_metadata.file_path AS path", "_metadata.row_index AS start", *own)
        yield frame, task_logs(files), schema, paths


def _type(schema: pa.Schema, path: Sequence[str]) -> pa.DataType:
    kind = schema.field(path[0]).type
    for name in path[1:]:
        kind = kind.field(name).type
    return kind


def _read(schema: pa.Schema, paths: Paths) -> Any:
    """The wanted columns, and no more, as Spark has to be asked for them."""
    from pyspark.sql.types import StructField, StructType

    fields = []
    for name, of_top in groupby(paths, key=lambda path: path[0]):
        below = [path[1:] for path in of_top]
        if below == [()]:
            fields.append(StructField(name, _spark_type(schema.field(name).type)))
        else:
            fields.append(StructField(name, _read(pa.schema(list(schema.field(name).type)), below)))
    return StructType(fields)


def _spark_type(kind: pa.DataType) -> Any:
    """How Spark reads a column that `ParquetColumns` allows."""
    from pyspark.sql import types

    of = pa.types
    value = kind.value_type if of.is_dictionary(kind) else kind
    if of.is_boolean(value):
        return types.BooleanType()
    if of.is_integer(value):
        signed = {1: types.ByteType, 2: types.ShortType, 4: types.IntegerType, 8: types.LongType}
        unsigned = {1: types.ShortType, 2: types.IntegerType, 4: types.LongType}
        width = value.bit_width // 8
        if of.is_signed_integer(value):
            return signed[width]()
        return types.DecimalType(20, 0) if width == 8 else unsigned[width]()
    if of.is_timestamp(value):
        if value.unit != "us":
            # As whole numbers: Spark has no such type, or fails at what does not fit its own.
            return types.LongType()
        return types.TimestampNTZType() if value.tz is None else types.TimestampType()
    is_bytes = of.is_binary(value) or of.is_large_binary(value)
    return types.BinaryType() if is_bytes else types.StringType()


def _quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"


def _escaped(path: str) -> str:
    """Spark takes every path for a pattern."""
    return _SPECIAL.sub(r"\\\1", path)


def split_logs(lines: Any, found: Sequence[Input], log_format: LogFormat | None) -> tuple[LogsByPath, set[str]]:
    """(the logs, of which these are to be read as a whole): from one pass over the lines.

    A file that Spark cuts is cut at line ends, so the number of a line is told by how many are before its stretch. In
    a CSV file a row is a line unless a quote is left open in it: then the file cannot be cut.
    """
    from pyspark.sql import functions as f

    value = f.col("value")
    # Bytes, as one machine counts them: of what is not UTF-8, characters would swallow a quote.
    quotes = f.octet_length(value) - f.octet_length(f.replace(value, f.lit('"'), f.lit("")))
    rows = (
        lines.groupBy("path", "start")
        .agg(
            f.count("*").alias("lines"),
            (f.max(quotes % 2) == 1).alias("open"),
            f.first(f.left(value, f.lit(1))).alias("begins"),
            _first_that_says(value, _BLANK).alias("header"),
            _first_that_says(value, _BLANK + _BYTE_ORDER_MARK).alias("behind_mark"),
        )
        .orderBy("path", "start")
        .collect()
    )
    by_path = {normal_path(one.path): one.file for one in found}
    logs: LogsByPath = {}
    whole: set[str] = set()
    for path, of_path in groupby(rows, key=lambda row: row.path):
        file = by_path[from_spark_path(path)]
        first, header, is_open, cut = 1, b"", False, {}
        for row in of_path:
            cut[row.start] = Split(first, header)
            first += row.lines
            is_open = is_open or row.open
            if not header and row.header is not None:
                header = _header(row)
        form = log_format or ("jsonl" if is_json(RawLine(1, header)) else "csv")
        if form == "jsonl":
            cut = {at: one._replace(header=b"") for at, one in cut.items()}
        elif is_open and len(cut) > 1:
            whole.add(from_spark_path(path))
        logs[from_spark_path(path)] = TaskLog(file.name, file.mapping, form, cut)
    return logs, whole


def _first_that_says(value: Any, blank: str) -> Any:
    from pyspark.sql import functions as f

    return f.first(f.when(f.trim(value, f.lit(blank)) != "", value), ignorenulls=True).cast("binary")


def _header(row: Any) -> bytes:
    """The first line of a stretch that says anything, without the mark that a file may begin with."""
    header = bytes(row.header)
    if row.start or row.begins != _BYTE_ORDER_MARK:
        return header
    header = header.removeprefix(_BYTE_ORDER_MARK.encode())
    return header if header.strip() else bytes(row.behind_mark or b"")
