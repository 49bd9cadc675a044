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

import pyarrow as pa

from ledger.errors import BadRecord
from projections.audit.lines import LINE_BYTES_MAX, Counted

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

GZIP: Final = b"\x1f\x8b"
ZSTD: Final = b"\x28\xb5\x2f\xfd"
_CHUNK: Final = 1 << 20
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_SHOWN_LINE_MAX: Final = LINE_BYTES_MAX + 16
"""Of a line that is too long this much is kept, which is still too long."""


class Hashed(Counted):
    """A stream whose every byte goes into `digest` as well. Closing it leaves the stream open."""

    def __init__(self, stream: BinaryIO, digest: hashlib._Hash) -> None:
        super().__init__(stream)
        self._digest = digest

    def readinto(self, buffer: WriteableBuffer) -> int:
        taken = super().readinto(buffer)
        self._digest.update(memoryview(buffer)[:taken])
        return taken


class Block(NamedTuple):
    """Whole lines, each with its newline; `first` counts from 1. `last`: nothing comes behind it."""

    first: int
    data: bytes
    last: bool


class BlockSource(Protocol):
    """Iterate once. `put_back` hands the end of the last block in again, to be the beginning of the next one."""

    def __iter__(self) -> Iterator[Block]: ...

    def put_back(self, data: bytes, lines: int) -> None: ...


class Blocks:
    """A `BlockSource` of a stream of bytes.

    Raises `BadRecord` where packed data is damaged or cut off: what followed is unknown.
    """

    def __init__(self, stream: io.RawIOBase | io.BytesIO, source: str, size: int) -> None:
        self._raw = io.BufferedReader(stream, _CHUNK)
        self._source = source
        self._size = size
        self._kept = b""
        self._next = 1
        self._over = False

    def put_back(self, data: bytes, lines: int) -> None:
        self._kept = data + self._kept
        self._next -= lines

    def __iter__(self) -> Iterator[Block]:
        unpacked: Any = None
        passing_over = False
        try:
            unpacked = self._unpacked()
            if self._peeked(unpacked, 3) == _BYTE_ORDER_MARK:
                unpacked.read(3)
            while not self._over or self._kept:
                read = b"" if self._over else unpacked.read(self._size)
                self._over = self._over or not read
                if passing_over:
                    at = read.find(b"\n")
                    read = read[at:] if at >= 0 else b""
                    passing_over = at < 0 and not self._over
                data = self._kept + read
                if self._over:
                    self._kept = b""
                    if data and not data.endswith(b"\n"):
                        data += b"\n"
                else:
                    cut = data.rfind(b"\n") + 1
                    data, self._kept = data[:cut], data[cut:]
                    if len(self._kept) > _SHOWN_LINE_MAX:
                        self._kept, passing_over = self._kept[:_SHOWN_LINE_MAX], True
                if data:
                    first = self._next
                    self._next += data.count(b"\n")
                    yield Block(first, data, self._over)
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

    def _unpacked(self) -> Any:
        begins = self._raw.peek(4)[:4]
        if begins[:2] == GZIP:
            return io.BufferedReader(gzip.GzipFile(fileobj=self._raw), _CHUNK)
        return _Zstd(self._raw) if begins == ZSTD else self._raw

    @staticmethod
    def _peeked(unpacked: Any, count: int) -> bytes:
        peeked: bytes = unpacked.peek(count)[:count]
        return peeked


class _Cut(Exception):
    """Zstd data that ends within a frame."""


class _Zstd:
    """Zstd frames, unpacked; at their end it is made sure that they had one."""

    def __init__(self, raw: Any) -> None:
        self._stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
        self._waiting = b""

    def peek(self, count: int) -> bytes:
        if len(self._waiting) < count:
            self._waiting += self.read(_CHUNK)
        return self._waiting

    def read(self, count: int) -> bytes:
        if self._waiting:
            taken, self._waiting = self._waiting[:count], self._waiting[count:]
            return taken
        try:
            read: bytes = self._stream.read(count)
        except OSError as error:
            raise (_Cut() if "runcated" in str(error) else pa.ArrowInvalid(str(error))) from None
        return read
