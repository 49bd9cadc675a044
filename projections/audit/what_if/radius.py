"""The blast radius: how many requests would have been decided otherwise, and in which way. Counts only. Pure.

Proved by tests/audit/what_if/test_radius.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ledger.times import format_time
from projections.audit.schemas import REASON_NAMES, VERDICT_NAMES
from projections.audit.summary import AGAINST
from projections.audit.what_if.comparison import AFTER, BEFORE, HANDLING, reason_bits, reason_names, unequal
from projections.temporal.coordinates import KnownAt, Pin

LISTED: Final = 100_000


@dataclass
class Radius:
    """Requests, and those among them that are decided otherwise.

    verdicts: (before, after) → requests, those whose verdict stays the same included. subjects: who governs, before or
    after (both count where they differ; None: nobody that can be told). reasons_gone, reasons_new: reason → requests.
    handling: member → requests for which it is another. first_at, last_at: of those that are otherwise, µs.
    """

    pin: Pin
    known_at: KnownAt
    proposals: int
    requests: int = 0
    rejects: int = 0
    differing: int = 0
    verdicts: Counter[tuple[str, str]] = field(default_factory=Counter)
    subjects: Counter[str | None] = field(default_factory=Counter)
    models: Counter[str | None] = field(default_factory=Counter)
    reasons_gone: Counter[str] = field(default_factory=Counter)
    reasons_new: Counter[str] = field(default_factory=Counter)
    handling: Counter[str] = field(default_factory=Counter)
    first_at: int | None = None
    last_at: int | None = None

    def take(self, requests: int, changes: pa.RecordBatch) -> None:
        """`requests` more, of which `changes` (CHANGES) are otherwise."""
        self.requests += requests
        if not changes.num_rows:
            return
        self.differing += changes.num_rows
        pairs = [_texts(changes.column(side + "verdict")) for side in (BEFORE, AFTER)]
        for (before, after), count in _counted(*pairs).items():
            self.verdicts[str(before), str(after)] += count
        governing = [changes.column(side + "governed_by") for side in (BEFORE, AFTER)]
        for (before, after), count in _counted(*governing).items():
            for subject in {before, after}:
                self.subjects[subject] += count
        for (model,), count in _counted(changes.column("model_id")).items():
            self.models[model] += count
        before, after = (reason_bits(changes.column(side + "reasons")) for side in (BEFORE, AFTER))
        for counter, bits in ((self.reasons_gone, before & ~after), (self.reasons_new, after & ~before)):
            for found, count in zip(*np.unique(bits, return_counts=True), strict=True):
                for reason in reason_names(int(found)):
                    counter[reason] += int(count)
        self._take_handling(changes)
        first_last = pc.min_max(changes.column("at").cast(pa.int64())).as_py()
        self.first_at = first_last["min"] if self.first_at is None else min(self.first_at, first_last["min"])
        self.last_at = first_last["max"] if self.last_at is None else max(self.last_at, first_last["max"])

    def _take_handling(self, changes: pa.RecordBatch) -> None:
        for member in HANDLING:
            count = int(unequal(changes.column(BEFORE + member), changes.column(AFTER + member)).sum())
            if count:
                self.handling[member] += count

    @property
    def turned_against(self) -> int:
        """Requests with a verdict against them that they did not have."""
        return sum(n for (one, other), n in self.verdicts.items() if one not in AGAINST and other in AGAINST)

    @property
    def turned_for(self) -> int:
        return sum(n for (one, other), n in self.verdicts.items() if one in AGAINST and other not in AGAINST)


def _texts(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _counted(*columns: pa.Array) -> dict[tuple[Any, ...], int]:
    names = [str(place) for place in range(len(columns))]
    groups = pa.table(list(columns), names).group_by(names).aggregate([([], "count_all")])
    keys = zip(*(groups.column(name).to_pylist() for name in names), strict=True)
    return dict(zip(keys, groups.column("count_all").to_pylist(), strict=True))


def radius_json(radius: Radius) -> dict[str, Any]:
    """For programs; what counts nothing is left out."""
    pin, known_at = radius.pin, radius.known_at
    pairs = sorted(radius.verdicts, key=lambda pair: tuple(map(VERDICT_NAMES.index, pair)))
    return {
        "proposals": radius.proposals,
        "requests": radius.requests,
        "rejects": radius.rejects,
        "otherwise": radius.differing,
        "turned_against": radius.turned_against,
        "turned_for": radius.turned_for,
        "verdicts": [{"before": pair[0], "after": pair[1], "requests": radius.verdicts[pair]} for pair in pairs],
        "reasons_gone": _by_name(radius.reasons_gone, REASON_NAMES),
        "reasons_new": _by_name(radius.reasons_new, REASON_NAMES),
        "handling": _by_name(radius.handling, HANDLING),
        "subjects": [{"subject": one, "requests": radius.subjects[one]} for one in by_weight(radius.subjects)],
        "subject_count": len(radius.subjects),
        "models": [{"model_id": one, "requests": radius.models[one]} for one in by_weight(radius.models)],
        "model_count": len(radius.models),
        "first_at": _time(radius.first_at),
        "last_at": _time(radius.last_at),
        "known_at": _time(known_at) if isinstance(known_at, int) else known_at or "now",
        "pin": pin._asdict() | {"recorded_at": _time(pin.recorded_at)},
    }


def by_weight(counted: Counter[str | None]) -> list[str | None]:
    """Most requests first, then by name; the first LISTED."""
    return sorted(counted, key=lambda name: (-counted[name], name or ""))[:LISTED]


def _by_name(counted: Counter[str], names: Sequence[str]) -> dict[str, int]:
    return {name: counted[name] for name in names if counted[name]}


def _time(instant: int | None) -> str | None:
    return None if instant is None else format_time(instant)
