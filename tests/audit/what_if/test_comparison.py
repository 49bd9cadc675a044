"""The rows in which two VERDICTS batches differ, in each column; null and empty are different."""

from typing import Any

import pyarrow as pa
import pytest

from projections.audit.schemas import REQUESTS, VERDICTS
from projections.audit.what_if.comparison import difference_batch, differing_rows, reason_bits
from projections.audit.what_if.numbering import Numbering

PLAIN: dict[str, Any] = {
    "request_id": "r1",
    "at": 0,
    "verdict": "allowed",
    "reasons": [],
    "governed_by": "org:acme",
    "subject_known": True,
    "may_store": False,
    "may_cache": True,
    "may_train": False,
    "may_leave_platform": False,
    "allowed_regions": None,
    "private_network_required": False,
    "data_policy": "platform",
    "provider": None,
    "policy_url": None,
    "deciding_positions": [],
    "hindsight": None,
    "enforcement_lag_us": None,
    "lag_position": None,
}


def batch(*rows: dict[str, Any]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([PLAIN | row for row in rows], schema=VERDICTS)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"verdict": "allowed"}, {"verdict": "denied"}),
        ({"reasons": ["left_platform"]}, {"reasons": ["left_platform", "wrong_provider"]}),
        ({"reasons": ["left_platform"]}, {"reasons": ["wrong_provider"]}),
        ({"governed_by": None}, {"governed_by": "org:acme"}),
        ({"governed_by": "account:acme"}, {"governed_by": "org:acme"}),
        ({"may_store": True}, {"may_store": False}),
        ({"private_network_required": True}, {"private_network_required": False}),
        ({"allowed_regions": None}, {"allowed_regions": []}),
        ({"allowed_regions": [""]}, {"allowed_regions": []}),
        ({"allowed_regions": ["a", "b"]}, {"allowed_regions": ["ab"]}),
        ({"allowed_regions": ["a", "b"]}, {"allowed_regions": ["b", "a"]}),
        ({"data_policy": "provider"}, {"data_policy": "platform"}),
        ({"provider": ""}, {"provider": None}),
        ({"policy_url": "a"}, {"policy_url": "b"}),
    ],
)
def test_a_difference_counts_for_its_row_only(one: dict[str, Any], other: dict[str, Any]) -> None:
    same = [{}, one, {"allowed_regions": ["a", "b"], "reasons": ["left_platform"]}]
    before, after = batch(*same, one, *same), batch(*same, other, *same)
    assert differing_rows(before, after).tolist() == differing_rows(after, before).tolist() == [3]
    # Batches may be slices.
    assert differing_rows(before.slice(2), after.slice(2)).tolist() == [1]
    assert not len(differing_rows(before, before))


@pytest.mark.parametrize(
    "other",
    [{"deciding_positions": [1]}, {"hindsight": "denied"}, {"enforcement_lag_us": 3, "lag_position": 4}],
)
def test_positions_lag_and_hindsight_make_no_difference_alone(other: dict[str, Any]) -> None:
    assert not len(differing_rows(batch({}), batch(other)))


def test_both_sides_show_the_ledger_s_own_positions() -> None:
    numbering = Numbering([5, 5], [7, 2])
    before = batch({}, {"deciding_positions": [1, 6], "lag_position": 6, "enforcement_lag_us": 9})
    after = batch({}, {"deciding_positions": [1, 6, 7, 8], "lag_position": 7, "enforcement_lag_us": 3})
    requests = pa.RecordBatch.from_pylist([{"at": 0, "model_id": "a"}, {"at": 0, "model_id": "b"}], schema=REQUESTS)
    (row,) = difference_batch(
        requests, before, after, differing_rows(batch({}, {"may_store": True}), batch({}, {})), numbering
    ).to_pylist()
    assert row["model_id"] == "b"
    assert (row["before_deciding_positions"], row["after_deciding_positions"]) == ([1, 6], [1, -7, -2, 6])
    assert (row["before_lag_position"], row["after_lag_position"]) == (6, -2)
    assert (row["before_enforcement_lag_us"], row["after_enforcement_lag_us"]) == (9, 3)


def test_reasons_as_bits() -> None:
    bits = reason_bits(batch({}, {"reasons": ["before_first_record", "enforcement_lag"]}, {}).column("reasons"))
    assert bits.tolist() == [0, 1 | 1 << 17, 0]
