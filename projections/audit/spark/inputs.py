"""The files of a log on a cluster. Their first bytes tell their format, as on one machine.

A name without a scheme is a file, folder or pattern of this machine, which executors must reach under the same name; a
name with a scheme (`s3a://…`, `hdfs://…`) is listed through Hadoop. Proved by tests/audit/spark.
"""

from __future__ import annotations

import os
import re
import zlib
from codecs import BOM_UTF8
from collections.abc import Sequence
from contextlib import suppress
from typing import BinaryIO, Final, Literal, NamedTuple
from urllib.parse import unquote

import pyarrow as pa

from ledger.errors import BadRecord
from projections.audit.reading.any_log import SEEKABLE
from projections.audit.reading.fields import ColumnMapping
from projections.audit.reading.files import STDIN, LogFile, log_files, with_path_values
from projections.audit.reading.packed import UTF16, packing_of
from projections.audit.reading.parquet import MAGIC
from projections.audit.reading.parquet_file import DAMAGED, as_bad_record, counted_rows, open_parquet
from projections.audit.reading.shape import LogShape
from projections.audit.reading.strict import RowParser
from projections.audit.reading.text_logs import has_row_lines
from projections.audit.spark.hadoop import Hadoop, hadoop_path, has_scheme

Way = Literal["parquet", "lines", "whole"]
_PACKED_SUFFIXES: Final = (".gz", ".bz2", ".deflate", ".lz4", ".snappy", ".zst", ".zstd")
"""Hadoop unpacks by suffix alone, in capitals or not."""
_HEAD_BYTES: Final = 1 << 16
"""The first bytes of a text, which show its form."""
WHOLE_BYTES_MAX: Final = 64 << 20
"""Gzip files up to this size are unpacked by inforce's own reader, which reports damage as on one machine."""


class Input(NamedTuple):
    """`path`: Hadoop's, in the form of `normal_path`. `schema`: of Parquet, `rows`: as its footer counts them.

    way: "parquet"; "lines" for text that Spark cuts into splits, and unpacks if it is a large gzip file with the right
    suffix; "whole" for text that one task reads as a whole.
    """

    path: str
    file: LogFile
    way: Way
    schema: pa.Schema | None = None
    rows: int | None = None


def check_names(names: Sequence[str], mapping: ColumnMapping) -> None:
    """Raises `BadRecord` for names that are no logs, as far as this machine can tell without a cluster."""
    for name in names:
        if name == STDIN:
            raise BadRecord("a cluster cannot read this machine's standard input; name files")
        for file in () if has_scheme(name) else log_files([name], mapping):
            _check_spark_reads(file.name, hadoop_path(file.name))
            if not os.path.exists(file.name):
                raise BadRecord(f"{file.name}: there is no such file")


def find_inputs(hadoop: Hadoop, names: Sequence[str], mapping: ColumnMapping, shape: LogShape) -> list[Input]:
    """Raises `BadRecord` for a name that is no log and for a damaged Parquet file."""
    inputs: list[Input] = []
    check_names(names, mapping)
    for name in names:
        if has_scheme(name):
            files = [LogFile(path, size, with_path_values(path, mapping)) for path, size in hadoop.list_files(name)]
            if not files:
                raise BadRecord(f"{name}: no log is there")
        else:
            files = log_files([name], mapping)
        inputs += [_input(hadoop, file, shape) for file in files]
    if len({one.path for one in inputs}) != len(inputs):
        raise BadRecord("a log is named twice, and its rows would count twice")
    for one in inputs:
        one.file.mapping.checked_constants()
    return inputs


def _input(hadoop: Hadoop, file: LogFile, shape: LogShape) -> Input:
    path = normal_path(hadoop_path(file.name))
    _check_spark_reads(file.name, path)
    if not hadoop.exists(path):
        raise BadRecord(f"{file.name}: there is no such file")
    with hadoop.reading(path) as stream:
        first_bytes = stream.peek(4)[:4]
        if first_bytes == MAGIC:
            return Input(path, file, "parquet", *_schema_and_rows(stream, file.name))
        head = stream.read(_HEAD_BYTES)
    name = file.name.lower()
    packing = packing_of(first_bytes)
    if packing is not None and packing.name == "gzip":
        is_large = name.endswith(".gz") and (file.size or 0) > WHOLE_BYTES_MAX
        if is_large:
            _require_lines(head, file, shape)
        return Input(path, file, "lines" if is_large else "whole")
    if packing is not None or name.endswith(_PACKED_SUFFIXES) or first_bytes[:2] in UTF16 or first_bytes in SEEKABLE:
        return Input(path, file, "whole")
    if 0 < len(head) < _HEAD_BYTES and not head.endswith(b"\n"):
        head += b"\n"
    return Input(path, file, "lines" if _has_lines(head, file, shape) else "whole")


def _has_lines(head: bytes, file: LogFile, shape: LogShape) -> bool:
    return has_row_lines(head.removeprefix(BOM_UTF8), RowParser(file.name, file.mapping, shape))


def _require_lines(head: bytes, file: LogFile, shape: LogShape) -> None:
    """Raises `BadRecord` for a large gzip file that Spark would unpack and cut into lines, although rows are no lines
    in it. `head`: its first bytes, packed."""
    with suppress(zlib.error):
        # The reader of the whole file reports damage.
        plain = zlib.decompressobj(wbits=31).decompress(head, _HEAD_BYTES)
        if plain[:4] in SEEKABLE or plain[:2] in UTF16 or not _has_lines(plain, file, shape):
            raise BadRecord(
                f"{file.name}: a cluster reads a gzip file of more than {WHOLE_BYTES_MAX} bytes only if it holds JSON "
                "Lines or CSV with commas; unpack it, or audit it without --engine spark"
            )


def _check_spark_reads(name: str, path: str) -> None:
    """Raises `BadRecord` for the file names that Spark skips without a word."""
    last = path.rpartition("/")[2]
    if last.startswith((".", "_")) or last.endswith("._COPYING_"):
        raise BadRecord(f"{name}: Spark skips names that begin with . or _ and files being copied; rename the file")
    if path.startswith("file:") and ":" in last:
        raise BadRecord(f"{name}: Hadoop reads no file of this machine with a colon in its name; rename the file")


def _schema_and_rows(stream: BinaryIO, name: str) -> tuple[pa.Schema, int]:
    """The file's columns, and the rows that its footer counts. Spark reads INT96 in microseconds, not in
    nanoseconds."""
    try:
        parquet = open_parquet(stream)
        columns = (parquet.schema.column(number) for number in range(len(parquet.schema)))
        int96 = {column.path for column in columns if column.physical_type == "INT96"}
        schema = parquet.schema_arrow
    except DAMAGED as error:
        raise as_bad_record(name, error) from None
    plain = pa.schema([field.with_type(pa.timestamp("us")) if field.name in int96 else field for field in schema])
    return plain, counted_rows(parquet, name)


def from_spark_path(path: str) -> str:
    """The `normal_path` of an escaped path in Spark's column `_metadata`."""
    return normal_path(unquote(path))


def normal_path(path: str) -> str:
    """The path with one slash after `file:`, where some programs write three."""
    return re.sub(r"^file:/+", "file:/", path)
