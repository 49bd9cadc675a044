"""The counts of requests that are decided differently, and their JSON."""

from typing import Any

import pyarrow as pa

from projections.audit.schemas import REQUESTS
from projections.audit.what_if.comparison import difference_batch, differing_rows
from projections.audit.what_if.numbering import Numbering
from projections.audit.what_if.radius import Radius, radius_json
from projections.temporal.coordinates import IN_FORCE, Pin
from tests.audit.what_if.test_comparison import batch

PIN = Pin("test.example/ledger", 7, 5, "ab")


def counted(*pairs: tuple[dict[str, Any], dict[str, Any]]) -> Radius:
    radius = Radius(PIN, IN_FORCE, 1)
    for at, (one, other) in enumerate(pairs):
        request = {"at": at, "model_id": one.pop("model", None)}
        requests = pa.RecordBatch.from_pylist([request], schema=REQUESTS)
        before, after = batch({"at": at} | one), batch({"at": at} | other)
        rows = differing_rows(before, after)
        radius.take(1, difference_batch(requests, before, after, rows, Numbering([7], [1])))
    return radius


def test_only_differing_requests_are_counted() -> None:
    violation = {"verdict": "violation", "reasons": ["trained_without_opt_in"]}
    radius = counted(
        ({}, {}),
        ({"verdict": "compliant", "may_train": True, "model": "m"}, violation),
        (dict(violation), {"verdict": "compliant", "may_train": True}),
        ({"governed_by": "account:u", "verdict": "compliant"}, {"governed_by": None, "verdict": "indeterminate"}),
        (dict(violation), {"verdict": "violation", "reasons": ["enforcement_lag"]}),
        ({}, {}),
    )
    document = radius_json(radius)
    assert document["requests"] == 6
    assert document["otherwise"] == 4
    assert (document["turned_against"], document["turned_for"]) == (1, 1)
    assert document["verdicts"] == [
        {"before": "compliant", "after": "violation", "requests": 1},
        {"before": "compliant", "after": "indeterminate", "requests": 1},
        {"before": "violation", "after": "compliant", "requests": 1},
        {"before": "violation", "after": "violation", "requests": 1},
    ]
    assert document["reasons_gone"] == {"trained_without_opt_in": 2}
    assert document["reasons_new"] == {"trained_without_opt_in": 1, "enforcement_lag": 1}
    assert document["handling"] == {"may_train": 2}
    assert document["subjects"] == [
        {"subject": "org:acme", "requests": 3},
        {"subject": None, "requests": 1},
        {"subject": "account:u", "requests": 1},
    ]
    assert document["models"] == [{"model_id": None, "requests": 3}, {"model_id": "m", "requests": 1}]
    assert (document["first_at"], document["last_at"]) == ("1970-01-01T00:00:00.000001Z", "1970-01-01T00:00:00.000004Z")
    assert document["pin"]["position"] == 7


def test_no_request_differs() -> None:
    document = radius_json(counted(({}, {"hindsight": "denied"})))
    assert (document["requests"], document["otherwise"], document["verdicts"], document["first_at"]) == (1, 0, [], None)
