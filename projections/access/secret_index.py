"""Which event recorded the hash of a secret: sixteen bytes a token, however many there are.

Keeps the first eight bytes of each SHA-256 with the position of its event, sorted, and the newest ones in a dict until
they are merged. The secrets hold 256 random bits, so eight bytes of the hash lead to one event; the caller compares the
whole hash with that event. Pure. Proved by tests/access/test_secret_index.py.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import Final

MERGED_AT: Final = 4096
"""Newest entries that wait to be merged, and at least a sixteenth of all: so each entry is moved a few times only."""


class SecretIndex:
    """Added to by one thread, while others may look up."""

    def __init__(self) -> None:
        self._sorted = array("Q"), array("Q")
        """The prefixes, and the position of each. Replaced as one, because others look up meanwhile."""
        self._newest: dict[int, list[int]] = {}
        self._waiting = 0

    def __len__(self) -> int:
        return len(self._sorted[0]) + self._waiting

    def add(self, digest: bytes, position: int) -> None:
        """`digest`: the SHA-256 of a secret; `position`: of the event that recorded it."""
        self._newest.setdefault(_prefix(digest), []).append(position)
        self._waiting += 1
        if self._waiting >= max(MERGED_AT, len(self._sorted[0]) // 16):
            self._merge()

    def find(self, digest: bytes) -> list[int]:
        """The positions of the events that may have recorded this hash, oldest first. Mostly none or one."""
        prefix = _prefix(digest)
        # The newest ones first: after a merge they are among the sorted ones, too.
        newest = self._newest.get(prefix, ())
        prefixes, positions = self._sorted
        places = []
        for place in range(bisect_left(prefixes, prefix), len(prefixes)):
            if prefixes[place] != prefix:
                break
            places.append(positions[place])
        return list(dict.fromkeys((*places, *newest)))

    def _merge(self) -> None:
        newest = sorted((prefix, position) for prefix, positions in self._newest.items() for position in positions)
        old_prefixes, old_positions = self._sorted
        prefixes, positions = array("Q"), array("Q")
        begin = 0
        for prefix, position in newest:
            # Behind equal ones, which are older.
            end = bisect_right(old_prefixes, prefix, begin)
            prefixes.extend(old_prefixes[begin:end])
            positions.extend(old_positions[begin:end])
            prefixes.append(prefix)
            positions.append(position)
            begin = end
        prefixes.extend(old_prefixes[begin:])
        positions.extend(old_positions[begin:])
        self._sorted = prefixes, positions
        self._newest, self._waiting = {}, 0


def _prefix(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")
