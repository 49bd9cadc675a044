"""A log as Spark's data frames: lines with their places, whole files, and rows of Parquet.

Spark's readers only deliver bytes and plain columns. `tasks` reads these with the code of one machine. Proved by
tests/audit/spark.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Final

import pyarrow as pa

from projections.audit.reading.parquet import ParquetColumns
from projections.audit.reading.plain_columns import column_type, is_uuid, plain_type
from projections.audit.reading.shape import ANY_SHAPE, LogShape
from projections.audit.reading.strict import RowParser
from projections.audit.spark.hadoop import hadoop_path
from projections.audit.spark.inputs import Input, from_spark_path
from projections.audit.spark.tasks import LogsByPath, Paths, Split, TaskLog

_PATTERN_CHARACTERS: Final = re.compile(r"([\\*?\[\]{}])")
_BLANK: Final = ' \t\r\x0b\x0c,"'
"""The characters of a blank line: see `projections.audit.reading.text_logs`."""
_QUOTED_CELL: Final = '(?:^\ufeff?|(?<=,))"[^"]*+(?:""[^"]*+)*+"'
_OPEN_CELL: Final = '(?:^\ufeff?|,)"'
_BYTE_ORDER_MARK: Final = BOM_UTF8.decode()
_ORDER: Final = "number"
"""Rises with the lines of a split. Spark does not keep their order where it groups them."""


def line_frame(spark: Any, inputs: Sequence[Input]) -> Any:
    """(path, start, value) of every line. The lines of a split, which one task reads, are in order."""
    frame = spark.read.option("lineSep", "\n").option("recursiveFileLookup", "true")
    frame = frame.text([_escaped(one.path) for one in inputs])
    return frame.selectExpr("_metadata.file_path AS path", "_metadata.file_block_start AS start", "value")


def file_frame(spark: Any, names: Sequence[str]) -> Any:
    """(path, content) of files, or of the files in folders."""
    frame = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    frame = frame.load([_escaped(hadoop_path(name)) for name in names])
    return frame.selectExpr("_metadata.file_path AS path", "content")


def whole_logs(inputs: Sequence[Input], shape: LogShape = ANY_SHAPE) -> LogsByPath:
    """The logs of files that are not cut."""
    return {one.path: TaskLog(one.file.name, one.file.mapping, shape, {}) for one in inputs}


def row_frames(spark: Any, inputs: Sequence[Input]) -> Iterator[tuple[Any, LogsByPath, pa.Schema, Paths]]:
    """Of each group of Parquet files with one schema: (frame, its logs, the schema, paths of the columns to read).

    The frame has the columns path, start (a row's place in its file), and one for each of the paths. Raises `BadRecord`
    for wrong columns.
    """
    by_schema = sorted(inputs, key=lambda one: str(one.schema))
    for _, group in groupby(by_schema, key=lambda one: str(one.schema)):
        files = list(group)
        schema = files[0].schema
        assert schema is not None
        parsers = (RowParser(one.file.name, one.file.mapping) for one in files)
        all_paths = {path for parser in parsers for path in ParquetColumns(schema, parser).paths.values()}
        paths = sorted(path for path in all_paths if not pa.types.is_null(column_type(schema, path)))
        frame = spark.read.schema(_read_schema(schema, paths)).option("recursiveFileLookup", "true")
        frame = frame.parquet(*[_escaped(one.path) for one in files])
        values = [f"{'.'.join(_quoted(name) for name in path)} AS column{number}" for number, path in enumerate(paths)]
        frame = frame.selectExpr("_metadata.file_path AS path", "_metadata.row_index AS start", *values)
        yield frame, whole_logs(files), schema, paths


def _read_schema(schema: pa.Schema, paths: Paths) -> Any:
    """Spark's schema of the columns at these paths, and no others."""
    from pyspark.sql.types import StructField, StructType

    fields = []
    for name, same_top in groupby(paths, key=lambda path: path[0]):
        below = [path[1:] for path in same_top]
        if below == [()]:
            fields.append(StructField(name, _spark_type(schema.field(name).type)))
        else:
            fields.append(StructField(name, _read_schema(pa.schema(list(schema.field(name).type)), below)))
    return StructType(fields)


def _spark_type(kind: pa.DataType) -> Any:
    """Spark's type for a column that `ParquetColumns` accepts."""
    from pyspark.sql import types
    from pyspark.sql.pandas.types import from_arrow_type

    value = pa.binary() if is_uuid(kind) else plain_type(kind)
    if pa.types.is_unsigned_integer(value):
        wider = {8: types.ShortType(), 16: types.IntegerType(), 32: types.LongType()}
        return wider.get(value.bit_width, types.DecimalType(20, 0))
    if pa.types.is_timestamp(value) and value.unit != "us":
        # As whole numbers: Spark lacks the type, or fails on values outside the range of its own.
        return types.LongType()
    return from_arrow_type(value)


def _quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"


def _escaped(path: str) -> str:
    """Spark reads every path as a pattern."""
    return _PATTERN_CHARACTERS.sub(r"\\\1", path)


def split_logs(lines: Any, inputs: Sequence[Input], shape: LogShape) -> tuple[LogsByPath, set[str]]:
    """(the logs with their splits, paths of logs that one task must read as a whole), from one pass over the lines.

    Spark cuts files at line ends, so the lines before a split determine its line numbers. In a CSV file a row is a line
    unless it leaves a quote open: then the file cannot be cut.
    """
    from pyspark.sql import functions as f

    value = f.col("value")
    # The line of CSV without its quoted cells: a quote that still begins a cell is open.
    unquoted = f.regexp_replace(value, _QUOTED_CELL, "")
    leaves_open = f.contains(value, f.lit('"')) & ~f.startswith(value, f.lit("{")) & unquoted.rlike(_OPEN_CELL)
    rows = (
        lines.withColumn(_ORDER, f.monotonically_increasing_id())
        .groupBy("path", "start")
        .agg(
            f.count("*").alias("lines"),
            f.max(leaves_open).alias("open"),
            f.min_by(f.left(value, f.lit(1)), _ORDER).alias("first_character"),
            _first_not_blank(value, _BLANK).alias("header"),
            _first_not_blank(value, _BLANK + _BYTE_ORDER_MARK).alias("header_after_mark"),
        )
        .orderBy("path", "start")
        .collect()
    )
    by_path = {one.path: one.file for one in inputs}
    logs: LogsByPath = {}
    uncut: set[str] = set()
    for spark_path, same_path in groupby(rows, key=lambda row: row.path):
        path = from_spark_path(spark_path)
        file = by_path[path]
        first, header, is_open, splits = 1, b"", False, {}
        for row in same_path:
            splits[row.start] = Split(first, header)
            first += row.lines
            is_open = is_open or row.open
            if not header and row.header is not None:
                header = _header(row)
        form = shape.log_format or ("jsonl" if header.lstrip()[:1] == b"{" else "csv")
        if form == "jsonl":
            splits = {start: split._replace(header=b"") for start, split in splits.items()}
        elif is_open and len(splits) > 1:
            uncut.add(path)
        logs[path] = TaskLog(file.name, file.mapping, shape._replace(log_format=form), splits)
    return logs, uncut


def _first_not_blank(value: Any, blank: str) -> Any:
    from pyspark.sql import functions as f

    first = f.left(value, f.lit(1))
    # Most lines are known by their first character: to trim one costs more than to read it.
    not_blank = ((first != "") & ~first.isin(*blank)) | (f.trim(value, f.lit(blank)) != "")
    return f.min_by(value, f.when(not_blank, f.col(_ORDER))).cast("binary")


def _header(row: Any) -> bytes:
    """The first line of a split that is not blank, without a file's byte order mark."""
    header = bytes(row.header)
    if row.start or row.first_character != _BYTE_ORDER_MARK:
        return header
    header = header.removeprefix(BOM_UTF8)
    return header if header.strip(_BLANK.encode()) else bytes(row.header_after_mark or b"")
