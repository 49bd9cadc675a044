"""`check` gives the same outcome over the states of an index as over the ledger's own."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projections.audit.index.reference import compile_by_fold
from projections.audit.kernel.index_states import IndexStates
from projections.audit.reference import records, verdict_row
from projections.decisions.check import check
from projections.decisions.model import AsOf, Decision
from projections.query.as_of_view import AsOfView
from tests.audit.strategies import LONG_CHAIN, HistoryStep, batch_of, grown, histories, instants, known_ats, rows


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(history=histories(), data=st.data())
def test_the_states_of_an_index_are_those_of_the_ledger(history: list[HistoryStep], data: st.DataObject) -> None:
    with grown([LONG_CHAIN, *history]) as bench:
        seen = instants(bench)
        known_at = data.draw(known_ats(seen))
        index = compile_by_fold(bench.ledger, known_at)
        drawn = data.draw(st.lists(rows(bench.ledger.head().position), min_size=5, max_size=30))
        moment = bench.query.context()
        for record in records(batch_of([row | {"at": data.draw(st.sampled_from(seen))} for row in drawn])):
            as_of = AsOf(record.at, 0, 0)
            for later in (False, True):
                state = check(record, IndexStates(index, later=later).at(record.at))
                expected = check(record, AsOfView(moment, record.at, None if later else known_at))
                assert verdict_row(Decision(None, state, as_of, None)) == verdict_row(
                    Decision(None, expected, as_of, None)
                )
                assert [state.source for state in state.evidence] == [state.source for state in expected.evidence]
