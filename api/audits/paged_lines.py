"""Lines in a file that are read a page at a time: beside it lies where every so-manieth line begins.

A line is one JSON text. Proved by tests/api/audits/test_paged_lines.py.
"""

from __future__ import annotations

from pathlib import Path
from struct import Struct
from typing import BinaryIO, Final

EVERY: Final = 256
PLACES: Final = ".places"
_PLACE: Final = Struct("<Q")


class PagedLines:
    """Takes whole lines as a file does, in pieces of any number of them. Both files stay the caller's to close."""

    def __init__(self, lines: BinaryIO, places: BinaryIO) -> None:
        self.count = 0
        self._lines = lines
        self._places = places
        self._bytes = 0

    def write(self, data: bytes | memoryview) -> int:
        """`data` ends where a line ends."""
        text = bytes(data)
        start = 0
        while start < len(text):
            if self.count % EVERY == 0:
                self._places.write(_PLACE.pack(self._bytes + start))
            start = text.index(b"\n", start) + 1
            self.count += 1
        self._lines.write(text)
        self._bytes += len(text)
        return len(text)


def read_page(lines: Path, after: int, limit: int) -> list[bytes]:
    """The lines number `after` + 1 to `after` + `limit`, as far as there are so many. Raises `OSError`."""
    beside = lines.with_name(lines.name + PLACES)
    where = after // EVERY * _PLACE.size
    # A file cannot be asked for a place beyond what any file has.
    if where >= beside.stat().st_size:
        return []
    with beside.open("rb") as places:
        places.seek(where)
        place = places.read(_PLACE.size)
    with lines.open("rb") as file:
        file.seek(_PLACE.unpack(place)[0])
        for _skipped in range(after % EVERY):
            file.readline()
        found = [file.readline().rstrip(b"\n") for _line in range(limit)]
    return [line for line in found if line]
