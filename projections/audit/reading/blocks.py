"""A log's bytes in blocks of whole lines: counted, hashed and unpacked.

Proved by tests/audit/io/test_blocks.py.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple, Protocol

import numpy as np

from ledger.errors import BadRecord
from ledger.transfer.lines import CountingStream
from projections.audit.reading.packed import FAULTS, PlainBytes, unpack
from projections.audit.reading.shape import ROW_BYTES_MAX

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_CHUNK: Final = 1 << 20
_FIRST_BLOCK_BYTES: Final = 1 << 16
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
    """Iterate once. `put_back` returns the end of the last block, which then begins the next one. `wants_more`: the
    next block has to hold more than that."""

    def __iter__(self) -> Iterator[LineBlock]: ...

    def put_back(self, data: bytes, lines: int, *, wants_more: bool = True) -> None: ...


def count_lines(data: bytes | bytearray | memoryview, size: int) -> int:
    """The newlines in the first `size` bytes. NumPy counts them in a quarter of the time of `bytes.count`."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8, size) == _NEWLINE))


def _after_lines(data: bytes | bytearray, lines: int) -> int:
    """The place after so many lines, which `data` has. Looks at a part at a time: places take eight times the bytes."""
    start = 0
    while True:
        part = np.frombuffer(data, np.uint8, min(_CHUNK, len(data) - start), start)
        ends = np.flatnonzero(part == _NEWLINE)
        if len(ends) >= lines:
            return start + int(ends[lines - 1]) + 1
        lines -= len(ends)
        start += len(part)


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
        self._lines_wait = False
        """Whether `_carried` holds whole lines, of which the last block had no more room."""
        self._at_end = False
        self._plain: PlainBytes | None = None
        self._damage: Exception | None = None

    def put_back(self, data: bytes, lines: int, *, wants_more: bool = True) -> None:
        self._carried = data + self._carried
        self._next -= lines
        self._lines_wait = not wants_more
        if wants_more:
            # Or else a row of more lines would never be whole.
            self._lines_max = max(LINES_MAX, 2 * lines)

    @property
    def plain(self) -> PlainBytes:
        """The unpacked bytes that no block has yet."""
        if self._plain is None:
            self._plain = unpack(self._raw)
        return self._plain

    @property
    def first_bytes(self) -> bytes:
        """The first bytes, unpacked; none if the data is damaged there."""
        try:
            return bytes(self.plain.stream.peek(4)[:4])
        except FAULTS:
            return b""

    def unpack_into(self, file: BinaryIO) -> None:
        """Writes all bytes that no block has yet. Raises `BadRecord` for damaged data."""
        buffer = bytearray(_CHUNK)
        while (count := self._fill(memoryview(buffer))) or self._damage is not None:
            if self._damage is not None:
                raise self._damage
            file.write(memoryview(buffer)[:count])
        self._read_out()

    def _read_out(self) -> None:
        # Bytes after a packer's last frame belong to the log and to its digest, too.
        while self._raw.read(_CHUNK):
            pass

    def __iter__(self) -> Iterator[LineBlock]:
        buffer = bytearray()
        # Most logs of a folder of thousands are small.
        size_wanted = min(self._size, _FIRST_BLOCK_BYTES)
        while not self._at_end or self._carried:
            carried = len(self._carried)
            # The more of a row is carried, the more is read, so that a row of many blocks is not copied as often.
            wanted = 0 if self._lines_wait else max(size_wanted, carried)
            size_wanted = self._size
            if len(buffer) < carried + wanted + BLOCK_PADDING:
                buffer = bytearray(carried + wanted + BLOCK_PADDING)
            buffer[:carried] = self._carried
            count = 0
            if wanted and not self._at_end:
                count = self._fill(memoryview(buffer)[carried : carried + wanted])
                self._at_end = not count
            size, lines = self._cut(buffer, carried + count)
            if size:
                first = self._next
                self._next += lines
                yield LineBlock(first, lines, buffer, size, self._at_end and not self._carried)
            if self._damage is not None:
                raise self._damage
        self._read_out()

    def _fill(self, view: memoryview) -> int:
        """Reads until `view` is full, or the data ends or is damaged; returns the number of bytes."""
        plain = self.plain
        size = 0
        try:
            while size < len(view) and (count := plain.stream.readinto1(view[size:])):
                size += count
        except FAULTS as error:
            lines = count_lines(view, size) + count_lines(self._carried, len(self._carried))
            self._damage = self._bad(error, self._next + lines)
        return size

    def _bad(self, error: Exception, line: int) -> Exception:
        if isinstance(error, OSError) and error.errno is not None:
            return error
        fault = "ends too early: the file was cut off" if isinstance(error, EOFError) else "is damaged"
        return BadRecord(f"{self._source}: the {self.plain.packing} data, in line {line}, {fault}")

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
        self._lines_wait = lines > lines_max
        if self._lines_wait:
            lines = lines_max
            cut = _after_lines(buffer, lines)
        self._carried = bytes(memoryview(buffer)[cut:size])
        return cut, lines
