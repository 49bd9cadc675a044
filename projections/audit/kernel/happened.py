"""Rows without observed handling, judged as requests that happened: a denied question is a violation.

The compiled rules know such a row as a question only. The name of the verdict differs, and so can a lag that excuses
the row: `check` itself decides on the few rows that name the position that their gateway enforced.
Proved by tests/audit/kernel/test_happened.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from projections.audit.reference import records, verdicts
from projections.audit.schemas import OBSERVED, VERDICT_NAMES, DecidedBatch
from projections.decisions.model import Decision, RequestRecord, Verdict

_AS_DONE: Final[dict[Verdict, Verdict]] = {"denied": "violation", "allowed": "compliant"}
_CODES: Final = np.array([VERDICT_NAMES.index(_AS_DONE.get(name, name)) for name in VERDICT_NAMES], np.int8)
_DENIED: Final = VERDICT_NAMES.index("denied")
_BY_LAG: Final = ("reasons", "enforcement_lag_us", "lag_position")


def as_done(batch: pa.RecordBatch, decided: DecidedBatch, decide: Callable[[RequestRecord], Decision]) -> DecidedBatch:
    """The answers of a batch whose rows all happened. `decided`: with its questions as questions. `decide`: by
    `check`."""
    questions = ~np.logical_or.reduce([_valid(batch.column(name)) for name in OBSERVED])
    if not questions.any():
        return decided
    rows = decided.verdicts
    denied = questions & (rows.column("verdict").indices.to_numpy() == _DENIED)
    columns = {name: rows.column(name) for name in rows.schema.names}
    for name in ("verdict", "hindsight"):
        columns[name] = _renamed(columns[name], questions)
    lagging = np.flatnonzero(denied & _valid(batch.column("enforced_position")))
    if len(lagging):
        exact = verdicts([decide(record) for record in records(batch.take(pa.array(lagging)))])
        places = np.arange(batch.num_rows)
        places[lagging] = batch.num_rows + np.arange(len(lagging))
        for name in _BY_LAG:
            columns[name] = pa.concat_arrays([columns[name], exact.column(name)]).take(pa.array(places))
    return decided._replace(verdicts=pa.RecordBatch.from_arrays(list(columns.values()), schema=rows.schema))


def _valid(column: pa.Array) -> Any:
    return column.is_valid().to_numpy(zero_copy_only=False)


def _renamed(column: pa.DictionaryArray, questions: Any) -> pa.DictionaryArray:
    codes = pc.fill_null(column.indices, 0).to_numpy()
    renamed = np.where(questions, _CODES[codes], codes).astype(np.int8)
    return pa.DictionaryArray.from_arrays(pa.array(renamed, mask=~_valid(column)), column.dictionary)
