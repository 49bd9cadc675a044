"""The blast radius: the number of requests that would have been decided differently, and how. Pure.

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

from projections.audit.schemas import REASON_NAMES, VERDICT_NAMES
from projections.audit.summary import AGAINST, NoticeRows, coordinates_json, notices_json, resting_on, time_or_null
from projections.audit.what_if.comparison import AFTER, BEFORE, HANDLING, decoded, reason_bits, unequal
from projections.temporal.coordinates import ClockNotice, KnownAt, Pin

LISTED: Final = 100_000


@dataclass
class Radius:
    """Counts of requests, and of those that are decided differently.

    verdicts: (before, after) → requests, also those that keep their verdict. subjects: governing subject before or
    after (both if they differ; None if unknown) → requests. reasons_gone, reasons_new: reason → requests. handling:
    member that differs → requests. first_at, last_at: of the differing requests, µs.
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
    clock_notices: Sequence[ClockNotice] = ()
    """Of the whole ledger: see `notices`."""
    clock_rows: Counter[ClockNotice] = field(default_factory=Counter)
    """Requests that were made in the stretch, those that keep their verdict included."""

    def take(self, requests: int, differences: pa.RecordBatch) -> None:
        """Counts `requests` more, of which `differences` (DIFFERENCES) are decided differently."""
        self.requests += requests
        if not differences.num_rows:
            return
        self.differing += differences.num_rows
        pairs = [decoded(differences.column(side + "verdict")) for side in (BEFORE, AFTER)]
        for (before, after), count in _count(*pairs).items():
            self.verdicts[str(before), str(after)] += count
        governing = [differences.column(side + "governed_by") for side in (BEFORE, AFTER)]
        for (before, after), count in _count(*governing).items():
            for subject in {before, after}:
                self.subjects[subject] += count
        for (model,), count in _count(differences.column("model_id")).items():
            self.models[model] += count
        before, after = (reason_bits(differences.column(side + "reasons")) for side in (BEFORE, AFTER))
        for counter, bits in ((self.reasons_gone, before & ~after), (self.reasons_new, after & ~before)):
            for place, reason in enumerate(REASON_NAMES):
                counter[reason] += int(np.count_nonzero(bits >> place & 1))
        for member in HANDLING:
            columns = (differences.column(side + member) for side in (BEFORE, AFTER))
            self.handling[member] += int(unequal(*columns).sum())
        span = pc.min_max(differences.column("at").cast(pa.int64())).as_py()
        self.first_at = span["min"] if self.first_at is None else min(self.first_at, span["min"])
        self.last_at = span["max"] if self.last_at is None else max(self.last_at, span["max"])

    @property
    def notices(self) -> list[NoticeRows]:
        """The stretches of a clock that was ahead on which decisions rest: they hold requests, or the known_at."""
        return resting_on(self.clock_notices, self.clock_rows, self.known_at, self.requests)

    @property
    def turned_against(self) -> int:
        """Requests with a new verdict against them."""
        return sum(n for (one, other), n in self.verdicts.items() if one not in AGAINST and other in AGAINST)

    @property
    def turned_for(self) -> int:
        """Requests without their former verdict against them."""
        return sum(n for (one, other), n in self.verdicts.items() if one in AGAINST and other not in AGAINST)


def _count(*columns: pa.Array) -> dict[tuple[Any, ...], int]:
    names = [str(place) for place in range(len(columns))]
    groups = pa.table(list(columns), names).group_by(names).aggregate([([], "count_all")])
    keys = zip(*(groups.column(name).to_pylist() for name in names), strict=True)
    return dict(zip(keys, groups.column("count_all").to_pylist(), strict=True))


def radius_json(radius: Radius) -> dict[str, Any]:
    """The radius for programs, without counts of 0."""
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
        "subjects": [{"subject": one, "requests": radius.subjects[one]} for one in _by_weight(radius.subjects)],
        "subject_count": len(radius.subjects),
        "models": [{"model_id": one, "requests": radius.models[one]} for one in _by_weight(radius.models)],
        "model_count": len(radius.models),
        "first_at": time_or_null(radius.first_at),
        "last_at": time_or_null(radius.last_at),
        **notices_json(radius.notices),
    } | coordinates_json(radius.pin, radius.known_at)


def _by_weight(counter: Counter[str | None]) -> list[str | None]:
    """Most requests first, then by name; the first LISTED."""
    return sorted(counter, key=lambda name: (-counter[name], name or ""))[:LISTED]


def _by_name(counter: Counter[str], names: Sequence[str]) -> dict[str, int]:
    return {name: counter[name] for name in names if counter[name]}
