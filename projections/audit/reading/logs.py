"""All logs of an audit, one after the other, as batches. A log's first bytes tell its format.

All bytes go into one SHA-256, file by file in order, as `cat LOG... | sha256sum` computes it. Proved by
tests/audit/io/test_logs.py.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from ledger.errors import BadRecord
from ledger.transfer.lines import CountingStream
from projections.audit.reading import parquet, text_logs
from projections.audit.reading.any_log import SEEKABLE, read_bytes, read_seekable
from projections.audit.reading.batches import LogBatch, as_mapped
from projections.audit.reading.blocks import HashingStream, LineBlocks
from projections.audit.reading.column_notes import ColumnNotes
from projections.audit.reading.files import STDIN, LogFile
from projections.audit.reading.parquet_file import row_count
from projections.audit.reading.shape import ANY_SHAPE, LogShape
from projections.audit.reading.strict import RowParser

_CHUNK: Final = 1 << 20
_MUCH_LARGER: Final = 8
"""Logs this many times as large as `strict_bytes` begin with the fast reader at once."""


class Source(NamedTuple):
    """A log that was read to its end."""

    name: str
    bytes: int


class LogReader:
    """Iterate once. `sources`, `digest` and `warnings` are complete when the iteration has ended."""

    def __init__(
        self,
        files: Sequence[LogFile],
        shape: LogShape = ANY_SHAPE,
        *,
        block_bytes: int = text_logs.BLOCK_BYTES,
        batch_rows: int = parquet.BATCH_ROWS,
        strict_bytes: int = text_logs.STRICT_BYTES,
        stdin: Callable[[], BinaryIO] | None = None,
    ) -> None:
        self.sources: list[Source] = []
        self.warnings: list[str] = []
        """The columns that were named and are missing in some logs, and those that were ignored, once for all logs that
        have the same ones."""
        self._files = files
        self._shape = shape
        self._block_bytes = block_bytes
        self._batch_rows = batch_rows
        self._strict_bytes = strict_bytes
        self._stdin = stdin or _standard_input
        self._digest = hashlib.sha256()
        self._hashing: HashingStream | None = None
        self._bytes_before = 0

    @property
    def bytes_read(self) -> int:
        """Bytes of the stored files. Parquet is not read from end to end: there it is a share by rows."""
        return self._bytes_before + (0 if self._hashing is None else self._hashing.count)

    @property
    def size(self) -> int | None:
        """Bytes of all logs, unless one is a stream."""
        return None if any(file.size is None for file in self._files) else sum(file.size or 0 for file in self._files)

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[LogBatch]:
        notes, with_records = ColumnNotes(), set[str]()
        for file in self._files:
            parser = RowParser(file.name, file.mapping, self._shape)
            has_record = False
            with self._opened(file) as stream:
                before = _stamp(stream)
                for batch in self._batches(stream, parser):
                    has_record = has_record or len(batch.lines) > 0
                    yield as_mapped(batch, file.mapping)
                if _stamp(stream) != before:
                    raise BadRecord(f"{file.name}: the log was changed while it was read; audit it once it is whole")
            if has_record:
                with_records.add(file.name)
            notes.add(parser, with_records.__contains__)
        self.warnings = notes.warnings()

    def _batches(self, stream: BinaryIO, parser: RowParser) -> Iterator[LogBatch]:
        first_bytes = stream.peek(4)[:4]  # type: ignore[attr-defined]  # see _opened
        if first_bytes in SEEKABLE:
            with _seekable(stream) as file:
                size = self._hash(file)
                count = row_count(file, parser.source) if first_bytes == parquet.MAGIC else 0
                before, done = self._bytes_before, 0
                for batch in read_seekable(file, parser, self._batch_rows):
                    yield batch
                    done += batch.rows
                    self._bytes_before = before + (size * done // count if count else 0)
                self._bytes_before = before + size
                self.sources.append(Source(parser.source, size))
            return
        self._hashing = HashingStream(stream, self._digest)
        blocks = LineBlocks(self._hashing, parser.source, self._block_bytes, self._shape.row_bytes_max)
        yield from read_bytes(blocks, parser, self._next_strict_bytes())
        self.sources.append(Source(parser.source, self._hashing.count))
        self._bytes_before, self._hashing = self.bytes_read, None

    def _next_strict_bytes(self) -> int:
        """The bytes of the next log that only the strict reader reads (see `text_logs.STRICT_BYTES`)."""
        if self.size is not None and self.size > _MUCH_LARGER * self._strict_bytes:
            return 0
        return max(0, self._strict_bytes - self._bytes_before)

    def _hash(self, file: Any) -> int:
        file.seek(0)
        size = 0
        while chunk := file.read(_CHUNK):
            self._digest.update(chunk)
            size += len(chunk)
        file.seek(0)
        return size

    @contextmanager
    def _opened(self, file: LogFile) -> Iterator[BinaryIO]:
        if file.name == STDIN:
            stream = self._stdin()
            if hasattr(stream, "peek"):
                yield stream
                return
            # A pipe may deliver its first bytes one by one: wait for all that tell the format.
            raw = stream if stream.seekable() else CountingStream(stream)
            buffered = io.BufferedReader(raw)  # type: ignore[type-var]  # any stream that replaces standard input
            yield buffered
            # Closing the stream is up to the caller.
            buffered.detach()
            return
        with Path(file.name).open("rb") as stream:
            yield stream


def _standard_input() -> BinaryIO:
    """The raw stream: at the interpreter's end a thread that still reads would hold the lock of `sys.stdin.buffer`."""
    buffered = sys.stdin.buffer
    return getattr(buffered, "raw", buffered)


@contextmanager
def _seekable(stream: BinaryIO) -> Iterator[BinaryIO]:
    """Stores a pipe in a temporary file: a Parquet file has its table of contents at its end."""
    if stream.seekable():
        yield stream
        return
    with tempfile.TemporaryFile() as file:
        while chunk := stream.read(_CHUNK):
            file.write(chunk)
        yield file


def _stamp(stream: BinaryIO) -> tuple[int, int] | None:
    """(bytes, time of the last change) of a file; None for a pipe, where both change with every byte."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, AttributeError, ValueError):
        return None
    return (status.st_size, status.st_mtime_ns) if stream.seekable() else None
