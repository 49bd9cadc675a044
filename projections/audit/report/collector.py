"""Collects what a report shows beyond the summary, batch by batch: days, models, missing facts, sample rows.

A `ReportCollector` is a `RowSink` of `projections.audit.run`. It works on whole columns; only the few sample rows
become Python objects. Memory grows with days, models and the ids of undecided rows, not with rows.
Proved by tests/audit/report/test_collector.py, which compares it with counting row by row.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ledger.times import DAY
from projections.audit.counting import AGAINST_CODES, codes_of
from projections.audit.reading.batches import LogBatch
from projections.audit.reading.strict import LogRow
from projections.audit.report.counters import DayCounter, Int64s, NameCounter
from projections.audit.report.row_sampler import RowSampler
from projections.audit.schemas import REASON_NAMES, VERDICT_NAMES
from projections.decisions.model import Reason, Verdict

INDETERMINATE: Final = VERDICT_NAMES.index("indeterminate")

IDS_OF_REASON: Final[dict[Reason, tuple[str, ...]]] = {
    "before_first_record": (),
    "scope_conflict": ("key_id", "project_id", "org_id", "account_id"),
    "unknown_owner": ("key_id", "project_id"),
    "unknown_model": ("model_id",),
    "unknown_region": ("key_id", "project_id", "org_id", "account_id", "model_id"),
    "undecidable_value": ("key_id", "project_id", "org_id", "account_id", "model_id"),
}
"""The reasons that make a verdict indeterminate, each with the ids that it depends on. The report groups rows by these
ids."""
SEPARATOR: Final = "\n"
"""Joins the ids of a group into one name; no id contains it."""

REJECTS_SHOWN: Final = 20
FAULTS_MAX: Final = 1000
"""Different faults that are counted. A fault can name a member of the line, so their number has no limit."""
OTHER_FAULTS: Final = "other reasons"

SHOWN_MAX: Final[dict[Verdict, int]] = {"violation": 5, "denied": 2}
"""Rows to show of each reason, by verdict. A denied question shows less: nothing was done with its data."""
EVERY_MAX: Final = 100
"""If at most this many rows have a verdict against them, the report shows all of them."""
HINDSIGHT_MAX: Final = 3
"""Rows to show of each pair of a verdict and a different verdict in hindsight."""

_IS_AGAINST: Final = np.isin(np.arange(len(VERDICT_NAMES)), AGAINST_CODES)
_VERDICTS: Final = len(VERDICT_NAMES)
_REASONS: Final = len(REASON_NAMES)


class ReportCollector:
    def __init__(self) -> None:
        self.days = DayCounter(_VERDICTS)
        """Rows by day and verdict."""
        self.days_reasons = DayCounter(_REASONS)
        """Rows with a verdict against them, by day and reason."""
        self.models = NameCounter(_VERDICTS)
        """Rows by model and verdict. A null name: the row has no model."""
        self.reasons = np.zeros((_VERDICTS, _REASONS), np.int64)
        """Rows by verdict and reason."""
        self.hindsight = np.zeros((_VERDICTS, _VERDICTS), np.int64)
        """Rows that hindsight decides differently, by verdict and verdict in hindsight."""
        self.undecided = {reason: NameCounter(1) for reason in IDS_OF_REASON}
        """Indeterminate rows by reason and then by the ids of IDS_OF_REASON, with their first and last instants."""
        self.findings = {
            (verdict, reason): RowSampler(rows_max)
            for verdict, rows_max in SHOWN_MAX.items()
            for reason in REASON_NAMES
        }
        """Sample rows with a verdict against them, by verdict and reason."""
        self.every = RowSampler(EVERY_MAX, of_subject_max=EVERY_MAX)
        """The first rows with a verdict against them."""
        self.hindsight_rows: dict[tuple[Verdict, Verdict], RowSampler] = {}
        """Sample rows that hindsight decides differently, by both verdicts."""
        self.faults = Counter[str]()
        self.rejects: list[LogRow] = []
        """The first rejected lines."""

    def take(self, part: LogBatch, verdicts: pa.RecordBatch) -> None:
        codes = codes_of(verdicts.column("verdict"), VERDICT_NAMES).astype(np.int64)
        at: Int64s = verdicts.column("at").view(pa.int64()).to_numpy()
        days = _days(at)
        self.days.add(days, codes)
        self.models.add(part.requests.column("model_id"), codes)
        rows, reasons = _reasons(verdicts)
        if len(rows):
            np.add.at(self.reasons, (codes[rows], reasons), 1)
            against = _IS_AGAINST[codes[rows]]
            self.days_reasons.add(days[rows[against]], reasons[against])
            self._sample_findings(part, verdicts, codes, rows[against], reasons[against])
            undecided = codes[rows] == INDETERMINATE
            self._count_undecided(part, at, rows[undecided], reasons[undecided])
        self._take_hindsight(part, verdicts, codes)

    def reject(self, row: LogRow) -> None:
        if len(self.rejects) < REJECTS_SHOWN:
            self.rejects.append(row)
        fault = row.fault or ""
        self.faults[fault if fault in self.faults or len(self.faults) < FAULTS_MAX else OTHER_FAULTS] += 1

    def _sample_findings(
        self, part: LogBatch, verdicts: pa.RecordBatch, codes: Int64s, rows: Int64s, reasons: Int64s
    ) -> None:
        if not self.every.full:
            self.every.offer(np.unique(rows), part, verdicts)
        pairs = codes[rows] * _REASONS + reasons
        for pair in np.flatnonzero(np.bincount(pairs)).tolist():
            verdict, reason = divmod(pair, _REASONS)
            sampler = self.findings[VERDICT_NAMES[verdict], REASON_NAMES[reason]]
            if not sampler.full:
                sampler.offer(rows[pairs == pair], part, verdicts)

    def _count_undecided(self, part: LogBatch, at: Int64s, rows: Int64s, reasons: Int64s) -> None:
        if not len(rows):
            return
        for reason, ids in IDS_OF_REASON.items():
            chosen = rows[reasons == REASON_NAMES.index(reason)]
            if len(chosen):
                names = _joined(part.requests.take(pa.array(chosen)), ids)
                self.undecided[reason].add(names, np.zeros(len(chosen), np.int64), at[chosen])

    def _take_hindsight(self, part: LogBatch, verdicts: pa.RecordBatch, codes: Int64s) -> None:
        column = verdicts.column("hindsight")
        if column.null_count == len(column):
            return
        rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        pairs = codes[rows] * _VERDICTS + codes_of(column.drop_null(), VERDICT_NAMES)
        counts = np.bincount(pairs, minlength=_VERDICTS * _VERDICTS)
        self.hindsight += counts.reshape(_VERDICTS, _VERDICTS)
        for pair in np.flatnonzero(counts).tolist():
            verdict, later = divmod(pair, _VERDICTS)
            names = VERDICT_NAMES[verdict], VERDICT_NAMES[later]
            sampler = self.hindsight_rows.setdefault(names, RowSampler(HINDSIGHT_MAX))
            if not sampler.full:
                sampler.offer(rows[pairs == pair], part, verdicts)


def _days(at: Int64s) -> Int64s:
    if not len(at):
        return at
    first, last = int(at.min()) // DAY, int(at.max()) // DAY
    # Logs are more or less in the order of time, so most batches lie in one day and need no division of a column.
    return np.full(len(at), first) if first == last else at // DAY


def _reasons(verdicts: pa.RecordBatch) -> tuple[Int64s, Int64s]:
    """(row index, code) of every reason, ascending by row."""
    column = verdicts.column("reasons")
    counts: NDArray[Any] = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    codes = codes_of(column.flatten(), REASON_NAMES).astype(np.int64)
    return np.repeat(np.arange(len(counts)), counts), codes


def _joined(requests: pa.RecordBatch, ids: tuple[str, ...]) -> pa.Array:
    if not ids:
        return pa.repeat("", requests.num_rows)
    columns = [requests.column(name) for name in ids]
    return pc.binary_join_element_wise(*columns, SEPARATOR, null_handling="replace", null_replacement="")
