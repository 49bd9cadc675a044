"""For any ledger and log, a cluster decides every row as `check` does, with and without slices."""

from contextlib import ExitStack
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from projections.audit.index.reference import compile_by_fold
from projections.audit.index.schema import PolicyIndex
from projections.audit.reference import decide_slowly
from projections.audit.spark.run import Plan, SparkAudit
from projections.audit.spark.slices import sliced_bytes
from projections.audit.verdict_files import OUTPUT_SCHEMA
from projections.query.query import IN_FORCE, KnownAt, PinnedQuery
from tests.audit.spark.logs import NO_LAYOUT, log_table
from tests.audit.strategies import (
    LONG_CHAIN,
    UNHEARD,
    HistoryStep,
    batch_of,
    grown,
    histories,
    instants,
    known_ats,
    rows,
)
from tests.support.questions import QueryLedger, changed, defined

LEDGERS = 6
"""Hypothesis begins with the simplest ones. test_slices.py draws many more."""


EVERY_RULE = [
    HistoryStep(
        1,
        [
            changed("region:us-east", "region.within", "region:na"),
            changed("region:na", "region.names", ["North America"]),
            changed("region:a", "region.names", ["both"]),
            changed("region:b", "region.names", ["both"]),
            changed("provider:deep", "provider.names", ["Deep Labs", "Straße"]),
            changed("provider:deep", "provider.trains", True),
            changed("org:acme", "residency.regions", ["North America"]),
            changed("org:acme", "passthrough.allowed", True),
            changed("model:m1", "model.hosting", "passthrough"),
            changed("model:m1", "model.provider", "STRASSE"),
            changed("model:m1", "model.regions", ["us-east"]),
            changed("model:m1", "model.precision", "bf16"),
            changed("model:a/b:c", "model.hosting", "hosted"),
            changed("account:u1", "attached_to", "org:acme"),
            changed("key:k2", "owner", "org:nobody"),
        ],
        None,
    ),
    HistoryStep(10, [changed("region:us-east", "region.within", "region:eu")], None),
    HistoryStep(
        10,
        [
            defined(
                "subjects.must_be_known",
                kinds=["account", "org", "project", "key"],
                value_type="set_of",
                members=["account", "org", "project", "key"],
                default=["org", "key"],
                protective=None,
            )
        ],
        None,
    ),
]
"""Regions that contain others and one that moves, names that two claim, a provider with its policy, a model with a
published precision, subjects without events, and from some moment on the demand that some kinds are known."""
EVERY_ROW = [
    who | {"model_id": "m1"} | done
    for who in ({"org_id": "acme"}, {"org_id": UNHEARD}, {"key_id": "k2"}, {"account_id": "u1"}, {"account_id": "u2"})
    for done in (
        {},
        {"region": " us-east", "forwarded_to": "deep labs"},
        {"region": "both", "precision": " bf16"},
        {"region": "eu", "precision": "fp8", "forwarded_to": "Deeper"},
        {"model_id": "a/b:c", "stored": True, "region": "us-east"},
        {"model_id": "a/b:c", "stored": False},
    )
]


class Drawn(NamedTuple):
    """`expected_rows`: the verdicts of the reference."""

    policy: PolicyIndex
    log: str
    expected_rows: list[Any]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Drawn]:
    """Random ledgers, all for one job: a job for each would take minutes."""
    cases: list[Drawn] = []

    @settings(
        max_examples=LEDGERS,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(history=histories(15), data=st.data())
    def draw(history: list[HistoryStep], data: st.DataObject) -> None:
        with grown([LONG_CHAIN, *history]) as bench:
            kinds = data.draw(st.lists(rows(bench.ledger.head().position), min_size=1, max_size=9))
            moments = instants(bench)
            known_at = data.draw(known_ats(moments))
            batch = batch_of([row | {"at": at} for number, at in enumerate(moments) for row in kinds[number % 3 :: 3]])
            cases.append(_case(bench, batch, known_at, tmp_path_factory.mktemp("log")))

    draw()
    with grown(EVERY_RULE) as bench:
        moments = instants(bench)
        batch = batch_of([row | {"at": at} for at in moments for row in EVERY_ROW])
        cases += [_case(bench, batch, known_at, tmp_path_factory.mktemp("log")) for known_at in (IN_FORCE, moments[-4])]
    return cases


def _case(bench: QueryLedger, batch: pa.RecordBatch, known_at: KnownAt, folder: Path) -> Drawn:
    log = str(folder / "log.parquet")
    pq.write_table(log_table(batch), log, row_group_size=40)
    decisions = decide_slowly(PinnedQuery(bench.query), batch, known_at).cast(pa.schema(list(OUTPUT_SCHEMA)[2:]))
    expected_rows = [{"source": log, "line": n} | row for n, row in enumerate(decisions.to_pylist(), 1)]
    return Drawn(compile_by_fold(bench.ledger, known_at), log, expected_rows)


def test_the_rules_about_places_published_models_and_unknown_subjects_are_among_them(drawn: list[Drawn]) -> None:
    in_force = drawn[LEDGERS].expected_rows
    assert {reason for row in in_force for reason in row["reasons"]} >= {
        *("unknown_subject", "unknown_region", "outside_residency", "served_elsewhere", "wrong_provider"),
        *("not_as_published", "passthrough_not_allowed", "stored_against_setting"),
    }
    assert {row["subject_known"] for row in in_force} == {True, False}
    assert {row["provider_trains"] for row in in_force} == {True, None}
    assert {(row["provider"], row["provider_subject"]) for row in in_force} >= {("STRASSE", "provider:deep")}
    assert len({tuple(row["allowed_regions"] or ()) for row in in_force}) > 2


@pytest.mark.parametrize("way", ["map", "cogroup"])
def test_every_row_is_decided_as_row_by_row(cluster: Any, drawn: list[Drawn], tmp_path: Path, way: str) -> None:
    cluster.spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "64")
    with ExitStack() as stack:
        frames = []
        for number, one in enumerate(drawn):
            slices = Plan(0, sliced_bytes(one.policy) // 3, 50, str(tmp_path / str(number)))
            plan = Plan() if way == "map" else slices
            decided = stack.enter_context(SparkAudit(cluster, one.policy, [one.log], NO_LAYOUT, plan))
            frames.append(decided.verdicts())
        results = reduce(lambda one, other: one.unionAll(other), frames).toArrow().to_pylist()
    by_place = {(row["source"], row["line"]): row for row in results}
    expected = [row for one in drawn for row in one.expected_rows]
    assert len(results) == len(expected)
    for row in expected:
        assert by_place[row["source"], row["line"]] == row
