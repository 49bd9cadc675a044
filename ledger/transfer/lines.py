"""The lines of an import: JSON Lines from a file or a pipe, gzip or plain, blank lines ignored, CRLF read as LF.

The content is untrusted: a line has at most 1 MiB, however much a gzip file expands to.
Proved by tests/transfer/test_refused_files.py.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

from ledger import strict_json
from ledger.errors import BadImport, BadJson
from ledger.strict_json import MAX_BYTES

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_GZIP: Final = b"\x1f\x8b"
_CHUNK: Final = 1 << 18
_FORMAT_BYTES: Final = 4
"""The first bytes of a file, by which its format is recognised."""


class CountingStream(io.RawIOBase):
    """Counts the bytes read from a stream. Closing it leaves the underlying stream open: it is the caller's.

    The first read returns enough bytes to recognise the format, however few a pipe delivers at a time.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        size = self._read(view)
        while 0 < self.count + size < _FORMAT_BYTES and (more := self._read(view[size:])):
            size += more
        self.count += size
        return size

    def _read(self, view: memoryview) -> int:
        readinto = getattr(self._stream, "readinto1", None)
        if readinto is not None:
            return int(readinto(view))
        chunk = getattr(self._stream, "read1", self._stream.read)(len(view))
        view[: len(chunk)] = chunk
        return len(chunk)


class ImportLine(NamedTuple):
    """`number` counts from 1 and includes blank lines, as editors do."""

    number: int
    text: bytes

    def json(self) -> Any:
        """The JSON value of the line. Raises `BadImport`."""
        try:
            return strict_json.loads(self.text, what="the line")
        except BadJson as error:
            raise self.error(error.detail) from None

    def error(self, detail: str) -> BadImport:
        return BadImport(f"line {self.number}: {detail}")


class ImportLines:
    """The lines of `stream` that are not blank. Iterate once. Raises `BadImport`.

    `bytes_read` counts the bytes read from `stream`, for comparison with a file's size.
    """

    def __init__(self, stream: BinaryIO, name: str = "line") -> None:
        """`name`: what an error calls a line."""
        self.name = name
        self._stream = CountingStream(stream)

    @property
    def bytes_read(self) -> int:
        return self._stream.count

    def __iter__(self) -> Iterator[ImportLine]:
        number = 0
        try:
            with io.BufferedReader(self._stream, _CHUNK) as raw:
                is_gzip = raw.peek(len(_GZIP))[: len(_GZIP)] == _GZIP
                plain = io.BufferedReader(gzip.GzipFile(fileobj=raw), _CHUNK) if is_gzip else raw
                while line := plain.readline(MAX_BYTES + 2):
                    number += 1
                    text = line.rstrip(b"\r\n")
                    if len(text) > MAX_BYTES:
                        raise self.error(number, f"the line has more than {MAX_BYTES} bytes")
                    if text and not text.isspace():
                        yield ImportLine(number, text)
        except EOFError:
            raise self.error(number + 1, "the gzip data ends here, too early; the file was cut off") from None
        except (gzip.BadGzipFile, zlib.error):
            raise self.error(number + 1, "the gzip data is damaged from here on") from None

    def error(self, number: int, detail: str) -> BadImport:
        return BadImport(f"{self.name} {number}: {detail}")
