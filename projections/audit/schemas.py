"""The two shapes of a bulk audit: what is asked, a batch of request records, and what comes back, a batch of verdicts.

They are the types of `projections.decisions.model` laid out in columns (Apache Arrow). Whoever reads a log makes
REQUESTS of
it, every bulk path makes VERDICTS of those, row by row and in their order. Instants are in µs.
Proved by tests/audit/kernel.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, get_args

import pyarrow as pa

from projections.decisions.model import REASONS, Reason, Verdict

VERDICT_NAMES: Final[tuple[Verdict, ...]] = get_args(Verdict)
"""The codes of `verdict` and `hindsight`: places in this tuple, in every batch the same."""
REASON_NAMES: Final[tuple[Reason, ...]] = tuple(REASONS)
"""The codes of `reasons`: places in this tuple, which is also the order in which a row's reasons stand."""
DATA_POLICY_NAMES: Final = ("platform", "provider")

OBSERVED: Final = ("stored", "cached", "trained", "forwarded_to", "region", "network")
"""The columns of what was done with the data. A row where all are null is a question: nothing was observed."""

INSTANT: Final = pa.timestamp("us", tz="UTC")
_NAME: Final = pa.dictionary(pa.int8(), pa.string())

REQUESTS: Final = pa.schema(
    [
        pa.field("request_id", pa.string()),
        pa.field("at", INSTANT, nullable=False),
        pa.field("key_id", pa.string()),
        pa.field("account_id", pa.string()),
        pa.field("org_id", pa.string()),
        pa.field("project_id", pa.string()),
        pa.field("model_id", pa.string()),
        pa.field("enforced_position", pa.int64()),
        pa.field("stored", pa.bool_()),
        pa.field("cached", pa.bool_()),
        pa.field("trained", pa.bool_()),
        pa.field("forwarded_to", pa.string()),
        pa.field("region", pa.string()),
        pa.field("network", pa.string()),
    ]
)
"""Each row is a request record as `read_record` accepts it: one of the four ids of who asked is there, ids keep their
grammar, `at` lies in [BEGINNING, END), texts have 1 to 256 characters, and `network` is public or private."""

VERDICTS: Final = pa.schema(
    [
        pa.field("request_id", pa.string()),
        pa.field("at", INSTANT, nullable=False),
        pa.field("verdict", _NAME, nullable=False),
        pa.field("reasons", pa.list_(_NAME), nullable=False),
        pa.field("governed_by", pa.string()),
        pa.field("may_store", pa.bool_(), nullable=False),
        pa.field("may_cache", pa.bool_(), nullable=False),
        pa.field("may_train", pa.bool_(), nullable=False),
        pa.field("may_leave_platform", pa.bool_(), nullable=False),
        pa.field("allowed_regions", pa.list_(pa.string())),
        pa.field("private_network_required", pa.bool_(), nullable=False),
        pa.field("data_policy", _NAME, nullable=False),
        pa.field("provider", pa.string()),
        pa.field("policy_url", pa.string()),
        pa.field("deciding_positions", pa.list_(pa.int64()), nullable=False),
        pa.field("hindsight", _NAME),
        pa.field("enforcement_lag_us", pa.int64()),
        pa.field("lag_position", pa.int64()),
    ]
)
"""A decision without its evidence's details.

governed_by: null where nobody can be said to govern. allowed_regions: null is anywhere, empty is nowhere. provider,
policy_url: of a `provider` data policy, where they are known. deciding_positions: of the explicit states in the
evidence, in its order, each once. hindsight: the verdict with everything that was recorded since, null where neither
verdict nor handling is another. enforcement_lag_us, lag_position: both or neither.
"""


class DecidedBatch(NamedTuple):
    """A VERDICTS batch. `governing`, where whoever decided knows it: of each row the place in `references` of the
    subject that governs, or less than 0 where the row alone names it, or nobody can be said to (int32)."""

    verdicts: pa.RecordBatch
    governing: Any = None
    references: Any = None
