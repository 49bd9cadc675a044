"""Few rows are decided without compiled code, and from one row more on with it; what is said is the same."""

from typing import Any

import pyarrow as pa
import pytest

from projections.audit import numba_support as compiled
from projections.audit.kernel.starting import Starting
from projections.audit.numba_support import AVAILABLE, FEW
from projections.audit.schemas import REQUESTS, Decided


class Noted:
    def __init__(self, engine: Any, made: list[str]) -> None:
        self.engine = engine
        made.append(engine)

    def decided(self, batch: pa.RecordBatch) -> Decided:
        return Decided(batch)


def batch(rows: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.nulls(rows, field.type) for field in REQUESTS], names=REQUESTS.names)


@pytest.mark.skipif(not AVAILABLE, reason="Numba is not installed, so nothing is compiled")
@pytest.mark.parametrize(
    ("sizes", "engines"),
    [
        ([FEW], ["numpy"]),
        ([FEW + 1], ["numba"]),
        ([FEW - 1, 1], ["numpy"]),
        ([FEW - 1, 2, 5], ["numpy", "numba"]),
        ([], []),
    ],
)
def test_the_engine_changes_once_and_with_the_row_that_is_one_too_many(sizes: list[int], engines: list[str]) -> None:
    made: list[str] = []
    starting = Starting(lambda engine: Noted(engine, made))  # type: ignore[arg-type, return-value] # stands in for it
    for size in sizes:
        assert starting.decided(batch(size)).verdicts.num_rows == size
    assert made == engines


def test_without_numba_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "AVAILABLE", False)
    made: list[str] = []
    starting = Starting(lambda engine: Noted(engine, made))  # type: ignore[arg-type, return-value] # stands in for it
    for size in (FEW, FEW):
        starting.decided(batch(size))
    assert made == ["numpy"]
