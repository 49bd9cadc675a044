"""A byte stream that counts the bytes read from it, for progress and for the size of a pipe's content."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_FORMAT_BYTES: Final = 4
"""The first bytes of a file, by which its format is recognised."""


class CountingStream(io.RawIOBase):
    """Closing it leaves the underlying stream open: it is the caller's.

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
