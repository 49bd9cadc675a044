"""A log's bytes in blocks of whole lines: counted, hashed and unpacked (gzip or zstd, by its first bytes).

Proved by tests/audit/io/test_blocks.py.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from ledger.errors import BadRecord
from ledger.transfer.lines import CountingStream
from projections.audit.reading.shape import ROW_BYTES_MAX

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

GZIP: Final = b"\x1f\x8b"
ZSTD: Final = b"\x28\xb5\x2f\xfd"
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_CHUNK: Final = 1 << 20
_NEWLINE: Final = 10
BLOCK_PADDING: Final = 64
"""A block of `LineBlocks` has at least this many bytes after its lines, for loops that read eight bytes at a time."""
LINES_MAX: Final = 1 << 18
"""The most lines of a block: the compiled loops take some 200 bytes for each."""


class HashingStream(CountingStream):
    """A counting stream whose bytes also go into `digest`."""

    def __init__(self, stream: BinaryIO, digest: hashlib._Hash) -> None:
        super().__init__(stream)
        self._digest = digest

    def readinto(self, buffer: WriteableBuffer) -> int:
        size = super().readinto(buffer)
        self._digest.update(memoryview(buffer)[:size])
        return size


class LineBlock(NamedTuple):
    """`data[:size]` holds `lines` whole lines, each with its newline; bytes after them mean nothing. `first`: number of
    the first line, from 1. `last`: no block follows. `data` is valid until the next block is read.

    A line that is larger than a row may be is cut: a block without a newline holds a part of it, and `lines` is 0.
    """

    first: int
    lines: int
    data: bytes | bytearray
    size: int
    last: bool


class BlockSource(Protocol):
    """Iterate once. `put_back` returns the end of the last block, which then begins the next one."""

    def __iter__(self) -> Iterator[LineBlock]: ...

    def put_back(self, data: bytes, lines: int) -> None: ...


def count_lines(data: bytes | bytearray, size: int) -> int:
    """The newlines in the first `size` bytes. NumPy counts them in a quarter of the time of `bytes.count`."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8, size) == _NEWLINE))


class LineBlocks:
    """A `BlockSource` of a byte stream. All blocks share one buffer.

    Raises `BadRecord` if packed data is damaged or cut off, because the rest is unknown.
    """

    def __init__(
        self, stream: io.RawIOBase | io.BytesIO, source: str, size: int, row_bytes_max: int = ROW_BYTES_MAX
    ) -> None:
        self._raw = io.BufferedReader(stream, _CHUNK)
        self._source = source
        self._size = size
        self._row_bytes_max = row_bytes_max
        self._carried = b""
        self._next = 1
        self._lines_max = LINES_MAX
        self._at_end = False

    def put_back(self, data: bytes, lines: int) -> None:
        self._carried = data + self._carried
        self._next -= lines
        # Or else a row of more lines would never be whole.
        self._lines_max = max(LINES_MAX, 2 * lines)

    def __iter__(self) -> Iterator[LineBlock]:
        try:
            unpacked = self._unpacked()
            first_bytes = unpacked.read(len(BYTE_ORDER_MARK))
            self._carried = b"" if first_bytes == BYTE_ORDER_MARK else first_bytes
            buffer = bytearray()
            while not self._at_end or self._carried:
                carried = len(self._carried)
                # The more is carried, the more is read, so that a row of many blocks is not copied as often.
                wanted = max(self._size, carried)
                if len(buffer) < carried + wanted + BLOCK_PADDING:
                    buffer = bytearray(carried + wanted + BLOCK_PADDING)
                buffer[:carried] = self._carried
                count = 0 if self._at_end else int(unpacked.readinto(memoryview(buffer)[carried : carried + wanted]))
                self._at_end = self._at_end or not count
                size, lines = self._cut(buffer, carried + count)
                if size:
                    first = self._next
                    self._next += lines
                    yield LineBlock(first, lines, buffer, size, self._at_end and not self._carried)
            # Bytes after a packer's last frame belong to the log and to its digest, too.
            while self._raw.read(_CHUNK):
                pass
        except EOFError:
            raise BadRecord(
                f"{self._source}: the gzip data ends too early, after line {self._next - 1}; the file was cut off"
            ) from None
        except (gzip.BadGzipFile, zlib.error):
            raise BadRecord(f"{self._source}: the gzip data is damaged after line {self._next - 1}") from None
        except (pa.ArrowException, _ZstdCutOff) as error:
            what = "ends too early" if isinstance(error, _ZstdCutOff) or "runcated" in str(error) else "is damaged"
            raise BadRecord(
                f"{self._source}: the zstd data {what}, after line {self._next - 1}; the file was cut off or damaged"
            ) from None

    def _cut(self, buffer: bytearray, size: int) -> tuple[int, int]:
        """(bytes, lines) of the next block, of the first `size` bytes; carries the rest over to the one after."""
        if self._at_end and size and buffer[size - 1] != _NEWLINE:
            buffer[size] = _NEWLINE
            size += 1
        cut = buffer.rfind(b"\n", 0, size) + 1
        if not cut and size > self._row_bytes_max:
            self._carried = b""
            return size, 0
        lines, lines_max, self._lines_max = count_lines(buffer, cut), self._lines_max, LINES_MAX
        if lines > lines_max:
            lines = lines_max
            cut = int(np.flatnonzero(np.frombuffer(buffer, np.uint8, cut) == _NEWLINE)[lines - 1]) + 1
        self._carried = bytes(memoryview(buffer)[cut:size])
        return cut, lines

    def _unpacked(self) -> Any:
        first_bytes = self._raw.peek(len(ZSTD))[: len(ZSTD)]
        if first_bytes[:2] == GZIP:
            return io.BufferedReader(gzip.GzipFile(fileobj=self._raw), _CHUNK)
        return _ZstdReader(self._raw) if first_bytes == ZSTD else self._raw


class _ZstdCutOff(Exception):
    """The zstd data ends within a frame."""


class _ZstdReader:
    """Unpacks zstd frames; fails if the last one has no end."""

    def __init__(self, raw: Any) -> None:
        self._stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")

    def read(self, count: int) -> bytes:
        try:
            data: bytes = self._stream.read(count)
        except OSError as error:
            raise (_ZstdCutOff() if "runcated" in str(error) else pa.ArrowInvalid(str(error))) from None
        return data

    def readinto(self, buffer: memoryview) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
