"""The files of a log, each told apart by its first bytes, as on one machine.

A name without a scheme is a file, folder or pattern of this machine, which must be where executors see it, too; one
with a scheme (`s3a://…`, `hdfs://…`) is listed through Hadoop. Proved by tests/audit/spark.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from ledger.errors import BadRecord
from projections.audit.reading.blocks import GZIP, ZSTD
from projections.audit.reading.fields import ColumnMapping
from projections.audit.reading.files import STDIN, LogFile, log_files, with_path_values
from projections.audit.reading.parquet import MAGIC
from projections.audit.spark.hadoop import Hadoop, hadoop_path, has_scheme

Way = Literal["parquet", "lines", "whole"]
_PACKED_BY_NAME: Final = (".gz", ".bz2", ".deflate", ".lz4", ".snappy", ".zst", ".zstd")
"""Hadoop unpacks by a name's end alone, whether it is in capitals or not."""
WHOLE_BYTES_MAX: Final = 64 << 20
"""So much of gzip is unpacked as one machine does: what is damaged is said in the same words."""


class Input(NamedTuple):
    """`path`: as Hadoop has it. `way`: Parquet; texts that Spark cuts into stretches of lines, and unpacks where they
    are much gzip and the name says so; texts that one task reads as a whole. `schema`: of Parquet."""

    path: str
    file: LogFile
    way: Way
    schema: pa.Schema | None = None


def check_names(names: Sequence[str], mapping: ColumnMapping) -> None:
    """Raises `BadRecord` for what is no log, as far as that can be told without a cluster."""
    for name in names:
        if name == STDIN:
            raise BadRecord("a cluster cannot read this machine's standard input; name files")
        for file in () if has_scheme(name) else log_files([name], mapping):
            _must_be_seen(file.name, hadoop_path(file.name))
            if not os.path.exists(file.name):
                raise BadRecord(f"{file.name}: there is no such file")


def inputs(hadoop: Hadoop, names: Sequence[str], mapping: ColumnMapping) -> list[Input]:
    """Raises `BadRecord` where a name stands for no log, or a file is damaged so that it shows here."""
    found: list[Input] = []
    check_names(names, mapping)
    for name in names:
        if has_scheme(name):
            listed = [LogFile(path, size, with_path_values(path, mapping)) for path, size in hadoop.listed(name)]
            if not listed:
                raise BadRecord(f"{name}: no log is there")
        else:
            listed = log_files([name], mapping)
        found += [_input(hadoop, file) for file in listed]
    if len({normal_path(one.path) for one in found}) != len(found):
        raise BadRecord("a log is named twice, and its rows would count twice")
    for one in found:
        one.file.mapping.checked_constants()
    return found


def _input(hadoop: Hadoop, file: LogFile) -> Input:
    path = hadoop_path(file.name)
    _must_be_seen(file.name, path)
    if not hadoop.exists(path):
        raise BadRecord(f"{file.name}: there is no such file")
    with hadoop.reading(path) as stream:
        begins = stream.peek(4)[:4]
        if begins == MAGIC:
            return Input(path, file, "parquet", _schema(stream, file.name))
    pack = file.name.lower().endswith(_PACKED_BY_NAME)
    if begins[: len(GZIP)] == GZIP:
        much = file.name.lower().endswith(".gz") and (file.size or 0) > WHOLE_BYTES_MAX
        return Input(path, file, "lines" if much else "whole")
    return Input(path, file, "whole" if pack or begins == ZSTD else "lines")


def _must_be_seen(name: str, path: str) -> None:
    """Spark passes over some files without a word, whoever names them."""
    last = path.rpartition("/")[2]
    if last.startswith((".", "_")) or last.endswith("._COPYING_"):
        raise BadRecord(f"{name}: Spark passes over what begins with . or _ or is being copied; give it another name")
    if path.startswith("file:") and ":" in last:
        raise BadRecord(f"{name}: Hadoop reads no file of this machine with a colon in its name; give it another")


def _schema(stream: object, name: str) -> pa.Schema:
    """What the file's columns are. INT96 is of Spark's own microseconds there, not of nanoseconds."""
    try:
        parquet = pq.ParquetFile(stream, pre_buffer=False)
    except (pa.ArrowException, OSError):
        raise BadRecord(f"{name}: the Parquet file is damaged or cut off") from None
    columns = (parquet.schema.column(number) for number in range(len(parquet.schema)))
    old = {column.path for column in columns if column.physical_type == "INT96"}
    schema = parquet.schema_arrow
    fields = [field.with_type(pa.timestamp("us")) if field.name in old else field for field in schema]
    return pa.schema(fields)


def from_spark_path(path: str) -> str:
    """A path of `_metadata`, which is escaped, to be compared with `normal_path`."""
    return normal_path(unquote(path))


def normal_path(path: str) -> str:
    """With one slash where some say three."""
    return re.sub(r"^file:/+", "file:/", path)
