"""A file of lines that is read a page at a time: a second file holds the offset of every 256th line.

So a page costs the same wherever it lies. Each line is one JSON text. Proved by tests/api/audits/test_paged_lines.py.
"""

from __future__ import annotations

from pathlib import Path
from struct import Struct
from typing import BinaryIO, Final

EVERY: Final = 256
OFFSETS_SUFFIX: Final = ".places"
_OFFSET: Final = Struct("<Q")


class PagedLines:
    """Writes whole lines, any number of them at a time. Does not close the two files."""

    def __init__(self, lines: BinaryIO, offsets: BinaryIO) -> None:
        self.count = 0
        self._lines = lines
        self._offsets = offsets
        self._bytes = 0

    def write(self, data: bytes | memoryview) -> int:
        """`data` ends with a complete line."""
        text = bytes(data)
        start = 0
        while start < len(text):
            if self.count % EVERY == 0:
                self._offsets.write(_OFFSET.pack(self._bytes + start))
            start = text.index(b"\n", start) + 1
            self.count += 1
        self._lines.write(text)
        self._bytes += len(text)
        return len(text)


def read_page(lines: Path, after: int, limit: int, bytes_max: int) -> list[bytes]:
    """Up to `limit` lines after the first `after` lines, without line ends, up to the one that reaches `bytes_max`.
    Raises `OSError`."""
    offsets = lines.with_name(lines.name + OFFSETS_SUFFIX)
    index = after // EVERY * _OFFSET.size
    # Compared first, because a file refuses to seek to some very large offsets.
    if index >= offsets.stat().st_size:
        return []
    with offsets.open("rb") as file:
        file.seek(index)
        (offset,) = _OFFSET.unpack(file.read(_OFFSET.size))
    with lines.open("rb") as file:
        file.seek(offset)
        for _ in range(after % EVERY):
            file.readline()
        page: list[bytes] = []
        size = 0
        while len(page) < limit and size < bytes_max and (line := file.readline().rstrip(b"\n")):
            page.append(line)
            size += len(line)
    return page
