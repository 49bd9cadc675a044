"""The rows that a report shows: the first few of every reason, and not all of one subject.

Which rows they are depends on the log alone, and not on how it was cut into batches.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from projections.audit.reading.batches import Part
from projections.audit.reference import records
from projections.audit.report.counters import Int64s
from projections.decisions.model import Reason, RequestRecord, Verdict

OF_SUBJECT_MAX: Final = 2
"""Rows shown of one governing subject."""


class Sample(NamedTuple):
    """A row of a log, where it stands, and the verdict on it."""

    source: str
    line: int
    record: RequestRecord
    verdict: Verdict
    reasons: tuple[Reason, ...]


class Samples:
    """Of one reason, or of whatever else rows have in common."""

    def __init__(self, each_max: int, of_subject_max: int = OF_SUBJECT_MAX) -> None:
        self.rows: list[Sample] = []
        self._each_max = each_max
        self._of_subject_max = of_subject_max
        self._subjects: dict[str | None, int] = {}

    @property
    def full(self) -> bool:
        return len(self.rows) >= self._each_max

    def offer(self, rows: Int64s, part: Part, verdicts: pa.RecordBatch) -> None:
        """Takes of these rows of the part, which are ascending, those that there is room for."""
        if self.full or not len(rows):
            return
        governed = verdicts.column("governed_by").take(pa.array(rows)).dictionary_encode(null_encoding="encode")
        codes = governed.indices.to_numpy()
        wanted: dict[int, str | None] = {}
        # Subjects come in the order of their first rows: when each had its first row taken, the rest lie behind.
        for code, name in enumerate(governed.dictionary.slice(0, self._each_max + len(self._subjects)).to_pylist()):
            room = self._of_subject_max - self._subjects.get(name, 0)
            if room > 0:
                wanted |= dict.fromkeys(rows[np.flatnonzero(codes == code)[:room]].tolist(), name)
        chosen = sorted(wanted)[: self._each_max - len(self.rows)]
        for row in chosen:
            self._subjects[wanted[row]] = self._subjects.get(wanted[row], 0) + 1
        self.rows += samples(chosen, part, verdicts)


def samples(rows: list[int], part: Part, verdicts: pa.RecordBatch) -> list[Sample]:
    """These rows of the part."""
    places = pa.array(rows, pa.int64())
    found = verdicts.select(["verdict", "reasons"]).take(places).to_pylist()
    asked = records(part.requests.take(places))
    return [
        Sample(part.source, int(part.lines[row]), record, said["verdict"], tuple(said["reasons"]))
        for row, record, said in zip(rows, asked, found, strict=True)
    ]
