"""The two Arrow schemas of an audit: REQUESTS, a batch of request records, and VERDICTS, a batch of decisions.

They are the types of `projections.decisions.model` in columns. The readers of logs produce REQUESTS; every bulk path
turns them into VERDICTS, row by row and in order. Instants are in µs.
Proved by tests/audit/kernel.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, get_args

import pyarrow as pa

from projections.decisions.model import REASONS, Observed, Reason, Verdict

VERDICT_NAMES: Final[tuple[Verdict, ...]] = get_args(Verdict)
"""The codes of `verdict` and `hindsight` are places in this tuple, the same in every batch."""
REASON_NAMES: Final[tuple[Reason, ...]] = tuple(REASONS)
"""The codes of `reasons` are places in this tuple, which is also the order of a row's reasons."""
DATA_POLICY_NAMES: Final = ("platform", "provider")

OBSERVED: Final = Observed._fields
"""The columns of observed handling. A row in which all are null is a question."""

INSTANT: Final = pa.timestamp("us", tz="UTC")
_NAME: Final = pa.dictionary(pa.int8(), pa.string())

POLICY_COLUMNS: Final = {
    "provider": ("name", pa.string()),
    "policy_url": ("url", pa.string()),
    "provider_subject": ("provider", pa.string()),
    "provider_policy_sha256": ("policy_sha256", pa.string()),
    "provider_trains": ("trains", pa.bool_()),
    "provider_stores": ("stores", pa.bool_()),
    "provider_retention_days": ("retention_days", pa.int64()),
    "provider_regions": ("regions", pa.list_(pa.string())),
}
"""Column of VERDICTS → the member of `DataPolicy`, and its type."""

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
        pa.field("precision", pa.string()),
        pa.field("distilled", pa.bool_()),
        pa.field("system_prompt_forced", pa.bool_()),
        pa.field("censored", pa.bool_()),
        pa.field("revision", pa.string()),
    ]
)
"""Each row is a request record that `read_record` would accept: it has one of the first four ids, ids keep their
grammar, `at` lies in [BEGINNING, END), texts have 1 to 256 characters, and `network` is public or private."""

_HAPPENED: Final = {b"happened": b"true"}


def as_happened(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with the mark that its rows are requests that happened, also where nothing was observed: it stands in
    the metadata of its schema, which the parts of a batch keep."""
    return batch.replace_schema_metadata(_HAPPENED)


def is_happened(batch: pa.RecordBatch) -> bool:
    return bool(batch.schema.metadata == _HAPPENED)


def observes(batch: pa.RecordBatch) -> bool:
    """Whether any row has observed handling."""
    return any(batch.column(name).null_count < batch.num_rows for name in OBSERVED)


VERDICTS: Final = pa.schema(
    [
        pa.field("request_id", pa.string()),
        pa.field("at", INSTANT, nullable=False),
        pa.field("verdict", _NAME, nullable=False),
        pa.field("reasons", pa.list_(_NAME), nullable=False),
        pa.field("governed_by", pa.string()),
        pa.field("subject_known", pa.bool_(), nullable=False),
        pa.field("may_store", pa.bool_(), nullable=False),
        pa.field("may_cache", pa.bool_(), nullable=False),
        pa.field("may_train", pa.bool_(), nullable=False),
        pa.field("may_leave_platform", pa.bool_(), nullable=False),
        pa.field("allowed_regions", pa.list_(pa.string())),
        pa.field("private_network_required", pa.bool_(), nullable=False),
        pa.field("data_policy", _NAME, nullable=False),
        *(pa.field(column, type_) for column, (_, type_) in POLICY_COLUMNS.items()),
        pa.field("deciding_positions", pa.list_(pa.int64()), nullable=False),
        pa.field("hindsight", _NAME),
        pa.field("enforcement_lag_us", pa.int64()),
        pa.field("lag_position", pa.int64()),
    ]
)
"""A decision without its evidence's details.

governed_by: null if nobody governs. subject_known: whether the ledger had an event of that subject.
allowed_regions: null is anywhere, empty is nowhere. provider to provider_regions: of a `provider` data policy, null
where nobody recorded it. deciding_positions: of the explicit states in the evidence, in its order, each once.
hindsight: the verdict with everything recorded since, null if neither verdict nor handling differs. enforcement_lag_us,
lag_position: both or neither.
"""


class DecidedBatch(NamedTuple):
    """A VERDICTS batch. `governing` (int32, optional): by row, the place of the governing subject in `references`, or
    less than 0 where only the row has its name or nobody governs. `policy_codes` (int32, optional): by row, the place
    of the provider's data policy in `policies`, or less than 0 for the platform's."""

    verdicts: pa.RecordBatch
    governing: Any = None
    references: Any = None
    policy_codes: Any = None
    policies: Any = None
