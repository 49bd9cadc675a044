"""A batch of requests becomes records, and a batch of verdicts has the content of the decisions."""

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.times import BEGINNING, END
from projections.audit.reading.batches import request_batch
from projections.audit.reference import decide_slowly, records, verdicts
from projections.audit.schemas import REQUESTS, VERDICTS
from projections.decisions.model import NOTHING_OBSERVED, Decision, Observed, RequestRecord, decision_json
from projections.query.query import IN_FORCE, PinnedQuery
from tests.audit.strategies import grown
from tests.query.test_against_reference import grown as grown_at_random
from tests.support.questions import NOON, QueryLedger

FLAG = st.none() | st.booleans()
NAME = st.none() | st.sampled_from(("a", "é" * 256, "東"))
DONE = st.builds(Observed, FLAG, FLAG, FLAG, NAME, NAME, st.sampled_from((None, "public", "private")))
RECORDS = st.builds(
    RequestRecord,
    at=st.integers(BEGINNING, END - 1),
    key_id=NAME,
    account_id=st.just("u1"),
    org_id=NAME,
    project_id=NAME,
    model_id=NAME,
    request_id=NAME,
    enforced_position=st.none() | st.integers(0, 2**63 - 1),
    handling=st.none() | DONE.filter(lambda done: done != NOTHING_OBSERVED),
)


@given(st.lists(RECORDS, max_size=6))
def test_records_survive_a_batch(request_records: list[RequestRecord]) -> None:
    batch = request_batch(request_records)
    assert batch.schema == REQUESTS
    assert records(batch) == request_records


def test_a_record_with_nothing_observed_has_no_handling() -> None:
    record = RequestRecord(NOON, "k", None, None, None, None, None, None, NOTHING_OBSERVED)
    assert records(request_batch([record])) == [record._replace(handling=None)]


@pytest.fixture
def bench() -> Iterator[QueryLedger]:
    with grown([]) as made:
        yield made


def random_record(chance: Random, positions: int) -> RequestRecord:
    stored, cached, trained = (chance.choice((True, False, None)) for _ in range(3))
    done = Observed(stored, cached, trained, chance.choice(("x", None)), None, None)
    key, account, org, project = (
        chance.choice((*some, None)) for some in (("k1", "k2"), ("u1", "u2"), ("acme", "zz"), ("p1",))
    )
    model, position = chance.choice(("m1", "m2", None)), chance.choice((None, chance.randrange(positions)))
    if (key, account, org, project) == (None, None, None, None):
        account = "u1"
    at = NOON + chance.randint(-8, 90)
    return RequestRecord(
        at, key, account, org, project, model, f"r{at}", position, None if done == NOTHING_OBSERVED else done
    )


def test_each_row_equals_its_decision(bench: QueryLedger) -> None:
    chance = Random(8)
    grown_at_random(bench, chance, range(60))
    query = PinnedQuery(bench.query)
    request_records = [random_record(chance, query.pinned.position) for _ in range(600)]
    decisions = query.check_all(request_records)
    batch = verdicts(decisions)
    assert batch.schema == VERDICTS
    assert batch.equals(decide_slowly(query, request_batch(request_records), IN_FORCE))
    for row, decision in zip(batch.to_pylist(), decisions, strict=True):
        assert_says(row, decision)
    seen = {name for name in VERDICTS.names if any(row[name] for row in batch.to_pylist())}
    assert seen >= {"reasons", "governed_by", "deciding_positions", "hindsight", "enforcement_lag_us", "lag_position"}


def assert_says(row: dict[str, object], decision: Decision) -> None:
    """Compares with the decision's JSON, which other code writes."""
    decided = decision_json(decision)
    handling, policy = decided["handling"], decided["handling"]["data_policy"]
    assert row["request_id"] == decided.get("request_id")
    assert (row["verdict"], row["reasons"]) == (decided["verdict"], decided["reasons"])
    assert row["governed_by"] == decided["governed_by"]["subject"]
    for name in ("may_store", "may_cache", "may_train", "may_leave_platform", "private_network_required"):
        assert row[name] == handling[name]
    assert row["allowed_regions"] == handling["allowed_regions"]
    assert (row["data_policy"], row["provider"], row["policy_url"]) == (
        policy["by"],
        policy.get("name"),
        policy.get("url"),
    )
    explicit = [state["position"] for state in decided["evidence"] if state["source"] == "explicit"]
    assert row["deciding_positions"] == list(dict.fromkeys(explicit))
    hindsight = decided.get("hindsight")
    assert row["hindsight"] == (None if hindsight is None else hindsight["verdict"])
    lag = decided.get("enforcement_lag")
    assert (row["enforcement_lag_us"], row["lag_position"]) == (
        (None, None) if lag is None else (lag["lag_us"], lag["deciding_position"])
    )
