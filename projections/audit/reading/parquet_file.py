"""Opens Parquet files, and compares their counts of rows: one flipped bit can hide most rows of a file.

Checksums of pages are verified where the writer stored them. Proved by tests/audit/io/test_damaged_parquet.py.
"""

from __future__ import annotations

from typing import BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from ledger.errors import BadRecord

DAMAGED: Final = (pa.ArrowException, OSError, UnicodeDecodeError)
"""The errors of PyArrow for damaged files; the last is for a name that is not UTF-8."""


def row_count(file: BinaryIO, source: str) -> int:
    """The rows that the footer counts. Raises `BadRecord` for a damaged file."""
    try:
        return counted_rows(open_parquet(file), source)
    except DAMAGED as error:
        raise as_bad_record(source, error) from None


def open_parquet(file: BinaryIO) -> pq.ParquetFile:
    return pq.ParquetFile(
        file,
        pre_buffer=False,
        # Times of 96 bits, from old writers, exceed the range of nanoseconds since 1970 and would become other times.
        coerce_int96_timestamp_unit="us",
        page_checksum_verification=True,
    )


def counted_rows(parquet: pq.ParquetFile, source: str) -> int:
    metadata = parquet.metadata
    groups = sum(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))
    if metadata.num_rows != groups:
        raise BadRecord(
            f"{source}: the Parquet file is damaged: its footer counts {metadata.num_rows} rows, and its row groups "
            f"{groups}"
        )
    return int(groups)


def as_bad_record(source: str, error: Exception) -> Exception:
    if isinstance(error, OSError) and error.errno is not None:
        return error
    return BadRecord(f"{source}: the Parquet file is damaged or cut off")


def require_rows(source: str, expected: int, rows: int) -> None:
    """Raises `BadRecord` if the rows that were read are not those that the footer counts."""
    if rows != expected:
        raise BadRecord(
            f"{source}: the Parquet file is damaged: its footer counts {expected} rows, and {rows} are there"
        )
