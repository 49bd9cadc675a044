"""Rows without observed handling that happened: every path decides them as `check` decides such an observation."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projections.audit.index.open import open_index
from projections.audit.kernel import batch_decider
from projections.audit.kernel.batch_decider import BatchDecider
from projections.audit.reference import decide_slowly, records, verdicts
from projections.audit.schemas import OBSERVED, as_happened, is_happened, observes
from projections.decisions.model import NOTHING_OBSERVED
from projections.query.query import PinnedQuery
from tests.audit.strategies import batch_of, grown, histories, instants, known_ats, rows


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("compiled", [False, True])
def test_every_path_judges_a_request_that_happened_as_check_does(compiled: bool, data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch, grown(data.draw(histories())) as bench:
        patch.setattr(batch_decider, "worth_compiling", lambda _count, *_functions: compiled)
        times = instants(bench)
        drawn = data.draw(st.lists(rows(bench.ledger.head().position), min_size=1, max_size=30))
        for row in drawn:
            row["at"] = data.draw(st.sampled_from(times))
            if data.draw(st.booleans()):
                row.update(dict.fromkeys(OBSERVED))
        known_at = data.draw(known_ats(times))
        query = PinnedQuery(bench.query)
        batch = batch_of(drawn)
        requests = records(batch)
        done = [one if one.handling is not None else one._replace(handling=NOTHING_OBSERVED) for one in requests]
        expected = verdicts(query.check_all(done, known_at))
        decider = BatchDecider(open_index(bench.ledger, known_at, pin=query.pinned))
        decided = decider.decide(as_happened(batch)).verdicts
        assert decided.to_pylist() == expected.to_pylist()
        # The same decider still takes unmarked rows as questions.
        assert decider.decide(batch).verdicts.to_pylist() == decide_slowly(query, batch, known_at).to_pylist()


def test_parts_of_a_batch_keep_the_mark() -> None:
    batch: Any = batch_of([{"at": 0, "org_id": "acme"}, {"at": 1, "org_id": "acme"}])
    marked = as_happened(batch)
    assert not is_happened(batch)
    assert all(map(is_happened, (marked, marked.slice(1), marked.take(pa.array(np.array([1]))))))
    assert [one.handling for one in records(marked)] == [NOTHING_OBSERVED] * 2
    assert [one.handling for one in records(batch)] == [None] * 2
    assert not observes(batch)
    assert observes(batch_of([{"at": 0, "org_id": "acme", "stored": False}]))
