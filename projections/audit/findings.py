"""The rows of an audit that its reader looks for first: those whose verdict speaks against the request."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa

from projections.audit.counting import codes_of
from projections.audit.schemas import VERDICT_NAMES
from projections.audit.summary import AGAINST

_AGAINST: Final = np.array([name in AGAINST for name in VERDICT_NAMES])


def against(verdicts: pa.RecordBatch) -> Any:
    """The places of these rows in a VERDICTS batch, ascending."""
    return np.flatnonzero(_AGAINST[codes_of(verdicts.column("verdict"), VERDICT_NAMES)])
