"""The bases of decisions, cached by the ids of a record and the span of time over which each basis stays the same.

A basis rests on the effective timelines of the subjects that were read, so it holds as long as each of them stays on
its step: that is its span. Spans of one key never overlap, because all over a span the same subjects are read with the
same result. `drop` removes every basis that rests on a subject with news, before the position moves on.

`find` takes no lock: a published list of spans is never altered, only replaced. A span carries the position at which it
was made. A question at an older position is not given it, so it never learns from the future; a question at a newer
position may use it, because news in between would have dropped it.
Proved by tests/query/test_decision_cache.py.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from operator import itemgetter
from typing import Final, NamedTuple

from projections.decisions.check import DecisionBasis
from projections.decisions.model import RequestRecord
from projections.temporal.changes import LARGE_BYTES, value_bytes
from projections.temporal.effective_state import SettingState

Key = tuple[str | None, str | None, str | None, str | None, str | None]
"""The key_id, account_id, org_id, project_id and model_id of a request record: a basis depends on nothing else, but for
one that was made for a record that says how its model was served, which replaces one that was not."""

assert RequestRecord._fields[1:6] == ("key_id", "account_id", "org_id", "project_id", "model_id"), "record[1:6] is one"

SPANS_MAX: Final = 64
"""Of one key. A log in the order of time never goes back, and copying a list of spans costs more the longer it is."""
_BYTES: Final = 1_800
_EVIDENCE_BYTES: Final = 600
"""Of a span, and of each piece of evidence with its JSON, which spans share: measured, see projections/DECISIONS.md."""


class ValiditySpan(NamedTuple):
    """`basis` is in force over [start, until), in µs.

    `hindsight`: the basis with everything known now, if that rests on other events. `position`: at which the span was
    made. `subjects`: all that were read, without the catalog. `evidence_bytes`: see the function of that name. `large`:
    the states among the evidence whose values are large.
    """

    start: int
    until: int
    position: int
    basis: DecisionBasis
    hindsight: DecisionBasis | None
    subjects: tuple[str, ...]
    evidence_bytes: int
    large: tuple[SettingState, ...] = ()


def evidence_bytes(basis: DecisionBasis) -> tuple[int, tuple[SettingState, ...]]:
    """(about the memory of the evidence of a basis, without its large values; the states that have these)."""
    states = (*basis.evidence, *(basis.published or ()))
    bytes_, large = _EVIDENCE_BYTES * len(states), []
    for state in states:
        # Most values are flags, which need none of their own.
        if state.value is not None and not isinstance(state.value, bool):
            size = value_bytes(state.value)
            if size > LARGE_BYTES:
                large.append(state)
            else:
                bytes_ += size
    return bytes_, tuple(large)


_start: Final = itemgetter(0)


class _Generation:
    def __init__(self) -> None:
        self.spans: dict[Key, list[ValiditySpan]] = {}
        """In the order of their starts."""
        self.keys_of: dict[str, set[Key]] = {}
        """Subject → keys whose bases rest on it, or once did."""
        self.large: dict[int, SettingState] = {}
        """By identity: states with a large value, which may be shared by spans of many subjects, or by none."""
        self.bytes = 0


class DecisionCache:
    """At most about `bytes_max`, in two generations: spans that are not read again go with the older one."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max // 2
        self.made = 0
        """Spans that were put in since the start: each is a miss. Hits are not counted, so that they stay cheap."""
        self._young = _Generation()
        self._old = _Generation()
        self._lock = threading.Lock()

    def find(self, key: Key, at: int, position: int) -> ValiditySpan | None:
        """The span of `key` at `at` (µs) that holds at `position`."""
        spans = self._young.spans.get(key)
        if spans is None:
            spans = self._old.spans.get(key)
            if spans is None:
                return None
            self._promote(key, spans)
        index = bisect_right(spans, at, key=_start)
        if not index:
            return None
        span = spans[index - 1]
        return span if at < span.until and span.position <= position else None

    def put(self, key: Key, span: ValiditySpan) -> None:
        """The caller makes sure that nothing was dropped since the span was made."""
        with self._lock:
            self.made += 1
            spans = self._young.spans.get(key) or self._old.spans.get(key) or []
            if len(spans) >= SPANS_MAX:
                spans = []
            index = bisect_left(spans, span.start, key=_start)
            beyond = index + 1 if index < len(spans) and spans[index].start == span.start else index
            self._put(key, [*spans[:index], span, *spans[beyond:]], span)

    def drop(self, subject: str) -> None:
        """Removes every basis that rests on the subject."""
        with self._lock:
            for generation in (self._young, self._old):
                for key in generation.keys_of.pop(subject, ()):
                    generation.spans.pop(key, None)

    def clear(self) -> None:
        with self._lock:
            self._young, self._old = _Generation(), _Generation()

    def _promote(self, key: Key, spans: list[ValiditySpan]) -> None:
        with self._lock:
            # Unless the spans were dropped meanwhile.
            if self._old.spans.get(key) is spans and key not in self._young.spans:
                self._put(key, spans, None)

    def _put(self, key: Key, spans: list[ValiditySpan], added: ValiditySpan | None) -> None:
        """`added`: the one span that is new among `spans`."""
        young = self._young
        if young.bytes > self._bytes_max:
            self._old, self._young = young, _Generation()
            young = self._young
        new = spans if added is None or key not in young.spans else [added]
        young.spans[key] = spans
        for span in new:
            new_subjects = 0
            for subject in span.subjects:
                keys = young.keys_of.get(subject)
                if keys is None:
                    keys = young.keys_of[subject] = set()
                    new_subjects += 1
                keys.add(key)
            for state in span.large:
                if id(state) not in young.large:
                    young.large[id(state)] = state
                    young.bytes += value_bytes(state.value)
            # `drop` does not subtract these: `keys_of` names keys until their generation goes, so it has to end.
            young.bytes += _BYTES + span.evidence_bytes * new_subjects // max(1, len(span.subjects))
