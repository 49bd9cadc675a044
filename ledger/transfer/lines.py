"""JSON Lines from a file or a pipe, gzip or plain: one value a line, blank lines ignored, `\\r\\n` taken as `\\n`.

What comes is untrusted: a line has at most 1 MiB, whatever a gzip file unfolds to. Proved by tests/transfer.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from ledger.errors import BadImport
from ledger.strict_json import MAX_BYTES

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_GZIP: Final = b"\x1f\x8b"
_CHUNK: Final = 1 << 18


class Line(NamedTuple):
    """`number` counts from 1, blank lines included, as editors do."""

    number: int
    text: bytes


class Lines:
    """The lines of `stream` that are not blank. Iterate once. Raises `BadImport`.

    `bytes_read` counts what was taken from `stream`, so that it can be held against a file's size.
    """

    def __init__(self, stream: BinaryIO, name: str = "line") -> None:
        self.name = name
        self._counted = _Counted(stream)

    @property
    def bytes_read(self) -> int:
        return self._counted.count

    def __iter__(self) -> Iterator[Line]:
        number = 0
        try:
            with io.BufferedReader(self._counted, _CHUNK) as raw:
                zipped = raw.peek(2)[:2] == _GZIP
                plain = io.BufferedReader(gzip.GzipFile(fileobj=raw), _CHUNK) if zipped else raw
                while line := plain.readline(MAX_BYTES + 2):
                    number += 1
                    text = line.rstrip(b"\r\n")
                    if len(text) > MAX_BYTES:
                        raise self.error(number, f"the line has more than {MAX_BYTES} bytes")
                    if text and not text.isspace():
                        yield Line(number, text)
        except EOFError:
            raise self.error(number + 1, "the gzip data ends here, too early; the file was cut off") from None
        except (gzip.BadGzipFile, zlib.error):
            raise self.error(number + 1, "the gzip data is damaged from here on") from None

    def error(self, number: int, detail: str) -> BadImport:
        return BadImport(f"{self.name} {number}: {detail}")


class _Counted(io.RawIOBase):
    """The stream, counting. Closing it leaves the stream open: it is the caller's."""

    def __init__(self, stream: BinaryIO) -> None:
        self._read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        chunk = self._read(len(view))
        view[: len(chunk)] = chunk
        self.count += len(chunk)
        return len(chunk)
