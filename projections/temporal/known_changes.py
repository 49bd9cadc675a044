"""The changes of one setting that are known and not retracted, for the timelines that are extended by news.

Timelines hold what is seen. A retraction, and a standing change that ends an exception, can bring to light what was
hidden: then the history is needed. A caller that does not have it at hand learns so by `HistoryMissing`.
Nothing is sorted before it is asked for, because most news need no history.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from operator import attrgetter, itemgetter

from projections.temporal.changes import Assertion, Change


class HistoryMissing(Exception):
    """The earlier changes of the setting are needed, and the caller did not give them."""


class KnownChanges:
    """`history`: the changes and retractions before the first news, in position order; None: not at hand."""

    __slots__ = ("_by_start", "_changes", "_news")

    def __init__(self, history: Iterable[Assertion] | None) -> None:
        self._news: list[Assertion] | None = None if history is None else list(history)
        self._changes: dict[str, Change] = {}
        self._by_start: list[tuple[int, int, Change]] | None = None

    def add(self, assertion: Assertion) -> None:
        if self._news is not None:
            self._news.append(assertion)

    def in_order(self) -> list[Change]:
        """All of them, in position order. Raises `HistoryMissing`."""
        return list(self._settled().values())

    def beginning_after(self, instant: int) -> list[Change]:
        """Those with effective_from > `instant` (µs), in position order. Raises `HistoryMissing`."""
        changes = self._settled().values()
        if self._by_start is None:
            self._by_start = sorted((change.effective_from, change.position, change) for change in changes)
        first = bisect_right(self._by_start, instant, key=itemgetter(0))
        return sorted((change for _, _, change in self._by_start[first:]), key=attrgetter("position"))

    def _settled(self) -> dict[str, Change]:
        """Event id → change."""
        if self._news is None:
            raise HistoryMissing
        for assertion in self._news:
            if isinstance(assertion, Change):
                self._changes[assertion.event_id] = assertion
                if self._by_start is not None:
                    insort(self._by_start, (assertion.effective_from, assertion.position, assertion))
            else:
                gone = self._changes.pop(assertion.retracts, None)
                if gone is not None and self._by_start is not None:
                    del self._by_start[bisect_left(self._by_start, (gone.effective_from, gone.position))]
        self._news.clear()
        return self._changes
