"""All logs of an audit, one after the other, as parts: what is in a file is told by its first bytes.

Every byte goes into one SHA-256, file by file in order: what `cat LOG... | sha256sum` says. Proved by
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
from projections.audit.reading import parquet, text_logs
from projections.audit.reading.batches import LogBatch
from projections.audit.reading.blocks import HashingStream, LineBlocks
from projections.audit.reading.files import STDIN, LogFile
from projections.audit.reading.lines import CountingStream
from projections.audit.reading.strict import LogFormat, RowParser

_CHUNK: Final = 1 << 20
_MUCH: Final = 8
"""Of logs that have so many times as many bytes as are read strictly at first, none are."""


class Source(NamedTuple):
    """A log that was read to its end."""

    name: str
    bytes: int


class LogReader:
    """Iterate once. `sources`, `digest` and `warnings` are whole when that has ended."""

    def __init__(
        self,
        files: Sequence[LogFile],
        log_format: LogFormat | None = None,
        *,
        block_bytes: int = text_logs.BLOCK_BYTES,
        batch_rows: int = parquet.BATCH_ROWS,
        strict_bytes: int = text_logs.STRICT_BYTES,
        stdin: Callable[[], BinaryIO] | None = None,
    ) -> None:
        self.sources: list[Source] = []
        self.warnings: list[str] = []
        """Where a named column was on no line: it would pass for a log that never says anything against anybody."""
        self._files = files
        self._format = log_format
        self._block_bytes = block_bytes
        self._batch_rows = batch_rows
        self._strict_bytes = strict_bytes
        self._stdin = stdin or _standard_input
        self._digest = hashlib.sha256()
        self._hashed: HashingStream | None = None
        self._before = 0

    @property
    def bytes_read(self) -> int:
        """Of the files as they lie. Of a Parquet file, which is not read from end to end, as a share of its rows."""
        return self._before + (0 if self._hashed is None else self._hashed.count)

    @property
    def size(self) -> int | None:
        """Bytes of all, if that can be known before."""
        return None if any(file.size is None for file in self._files) else sum(file.size or 0 for file in self._files)

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[LogBatch]:
        for file in self._files:
            rows = RowParser(file.name, file.mapping)
            with self._opened(file) as stream:
                before = _stamp(stream)
                yield from self._parts(stream, rows)
                if _stamp(stream) != before:
                    raise BadRecord(f"{file.name}: the log was changed while it was read; audit it once it is whole")
            self.warnings += [f"{file.name}: no line had the column that was named for {f}" for f in rows.unseen]

    def _parts(self, stream: BinaryIO, rows: RowParser) -> Iterator[LogBatch]:
        begins = stream.peek(4)[:4]  # type: ignore[attr-defined]  # see _opened
        if begins == parquet.MAGIC:
            with _seekable(stream) as file:
                size = self._hash(file)
                count, done = parquet.row_count(file, rows.source), 0
                for part in parquet.read_batches(file, rows, self._batch_rows):
                    yield part
                    done += part.rows
                    self._before += size * done // count - size * (done - part.rows) // count
                self.sources.append(Source(rows.source, size))
            return
        self._hashed = HashingStream(stream, self._digest)
        blocks = LineBlocks(self._hashed, rows.source, self._block_bytes)
        yield from text_logs.read_batches(blocks, rows, self._format, self._strictly())
        self.sources.append(Source(rows.source, self._hashed.count))
        self._before, self._hashed = self.bytes_read, None

    def _strictly(self) -> int:
        """How many bytes of the next log are read by the strict reader alone (see `text_logs.STRICT_BYTES`)."""
        if self.size is not None and self.size > _MUCH * self._strict_bytes:
            return 0
        return max(0, self._strict_bytes - self._before)

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
            # Of a pipe, whose first bytes may come one by one, all that tell what it is.
            raw = stream if stream.seekable() else CountingStream(stream)
            buffered = io.BufferedReader(raw)  # type: ignore[type-var]  # whatever stands in for standard input
            yield buffered
            # It is the caller's to close.
            buffered.detach()
            return
        with Path(file.name).open("rb") as stream:
            yield stream


def _standard_input() -> BinaryIO:
    """Not `sys.stdin.buffer`, whose lock a thread that still reads would take into the end of the interpreter."""
    buffered = sys.stdin.buffer
    return getattr(buffered, "raw", buffered)


@contextmanager
def _seekable(stream: BinaryIO) -> Iterator[BinaryIO]:
    """Parquet ends with where everything is: what comes through a pipe is laid down first."""
    if stream.seekable():
        yield stream
        return
    with tempfile.TemporaryFile() as file:
        while chunk := stream.read(_CHUNK):
            file.write(chunk)
        yield file


def _stamp(stream: BinaryIO) -> tuple[int, int] | None:
    try:
        status = os.fstat(stream.fileno())
    except (OSError, AttributeError, ValueError):
        return None
    # A pipe's change with every byte.
    return (status.st_size, status.st_mtime_ns) if stream.seekable() else None
