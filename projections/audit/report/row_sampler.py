"""The rows that a report shows: the first few rows with a reason, and at most two rows of one governing subject.

The choice depends on the log alone, not on the size of the batches.
Proved by tests/audit/report/test_collector.py.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from projections.audit.reading.batches import LogBatch
from projections.audit.reference import records
from projections.audit.report.counters import Int64s
from projections.decisions.model import Reason, RequestRecord, Verdict

OF_SUBJECT_MAX: Final = 2
"""Rows of one governing subject."""


class RowSample(NamedTuple):
    """A row of a log, its file and line, and the verdict on it."""

    source: str
    line: int
    record: RequestRecord
    verdict: Verdict
    reasons: tuple[Reason, ...]


class RowSampler:
    """Keeps the first rows that belong together, for example the rows with the same reason."""

    def __init__(self, rows_max: int, of_subject_max: int = OF_SUBJECT_MAX) -> None:
        self.rows: list[RowSample] = []
        self._rows_max = rows_max
        self._of_subject_max = of_subject_max
        self._rows_of: dict[str | None, int] = {}

    @property
    def full(self) -> bool:
        return len(self.rows) >= self._rows_max

    def offer(self, rows: Int64s, part: LogBatch, verdicts: pa.RecordBatch) -> None:
        """Keeps as many of these rows of the batch as there is room for. `rows` are indices, ascending."""
        if self.full or not len(rows):
            return
        governed = verdicts.column("governed_by").take(pa.array(rows)).dictionary_encode(null_encoding="encode")
        codes = governed.indices.to_numpy()
        subject_of: dict[int, str | None] = {}
        # The dictionary lists subjects in the order of their first rows. After as many subjects as there are rows to
        # keep and subjects with rows already, no later subject can still get a row.
        for code, name in enumerate(governed.dictionary.slice(0, self._rows_max + len(self._rows_of)).to_pylist()):
            room = self._of_subject_max - self._rows_of.get(name, 0)
            if room > 0:
                subject_of |= dict.fromkeys(rows[np.flatnonzero(codes == code)[:room]].tolist(), name)
        chosen = sorted(subject_of)[: self._rows_max - len(self.rows)]
        for row in chosen:
            self._rows_of[subject_of[row]] = self._rows_of.get(subject_of[row], 0) + 1
        self.rows += _samples(chosen, part, verdicts)


def _samples(rows: list[int], part: LogBatch, verdicts: pa.RecordBatch) -> list[RowSample]:
    indices = pa.array(rows, pa.int64())
    requests = records(part.requests.take(indices))
    answers = verdicts.select(["verdict", "reasons"]).take(indices).to_pylist()
    return [
        RowSample(part.source, int(part.lines[row]), record, answer["verdict"], tuple(answer["reasons"]))
        for row, record, answer in zip(rows, requests, answers, strict=True)
    ]
