"""The physical lines of a log from a file or a pipe, gzip or plain (told by its first bytes), as they come.

A log is untrusted: a line has at most 1 MiB, whatever a gzip file unfolds to. A longer one is passed over and said to
be too long, so that one bad line costs one line. Proved by tests/test_audit_records.py.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from ledger.errors import BadRecord

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LINE_BYTES_MAX: Final = 1024 * 1024
_GZIP: Final = b"\x1f\x8b"
_CHUNK: Final = 1 << 18
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_TELLING: Final = 4
"""By so many bytes at its beginning it is told what a log is."""


class RawLine(NamedTuple):
    """`number` counts from 1, blank lines included, as editors do. `text` None: longer than `LINE_BYTES_MAX`."""

    number: int
    text: bytes | None


class CountingStream(io.RawIOBase):
    """A stream, counting the bytes taken from it. Closing it leaves the stream open: it is the caller's.

    What is taken first is enough to tell by what the log is, however little a pipe hands over at a time.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        taken = self._taken(view)
        while 0 < self.count + taken < _TELLING and (more := self._taken(view[taken:])):
            taken += more
        self.count += taken
        return taken

    def _taken(self, view: memoryview) -> int:
        into = getattr(self._stream, "readinto1", None)
        if into is not None:
            return int(into(view))
        chunk = getattr(self._stream, "read1", self._stream.read)(len(view))
        view[: len(chunk)] = chunk
        return len(chunk)


def raw_lines(counted: CountingStream, source: str) -> Iterator[RawLine]:
    """Lines without their ends. Raises `BadRecord` where gzip data is damaged or cut off: what followed is unknown."""
    number = 0
    try:
        raw = io.BufferedReader(counted, _CHUNK)
        packed = raw.peek(2)[:2] == _GZIP
        plain = io.BufferedReader(gzip.GzipFile(fileobj=raw), _CHUNK) if packed else raw
        if plain.peek(3)[:3] == _BYTE_ORDER_MARK:
            plain.read(3)
        while line := plain.readline(LINE_BYTES_MAX + 2):
            number += 1
            text = line.rstrip(b"\r\n")
            if len(text) <= LINE_BYTES_MAX:
                yield RawLine(number, text)
                continue
            while line and not line.endswith(b"\n"):
                line = plain.readline(LINE_BYTES_MAX)
            yield RawLine(number, None)
    except EOFError:
        raise BadRecord(f"{source}: the gzip data ends too early, after line {number}; the file was cut off") from None
    except (gzip.BadGzipFile, zlib.error):
        raise BadRecord(f"{source}: the gzip data is damaged after line {number}") from None
