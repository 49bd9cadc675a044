"""Rows whose enforcement lag hangs on a retraction, for the engine that does not decide them: `check` itself does.

They are few: the gateway enforced an older position, something was done that was not permitted, and something that the
decision looked at was taken back since. Proved by tests/audit/kernel/test_against_reference.py.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from projections.audit.index.schema import PolicyIndex
from projections.audit.kernel.answers import Answers
from projections.audit.kernel.states import IndexStates
from projections.audit.reference import records
from projections.audit.schemas import REASON_NAMES
from projections.decisions.check import check


def tell(index: PolicyIndex, batch: pa.RecordBatch, found: Answers) -> None:
    """Writes the reasons and the lag of each row that is to be looked at `again`."""
    rows = np.flatnonzero(found.again)
    if not len(rows):
        return
    for row, record in zip(rows.tolist(), records(batch.take(pa.array(rows))), strict=True):
        outcome = check(record, IndexStates(index, record.at))
        lag = outcome.enforcement_lag
        found.reasons[row] = sum(1 << REASON_NAMES.index(reason) for reason in outcome.reasons)
        found.lags[row] = (0, 0) if lag is None else (lag.lag_us, lag.deciding_position)
