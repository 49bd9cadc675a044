"""A log's bytes as they come, counted and hashed, unpacked (gzip, zstd: told by their first bytes), in whole lines.

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
from projections.audit.reading.lines import LINE_BYTES_MAX, CountingStream

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

GZIP: Final = b"\x1f\x8b"
ZSTD: Final = b"\x28\xb5\x2f\xfd"
_CHUNK: Final = 1 << 20
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_NEWLINE: Final = 10
BEHIND: Final = 64
"""At least so many bytes are behind the lines of a block of `LineBlocks`."""
_SHOWN_LINE_MAX: Final = LINE_BYTES_MAX + 16
"""Of a line that is too long this much is kept, which is still too long."""


class HashingStream(CountingStream):
    """A stream whose every byte goes into `digest` as well. Closing it leaves the stream open."""

    def __init__(self, stream: BinaryIO, digest: hashlib._Hash) -> None:
        super().__init__(stream)
        self._digest = digest

    def readinto(self, buffer: WriteableBuffer) -> int:
        taken = super().readinto(buffer)
        self._digest.update(memoryview(buffer)[:taken])
        return taken


class LineBlock(NamedTuple):
    """`data[:size]` are so many whole `lines`, each with its newline; what stands behind them is of no meaning. `first`
    counts from 1. `last`: nothing comes behind it. The data is right until the next block is asked for."""

    first: int
    lines: int
    data: bytes | bytearray
    size: int
    last: bool


class BlockSource(Protocol):
    """Iterate once. `put_back` hands the end of the last block in again, to be the beginning of the next one."""

    def __iter__(self) -> Iterator[LineBlock]: ...

    def put_back(self, data: bytes, lines: int) -> None: ...


def newlines(data: bytes | bytearray, size: int) -> int:
    """In the first `size` bytes. NumPy's count takes a quarter of the time of that of bytes."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8, size) == _NEWLINE))


class LineBlocks:
    """A `BlockSource` of a stream of bytes, all in the same memory.

    Raises `BadRecord` where packed data is damaged or cut off: what followed is unknown.
    """

    def __init__(self, stream: io.RawIOBase | io.BytesIO, source: str, size: int) -> None:
        self._raw = io.BufferedReader(stream, _CHUNK)
        self._source = source
        self._size = size
        self._kept = b""
        self._next = 1
        self._over = False
        self._passing_over = False

    def put_back(self, data: bytes, lines: int) -> None:
        self._kept = data + self._kept
        self._next -= lines

    def __iter__(self) -> Iterator[LineBlock]:
        try:
            unpacked = self._unpacked()
            begins = unpacked.read(len(_BYTE_ORDER_MARK))
            self._kept = b"" if begins == _BYTE_ORDER_MARK else begins
            room = bytearray()
            while not self._over or self._kept:
                kept = len(self._kept)
                if len(room) < kept + self._size + BEHIND:
                    room = bytearray(kept + self._size + BEHIND)
                room[:kept] = self._kept
                size = self._whole_lines(room, kept + self._more(unpacked, room, kept))
                if size:
                    first, lines = self._next, newlines(room, size)
                    self._next += lines
                    yield LineBlock(first, lines, room, size, self._over)
            # What a packer may have left behind its last frame belongs to the bytes of the log, too.
            while self._raw.read(_CHUNK):
                pass
        except EOFError:
            raise BadRecord(
                f"{self._source}: the gzip data ends too early, after line {self._next - 1}; the file was cut off"
            ) from None
        except (gzip.BadGzipFile, zlib.error):
            raise BadRecord(f"{self._source}: the gzip data is damaged after line {self._next - 1}") from None
        except (pa.ArrowException, _Cut) as error:
            what = "ends too early" if isinstance(error, _Cut) or "runcated" in str(error) else "is damaged"
            raise BadRecord(
                f"{self._source}: the zstd data {what}, after line {self._next - 1}; the file was cut off or damaged"
            ) from None

    def _more(self, unpacked: Any, room: bytearray, kept: int) -> int:
        """How many bytes more are in `room`, from `kept` on."""
        count = 0 if self._over else int(unpacked.readinto(memoryview(room)[kept : kept + self._size]))
        self._over = self._over or not count
        if self._passing_over:
            at = room.find(b"\n", kept, kept + count)
            rest = room[at : kept + count] if at >= 0 else b""
            count = len(rest)
            room[kept : kept + count] = rest
            self._passing_over = at < 0 and not self._over
        return count

    def _whole_lines(self, room: bytearray, size: int) -> int:
        """How many of the `size` bytes in `room` are whole lines; what is left over is kept."""
        if self._over:
            self._kept = b""
            if size and room[size - 1] != _NEWLINE:
                room[size] = _NEWLINE
                return size + 1
            return size
        cut = room.rfind(b"\n", 0, size) + 1
        if size - cut > _SHOWN_LINE_MAX:
            size, self._passing_over = cut + _SHOWN_LINE_MAX, True
        self._kept = bytes(room[cut:size])
        return cut

    def _unpacked(self) -> Any:
        begins = self._raw.peek(4)[:4]
        if begins[:2] == GZIP:
            return io.BufferedReader(gzip.GzipFile(fileobj=self._raw), _CHUNK)
        return _Zstd(self._raw) if begins == ZSTD else self._raw


class _Cut(Exception):
    """Zstd data that ends within a frame."""


class _Zstd:
    """Zstd frames, unpacked; at their end it is made sure that they had one."""

    def __init__(self, raw: Any) -> None:
        self._stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")

    def read(self, count: int) -> bytes:
        try:
            read: bytes = self._stream.read(count)
        except OSError as error:
            raise (_Cut() if "runcated" in str(error) else pa.ArrowInvalid(str(error))) from None
        return read

    def readinto(self, buffer: memoryview) -> int:
        read = self.read(len(buffer))
        buffer[: len(read)] = read
        return len(read)
