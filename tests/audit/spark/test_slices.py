"""A slice of an index decides its rows as the whole index does."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projections.audit.index.reference import compile_by_fold
from projections.audit.kernel.kernel import Kernel
from projections.audit.spark.slices import IndexSlicer, pack, shared_part, slice_numbers, sliced_bytes, unpack
from tests.audit.strategies import LONG_CHAIN, HistoryStep, batch_of, grown, histories, instants, known_ats, rows
from tests.support.questions import NOON, changed


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(history=histories(), data=st.data(), count=st.integers(1, 5))
def test_each_slice_of_any_ledger_decides_its_rows_as_the_whole_index_does(
    history: list[HistoryStep], data: st.DataObject, count: int
) -> None:
    with grown([LONG_CHAIN, *history]) as bench:
        kinds = data.draw(st.lists(rows(bench.ledger.head().position), min_size=1, max_size=12))
        moments = instants(bench)
        batch = batch_of([row | {"at": at} for number, at in enumerate(moments) for row in kinds[number % 3 :: 3]])
        index = compile_by_fold(bench.ledger, data.draw(known_ats(moments)))
        expected = Kernel(index).decide(batch).verdicts
        numbers, shared = slice_numbers(batch, count), shared_part(index)
        slicer = IndexSlicer(index, count)
        for number in range(count):
            mine = pa.array(np.flatnonzero(numbers == number))
            index_slice = unpack(pack(slicer.slice(number)), shared)
            verdicts = Kernel(index_slice).decide(batch.take(mine)).verdicts
            assert verdicts.to_pylist() == expected.take(mine).to_pylist()


def test_an_index_of_one_subject_is_cut_like_any_other() -> None:
    with grown([]) as bench:
        bench.submit(NOON, changed("org:acme", "caching.temporary", True))
        index = compile_by_fold(bench.ledger)
        batch = batch_of([{"at": NOON + at, "org_id": "acme", "cached": True} for at in (-1, 0, 1)])
        assert len(index.subjects) == 1
        index_slice = unpack(pack(IndexSlicer(index, 1).slice(0)), shared_part(index))
        assert Kernel(index_slice).decide(batch).verdicts.equals(Kernel(index).decide(batch).verdicts)


@pytest.mark.parametrize("count", [2, 7])
def test_every_row_has_one_slice_and_the_shared_part_has_no_subject(count: int) -> None:
    with grown([LONG_CHAIN]) as bench:
        index = compile_by_fold(bench.ledger)
        batch = batch_of([{"at": 0, "org_id": f"o{number}"} for number in range(200)])
        assert set(slice_numbers(batch, count)) == set(range(count))
        assert len(shared_part(index).subjects) == 0
        assert sliced_bytes(shared_part(index)) < sliced_bytes(index)
