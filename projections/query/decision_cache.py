"""What decisions stand on, kept: by the ids of a record, the spans of time over which its ground stays the same.

A ground rests on the courses of the subjects that were looked at, so it holds as long as every one of them stays on its
step: that is its span. Spans of one key never overlap, because within one the same subjects are looked at and say the
same. News of a subject drops every ground that rests on it (`drop`), before the position moves on.

Found without a lock: what is published is never altered, only replaced. A span is stamped with the position at which
it was made. Who asks at an older position is not shown it, so what was learned since is never taken for what was
known; who asks at a newer one may be, because the news between would have dropped it.
Proved by tests/query/test_grounds.py.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import Final, NamedTuple

from projections.decisions.check import DecisionBasis
from projections.decisions.model import RequestRecord

Key = tuple[str | None, str | None, str | None, str | None, str | None]
"""The key_id, account_id, org_id, project_id and model_id of a request record: all that a ground depends on."""

assert RequestRecord._fields[1:6] == ("key_id", "account_id", "org_id", "project_id", "model_id"), "record[1:6] is one"

SPANS_MAX: Final = 64
"""Of one key: a log in the order of time never goes back, and copying the spans costs the more, the more there are."""
_BYTES: Final = 1_800
_EVIDENCE_BYTES: Final = 600
"""What a span takes, and each piece of its evidence with its JSON, which spans share. See projections/README.md."""


class ValiditySpan(NamedTuple):
    """`decision_basis` in force over [start, until), in µs. `later`: the ground with what is known now, where that
    rests on
    other events. `position`: at which it was made. `subjects`: all that was looked at, the catalog aside."""

    start: int
    until: int
    position: int
    decision_basis: DecisionBasis
    later: DecisionBasis | None
    subjects: tuple[str, ...]


class Row(NamedTuple):
    """Spans of one key in order, with their starts beside them. Never altered."""

    starts: list[int]
    spans: list[ValiditySpan]


class _Generation:
    def __init__(self) -> None:
        self.rows: dict[Key, Row] = {}
        self.resting: dict[str, set[Key]] = {}
        """Subject → keys whose grounds rest on it, or once did."""
        self.bytes = 0


class DecisionCache:
    """At most about `bytes_max`: of two generations, whatever was not asked for again goes with the elder."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max // 2
        self._young = _Generation()
        self._old = _Generation()
        self._lock = threading.Lock()

    def find(self, key: Key, at: int, position: int) -> ValiditySpan | None:
        """The span of `key` at `at` (µs) that holds at `position`."""
        row = self._young.rows.get(key)
        if row is None:
            row = self._old.rows.get(key)
            if row is None:
                return None
            self._promote(key, row)
        index = bisect_right(row.starts, at) - 1
        if index < 0:
            return None
        span = row.spans[index]
        return span if at < span.until and span.position <= position else None

    def rows_at_once(self) -> Callable[[Key], Row | None]:
        """What finds a key's row among those asked for of late, for who stands at one position and asks for many: spans
        that are dropped or made meanwhile are of later positions, and for those that were made before nothing changed
        up to that position. What to make of a row is up to the caller, as in `find`."""
        return self._young.rows.get

    def keep(self, key: Key, span: ValiditySpan) -> None:
        """The caller sees to it that nothing is dropped between making the span and keeping it."""
        with self._lock:
            row = self._young.rows.get(key) or self._old.rows.get(key)
            if row is None or len(row.starts) >= SPANS_MAX:
                row = Row([], [])
            index = bisect_left(row.starts, span.start)
            beyond = index + 1 if index < len(row.starts) and row.starts[index] == span.start else index
            starts = [*row.starts[:index], span.start, *row.starts[beyond:]]
            spans = [*row.spans[:index], span, *row.spans[beyond:]]
            self._put(key, Row(starts, spans), span)

    def drop(self, subject: str) -> None:
        """Forgets every ground that rests on the subject."""
        with self._lock:
            for generation in (self._young, self._old):
                for key in generation.resting.pop(subject, ()):
                    generation.rows.pop(key, None)

    def clear(self) -> None:
        with self._lock:
            self._young, self._old = _Generation(), _Generation()

    def _promote(self, key: Key, row: Row) -> None:
        with self._lock:
            # Unless it was dropped meanwhile.
            if self._old.rows.get(key) is row and key not in self._young.rows:
                self._put(key, row, None)

    def _put(self, key: Key, row: Row, added: ValiditySpan | None) -> None:
        """`added`: the one span that is new in the row."""
        young = self._young
        if young.bytes > self._bytes_max:
            self._old, self._young = young, _Generation()
            young = self._young
        new = row.spans if added is None or key not in young.rows else [added]
        young.rows[key] = row
        for span in new:
            evidence = len(span.decision_basis.evidence) * _EVIDENCE_BYTES
            unheard = 0
            for subject in span.subjects:
                keys = young.resting.get(subject)
                if keys is None:
                    keys = young.resting[subject] = set()
                    unheard += 1
                keys.add(key)
            # Not taken off again by `drop`: keys stay named in `resting` until their generation goes, so it has to end.
            young.bytes += _BYTES + evidence * unheard // max(1, len(span.subjects))
