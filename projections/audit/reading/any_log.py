"""One log, whatever it is: text, a spreadsheet or Parquet, packed or not. Proved by tests/audit/io/test_shapes.py."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import BinaryIO, Final

from projections.audit.reading import parquet, spreadsheets, text_logs
from projections.audit.reading.batches import LogBatch
from projections.audit.reading.blocks import LineBlocks
from projections.audit.reading.strict import RowParser

SEEKABLE: Final = (parquet.MAGIC, spreadsheets.MAGIC)
"""The first bytes of files that have their table of contents at their end."""


def read_seekable(file: BinaryIO, parser: RowParser, batch_rows: int = parquet.BATCH_ROWS) -> Iterator[LogBatch]:
    """The rows of a file that begins with one of SEEKABLE."""
    file.seek(0)
    magic = file.read(len(parquet.MAGIC))
    file.seek(0)
    parser.form = "Parquet" if magic == parquet.MAGIC else "a spreadsheet"
    if magic == parquet.MAGIC:
        yield from parquet.read_batches(file, parser, batch_rows)
    else:
        yield from text_logs.strict_batches(spreadsheets.read_rows(file, parser), parser)


def read_bytes(blocks: LineBlocks, parser: RowParser, strict_bytes: int = text_logs.STRICT_BYTES) -> Iterator[LogBatch]:
    """The rows of a log that is text, or that is packed."""
    if blocks.first_bytes in SEEKABLE:
        with tempfile.TemporaryFile() as file:
            blocks.unpack_into(file)
            yield from read_seekable(file, parser)
    else:
        yield from text_logs.read_batches(blocks, parser, strict_bytes)
