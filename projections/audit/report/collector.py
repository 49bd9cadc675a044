"""What a report counts besides the summary, while the rows stream by: days, models, what is unknown, rows to show.

It is a `Taker` of `projections.audit.run`. Nothing is done row by row but for the few rows that are kept, and memory
grows with days, models and the ids that something is unknown of, not with the rows.
Proved by tests/audit/report/test_collector.py, against counting one by one.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ledger.times import DAY
from projections.audit.reading.batches import Part
from projections.audit.reading.strict import LogRow
from projections.audit.report.counters import ByDay, ByName, Int64s
from projections.audit.report.row_sampler import Samples
from projections.audit.schemas import REASON_NAMES, VERDICT_NAMES
from projections.audit.summary import AGAINST
from projections.decisions.model import Reason, Verdict

INDETERMINATE: Final = VERDICT_NAMES.index("indeterminate")
UNSETTLED: Final[tuple[Reason, ...]] = ("before_first_record", "scope_conflict", "unknown_owner", "unknown_model")
"""The reasons for which a verdict is indeterminate."""
NAMED: Final[dict[Reason, tuple[str, ...]]] = {
    "before_first_record": (),
    "scope_conflict": ("key_id", "project_id", "org_id", "account_id"),
    "unknown_owner": ("key_id", "project_id"),
    "unknown_model": ("model_id",),
}
"""The ids that such rows are put together by: those on which the reason hangs."""
SEPARATOR: Final = "\n"
"""Between the ids of a name; no id has one in it."""

REJECTS_SHOWN: Final = 20
FAULTS_MAX: Final = 1000
"""Reasons of rejects that are counted each by itself. Some name a member of the line, of which there is no end."""
OTHER_FAULTS: Final = "other reasons"

SHOWN_MAX: Final[dict[Verdict, int]] = {"violation": 5, "denied": 2}
"""Rows to show of each reason, by the verdict against them. Of a question that was denied nothing was done."""

EVERY_MAX: Final = 100
"""Where no more rows than these have a verdict against them, each of them is shown."""

REWRITTEN_MAX: Final = 3
"""Rows to show that are decided otherwise in hindsight, of each pair of verdicts."""

_AGAINST: Final = np.array([verdict in AGAINST for verdict in VERDICT_NAMES])
_WIDTH: Final = len(VERDICT_NAMES)


class Tally:
    def __init__(self) -> None:
        self.days = ByDay(_WIDTH)
        """Verdicts."""
        self.days_reasons = ByDay(len(REASON_NAMES))
        """Reasons of the rows with a verdict against the request."""
        self.models = ByName(_WIDTH)
        """Verdicts. Null: no model was named."""
        self.reasons = np.zeros((_WIDTH, len(REASON_NAMES)), np.int64)
        """By verdict and reason."""
        self.hindsight = np.zeros((_WIDTH, _WIDTH), np.int64)
        """By the verdict and the one in hindsight, of the rows that are decided otherwise there."""
        self.unsettled = {reason: ByName(1) for reason in UNSETTLED}
        """Indeterminate rows, by reason and then by the ids in `NAMED`, and when the first and last of them were."""
        self.findings = {
            (verdict, reason): Samples(SHOWN_MAX[verdict]) for verdict in SHOWN_MAX for reason in REASON_NAMES
        }
        """Rows with a verdict against them, by it and the reason."""
        self.every = Samples(EVERY_MAX, of_subject_max=EVERY_MAX)
        """The first of them, whatever they are."""
        self.rewritten: dict[tuple[Verdict, Verdict], Samples] = {}
        """Of those rows some, by both verdicts."""
        self.faults = Counter[str]()
        self.rejects: list[LogRow] = []
        """The first ones."""

    def take(self, part: Part, verdicts: pa.RecordBatch) -> None:
        codes = places(verdicts.column("verdict"), VERDICT_NAMES)
        days = self._take_days(verdicts, codes)
        self.models.add(part.requests.column("model_id"), codes)
        rows, reasons = _reasons(verdicts)
        if len(rows):
            self._take_reasons(part, verdicts, codes, days, rows, reasons)
        later = verdicts.column("hindsight")
        if later.null_count < len(later):
            told = np.flatnonzero(later.is_valid().to_numpy(zero_copy_only=False))
            self._take_hindsight(part, verdicts, told, codes[told], places(later.drop_null(), VERDICT_NAMES))

    def reject(self, row: LogRow) -> None:
        if len(self.rejects) < REJECTS_SHOWN:
            self.rejects.append(row)
        fault = row.fault or ""
        self.faults[fault if fault in self.faults or len(self.faults) < FAULTS_MAX else OTHER_FAULTS] += 1

    def _take_days(self, verdicts: pa.RecordBatch, codes: NDArray[Any]) -> Int64s:
        at = _instants(verdicts)
        if not len(at):
            return at
        first, last = int(at.min()) // DAY, int(at.max()) // DAY
        # Logs are in the order of time, more or less: most batches are of one day, and divide nothing.
        days = np.full(len(at), first) if first == last else at // DAY
        self.days.add(days, codes)
        return days

    def _take_hindsight(
        self, part: Part, verdicts: pa.RecordBatch, rows: Int64s, codes: NDArray[Any], later: NDArray[Any]
    ) -> None:
        pairs = codes.astype(np.int64) * _WIDTH + later
        counts = np.bincount(pairs, minlength=_WIDTH * _WIDTH)
        self.hindsight += counts.reshape(_WIDTH, _WIDTH)
        for pair in np.flatnonzero(counts).tolist():
            verdict, then = divmod(pair, _WIDTH)
            samples = self.rewritten.setdefault((VERDICT_NAMES[verdict], VERDICT_NAMES[then]), Samples(REWRITTEN_MAX))
            if not samples.full:
                samples.offer(rows[pairs == pair], part, verdicts)

    def _take_reasons(
        self, part: Part, verdicts: pa.RecordBatch, codes: NDArray[Any], days: Int64s, rows: Int64s, reasons: Int64s
    ) -> None:
        np.add.at(self.reasons, (codes[rows], reasons), 1)
        against = _AGAINST[codes[rows]]
        held, why = rows[against], reasons[against]
        self.days_reasons.add(days[held], why)
        if not self.every.full:
            self.every.offer(np.unique(held), part, verdicts)
        found = codes[held].astype(np.int64) * len(REASON_NAMES) + why
        for pair in np.flatnonzero(np.bincount(found)).tolist():
            verdict, reason = divmod(pair, len(REASON_NAMES))
            samples = self.findings[VERDICT_NAMES[verdict], REASON_NAMES[reason]]
            if not samples.full:
                samples.offer(held[found == pair], part, verdicts)
        unsettled = codes[rows] == INDETERMINATE
        if unsettled.any():
            held, why = rows[unsettled], reasons[unsettled]
            at = _instants(verdicts)
            for name in UNSETTLED:
                chosen = held[why == REASON_NAMES.index(name)]
                if len(chosen):
                    names = _names(part.requests.take(pa.array(chosen)), NAMED[name])
                    self.unsettled[name].add(names, np.zeros(len(chosen), np.int64), at[chosen])


def places(column: pa.Array, names: tuple[str, ...]) -> NDArray[Any]:
    """The codes of a dictionary column without nulls, as places in `names`, whatever its dictionary's own order is."""
    codes: NDArray[Any] = column.indices.to_numpy(zero_copy_only=False)
    held = column.dictionary.to_pylist()
    if tuple(held) == names[: len(held)]:
        return codes
    translated: NDArray[Any] = np.array([names.index(name) for name in held] or [0], np.int64)[codes]
    return translated


def _instants(verdicts: pa.RecordBatch) -> Int64s:
    at: Int64s = verdicts.column("at").view(pa.int64()).to_numpy()
    return at


def _reasons(verdicts: pa.RecordBatch) -> tuple[Int64s, Int64s]:
    """(row, place in REASON_NAMES) of every reason, rows ascending."""
    column = verdicts.column("reasons")
    values = column.flatten()
    if not len(values):
        none = np.zeros(0, np.int64)
        return none, none
    counts = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    return np.repeat(np.arange(len(counts)), counts), places(values, REASON_NAMES).astype(np.int64)


def _names(requests: pa.RecordBatch, ids: tuple[str, ...]) -> pa.Array:
    if not ids:
        return pa.repeat("", requests.num_rows)
    columns = [requests.column(name) for name in ids]
    return pc.binary_join_element_wise(*columns, SEPARATOR, null_handling="replace", null_replacement="")
