"""Exact counts by name and by day. Memory grows with the number of names and days, not with the number of rows.

Ten million names of twenty bytes with five counts each need about 0.6 GB; a million subjects need a tenth of that.
Proved by tests/audit/report/test_collector.py.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Int64s = NDArray[np.int64]

PENDING_MIN: Final = 1 << 16
"""The counter merges a batch of names at the earliest when this many names wait, or as many as are merged already."""
_LATEST: Final = np.iinfo(np.int64).max
_EARLIEST: Final = np.iinfo(np.int64).min


class NameCounts(NamedTuple):
    """names: n texts without duplicates, in the order of their first rows; null counts as a name.
    counts: an array of n rows with one column a category.
    first, last: the earliest and the latest instant (µs) of each name; meaningless if the rows had no instants."""

    names: pa.Array
    counts: Int64s
    first: Int64s
    last: Int64s


class NameCounter:
    """Counts rows by name and category."""

    def __init__(self, categories: int) -> None:
        self._categories = categories
        none = np.zeros((0, categories), np.int64)
        self._merged = NameCounts(pa.array([], pa.large_string()), none, none[:, 0], none[:, 0])
        self._pending: list[NameCounts] = []
        self._pending_names = 0

    def add(self, names: pa.Array, categories: NDArray[Any], at: Int64s | None = None) -> None:
        """Counts one row for each name. A category is a number from 0 on; `at` is in µs."""
        if not len(names):
            return
        encoded = names.dictionary_encode(null_encoding="encode")
        rows, size = encoded.indices.to_numpy(), len(encoded.dictionary)
        cells = rows * np.int64(self._categories) + categories
        counts = np.bincount(cells, minlength=size * self._categories).reshape(size, self._categories)
        first, last = np.full(size, _LATEST), np.full(size, _EARLIEST)
        if at is not None:
            np.minimum.at(first, rows, at)
            np.maximum.at(last, rows, at)
        self._pending.append(NameCounts(encoded.dictionary.cast(pa.large_string()), counts, first, last))
        self._pending_names += size
        if self._pending_names > max(PENDING_MIN, len(self._merged.names)):
            self.counts()

    def counts(self) -> NameCounts:
        """All counts so far."""
        if self._pending:
            parts = [self._merged, *self._pending]
            encoded = pa.concat_arrays([part.names for part in parts]).dictionary_encode(null_encoding="encode")
            rows, size = encoded.indices.to_numpy(), len(encoded.dictionary)
            counts = np.zeros((size, self._categories), np.int64)
            np.add.at(counts, rows, np.concatenate([part.counts for part in parts]))
            first, last = np.full(size, _LATEST), np.full(size, _EARLIEST)
            np.minimum.at(first, rows, np.concatenate([part.first for part in parts]))
            np.maximum.at(last, rows, np.concatenate([part.last for part in parts]))
            self._merged = NameCounts(encoded.dictionary, counts, first, last)
            self._pending, self._pending_names = [], 0
        return self._merged


def heaviest(names: pa.Array, weights: list[Int64s], limit: int | None) -> list[int]:
    """The indices of the names with the greatest weights: by the first weight, then by the next, then by name."""
    rows = np.arange(len(names))
    if limit is not None and len(names) > limit:
        # Sorting by name is slow: sort only the names that tie with the last place or lie above it.
        order = np.lexsort([-weight for weight in reversed(weights)])
        lowest = order[limit - 1]
        equal, above = np.ones(len(names), np.bool_), np.zeros(len(names), np.bool_)
        for weight in weights:
            above |= equal & (weight > weight[lowest])
            equal &= weight == weight[lowest]
        rows = np.flatnonzero(equal | above)
    texts = ["" if text is None else text for text in names.take(pa.array(rows)).to_pylist()]
    indices = sorted(range(len(rows)), key=lambda i: (*(-int(weight[rows[i]]) for weight in weights), texts[i]))
    return [int(rows[i]) for i in indices[:limit]]


class DayCounter:
    """Counts rows by day and category. A day is a number of days since 1970-01-01 UTC."""

    def __init__(self, categories: int) -> None:
        self._categories = categories
        self._days: dict[int, Int64s] = {}

    def add(self, days: Int64s, categories: NDArray[Any]) -> None:
        """Counts one row for each element of `days`."""
        if not len(days):
            return
        start, end = int(days.min()), int(days.max())
        if start == end:
            self._add_day(start, np.bincount(categories, minlength=self._categories))
            return
        if end - start > 10_000:
            # The log jumps between centuries: make room for the days that occur, not for all days between them.
            distinct, indices = np.unique(days, return_inverse=True)
        else:
            distinct, indices = np.arange(start, end + 1), days - start
        cells = indices * np.int64(self._categories) + categories
        counts = np.bincount(cells, minlength=len(distinct) * self._categories).reshape(-1, self._categories)
        for day, day_counts in zip(distinct.tolist(), counts, strict=True):
            if day_counts.any():
                self._add_day(day, day_counts)

    def _add_day(self, day: int, counts: Int64s) -> None:
        earlier = self._days.get(day)
        self._days[day] = counts if earlier is None else earlier + counts

    def counts(self) -> list[tuple[int, list[int]]]:
        """(day, counts by category) of every day that has rows, in the order of days."""
        return [(day, self._days[day].tolist()) for day in sorted(self._days)]
