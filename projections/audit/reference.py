"""The slow, obvious bulk path: each row of a batch becomes a request record, which `check` decides.

Tests compare every fast path with it. It also defines the row that a decision becomes, for the paths without compiled
code.
Proved by tests/audit/kernel/test_reference.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from projections.audit.schemas import (
    DATA_POLICY_NAMES,
    OBSERVED,
    POLICY_COLUMNS,
    REASON_NAMES,
    VERDICT_NAMES,
    VERDICTS,
    is_happened,
)
from projections.decisions.model import NOTHING_OBSERVED, Decision, Observed, RequestRecord
from projections.query.query import IN_FORCE, KnownAt, PinnedQuery


def decide_slowly(query: PinnedQuery, batch: pa.RecordBatch, known_at: KnownAt = IN_FORCE) -> pa.RecordBatch:
    """REQUESTS → VERDICTS, row by row in order, at the query's pin."""
    return verdicts(query.check_all(records(batch), known_at))


def records(batch: pa.RecordBatch) -> list[RequestRecord]:
    """The rows of a REQUESTS batch. One without observed handling is a question, unless the batch `is_happened`."""
    # As numbers, because an instant just before END rounds to the year 10000, which a datetime cannot hold.
    instants = batch.column("at").cast(pa.int64()).to_pylist()
    requests = []
    happened = is_happened(batch)
    for at, row in zip(instants, batch.drop_columns(["at"]).to_pylist(), strict=True):
        observed = Observed(*(row.pop(name) for name in OBSERVED))
        is_question = observed == NOTHING_OBSERVED and not happened
        requests.append(RequestRecord(at=at, handling=None if is_question else observed, **row))
    return requests


def verdicts(decisions: list[Decision]) -> pa.RecordBatch:
    """The decisions as a VERDICTS batch, in their order."""
    rows = [verdict_row(decision) for decision in decisions]
    columns = []
    for field in VERDICTS:
        values = [row[field.name] for row in rows]
        if field.name == "reasons":
            offsets = pa.array(np.cumsum([0, *map(len, values)], dtype=np.int32))
            columns.append(
                pa.ListArray.from_arrays(offsets, _named([one for row in values for one in row], REASON_NAMES))
            )
        elif pa.types.is_dictionary(field.type):
            columns.append(_named(values, DATA_POLICY_NAMES if field.name == "data_policy" else VERDICT_NAMES))
        else:
            columns.append(pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(columns, schema=VERDICTS)


def _named(words: list[str | None], names: Sequence[str]) -> pa.Array:
    """With the same codes in every batch; Arrow itself would number the words in the order of their first use."""
    codes = pa.array([None if name is None else names.index(name) for name in words], pa.int8())
    return pa.DictionaryArray.from_arrays(codes, pa.array(names))


def verdict_row(decision: Decision) -> dict[str, Any]:
    """The decision as a row of VERDICTS, its `at` in µs."""
    outcome, handling, lag = decision.outcome, decision.outcome.handling, decision.outcome.enforcement_lag
    policy, regions = handling.data_policy, handling.allowed_regions
    positions = [s.change.position for s in outcome.evidence if s.source == "explicit" and s.change is not None]
    return {
        "request_id": decision.request_id,
        "at": decision.as_of.at,
        "verdict": outcome.verdict,
        "reasons": list(outcome.reasons),
        "governed_by": outcome.governed_by.subject,
        "subject_known": outcome.governed_by.known,
        "may_store": handling.may_store,
        "may_cache": handling.may_cache,
        "may_train": handling.may_train,
        "may_leave_platform": handling.may_leave_platform,
        "allowed_regions": None if regions is None else list(regions),
        "private_network_required": handling.private_network_required,
        "data_policy": policy.by,
        **{column: getattr(policy, member) for column, (member, _) in POLICY_COLUMNS.items()},
        "deciding_positions": list(dict.fromkeys(positions)),
        "hindsight": None if decision.hindsight is None else decision.hindsight.outcome.verdict,
        "enforcement_lag_us": None if lag is None else lag.lag_us,
        "lag_position": None if lag is None else lag.deciding_position,
    }
