"""The rows of an audit that its reader looks for first: those whose verdict speaks against the request."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from projections.audit.counting import AGAINST_CODES, codes_of
from projections.audit.schemas import VERDICT_NAMES


def against(verdicts: pa.RecordBatch) -> Any:
    """The places of these rows in a VERDICTS batch, ascending."""
    return np.flatnonzero(np.isin(codes_of(verdicts.column("verdict"), VERDICT_NAMES), AGAINST_CODES))
