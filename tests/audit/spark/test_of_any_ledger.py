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
from projections.query.query import PinnedQuery
from tests.audit.spark.logs import NO_LAYOUT, log_table
from tests.audit.strategies import LONG_CHAIN, HistoryStep, batch_of, grown, histories, instants, known_ats, rows

pytestmark = pytest.mark.xdist_group("spark")
LEDGERS = 6
"""Hypothesis begins with the simplest ones. test_slices.py draws many more."""


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
            log = str(tmp_path_factory.mktemp("log") / "log.parquet")
            pq.write_table(log_table(batch), log, row_group_size=40)
            decisions = decide_slowly(PinnedQuery(bench.query), batch, known_at).cast(
                pa.schema(list(OUTPUT_SCHEMA)[2:])
            )
            expected_rows = [{"source": log, "line": n} | row for n, row in enumerate(decisions.to_pylist(), 1)]
            cases.append(Drawn(compile_by_fold(bench.ledger, known_at), log, expected_rows))

    draw()
    return cases


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
