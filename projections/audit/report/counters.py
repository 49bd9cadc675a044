"""Counts by name and by day, of columns of any length, in memory that grows with the names and days and not the rows.

Exact: nothing is sampled or estimated. Ten million names of twenty bytes with five counts each take some 0.6 GB; a
million subjects take a tenth of that.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Int64s = NDArray[np.int64]

PENDING_MIN: Final = 1 << 16
"""Names that wait at least before they are merged. They may be as many as those that are merged already."""
_LATEST: Final = np.iinfo(np.int64).max
_EARLIEST: Final = np.iinfo(np.int64).min


class Counted(NamedTuple):
    """names: n texts, each once, in the order in which they first came; null is one of them. counts: n by width.
    first, last: the least and greatest instant (µs) of each, or nothing known where none were given."""

    names: pa.Array
    counts: Int64s
    first: Int64s
    last: Int64s


class ByName:
    """Name → counts of `width` things."""

    def __init__(self, width: int) -> None:
        self._width = width
        none = np.zeros((0, width), np.int64)
        self._merged = Counted(pa.array([], pa.large_string()), none, none[:, 0], none[:, 0])
        self._pending: list[Counted] = []
        self._pending_names = 0

    def add(self, names: pa.Array, things: NDArray[Any], at: Int64s | None = None) -> None:
        """One row a name: 1 more of its thing, which is in 0 .. width-1. `at` in µs."""
        if not len(names):
            return
        encoded = names.dictionary_encode(null_encoding="encode")
        rows, size = encoded.indices.to_numpy(), len(encoded.dictionary)
        counts = np.bincount(rows * np.int64(self._width) + things, minlength=size * self._width)
        first, last = np.full(size, _LATEST), np.full(size, _EARLIEST)
        if at is not None:
            np.minimum.at(first, rows, at)
            np.maximum.at(last, rows, at)
        self.add_counted(Counted(encoded.dictionary, counts.reshape(size, self._width), first, last))

    def add_counted(self, counted: Counted) -> None:
        self._pending.append(counted._replace(names=counted.names.cast(pa.large_string())))
        self._pending_names += len(counted.names)
        if self._pending_names > max(PENDING_MIN, len(self._merged.names)):
            self.counted()

    def counted(self) -> Counted:
        """All of it so far."""
        if self._pending:
            parts = [self._merged, *self._pending]
            encoded = pa.concat_arrays([part.names for part in parts]).dictionary_encode(null_encoding="encode")
            rows, size = encoded.indices.to_numpy(), len(encoded.dictionary)
            counts = np.zeros((size, self._width), np.int64)
            np.add.at(counts, rows, np.concatenate([part.counts for part in parts]))
            first, last = np.full(size, _LATEST), np.full(size, _EARLIEST)
            np.minimum.at(first, rows, np.concatenate([part.first for part in parts]))
            np.maximum.at(last, rows, np.concatenate([part.last for part in parts]))
            self._merged = Counted(encoded.dictionary, counts, first, last)
            self._pending, self._pending_names = [], 0
        return self._merged


def worst(names: pa.Array, weights: list[Int64s], limit: int | None) -> list[int]:
    """The rows with the greatest weights, greatest first: by the first weight, then the next, then by name."""
    rows = np.arange(len(names))
    if limit is not None and len(names) > limit:
        # Only those that can be among them are sorted by name.
        order = np.lexsort([-weight for weight in reversed(weights)])
        least = order[limit - 1]
        same, above = np.ones(len(names), np.bool_), np.zeros(len(names), np.bool_)
        for weight in weights:
            above |= same & (weight > weight[least])
            same &= weight == weight[least]
        rows = np.flatnonzero(same | above)
    texts = ["" if text is None else text for text in names.take(pa.array(rows)).to_pylist()]
    found = sorted(range(len(rows)), key=lambda i: (*(-int(weight[rows[i]]) for weight in weights), texts[i]))
    return [int(rows[i]) for i in found[:limit]]


class ByDay:
    """Day → counts of `width` things. Days are counted from 1970-01-01, in UTC."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._days: dict[int, Int64s] = {}

    def add(self, days: Int64s, things: NDArray[Any]) -> None:
        if not len(days):
            return
        start, end = int(days.min()), int(days.max())
        if start == end:
            self._put(start, np.bincount(things, minlength=self._width))
            return
        if end - start > 10_000:
            # A log that jumps through the centuries: the days that occur, and not all between them.
            held, places = np.unique(days, return_inverse=True)
        else:
            held, places = np.arange(start, end + 1), days - start
        counts = np.bincount(places * np.int64(self._width) + things, minlength=len(held) * self._width)
        for day, count in zip(held.tolist(), counts.reshape(len(held), self._width), strict=True):
            if count.any():
                self._put(day, count)

    def _put(self, day: int, counts: Int64s) -> None:
        held = self._days.get(day)
        self._days[day] = counts if held is None else held + counts

    def counted(self) -> list[tuple[int, list[int]]]:
        """In the order of days; only those of which there is something."""
        return [(day, self._days[day].tolist()) for day in sorted(self._days)]
