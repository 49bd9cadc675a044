"""A short log is decided row by row, a longer one by compiled code."""

import pyarrow as pa
import pytest

from projections.audit.kernel.batch_decider import _ROW_COST, BatchDecider
from projections.audit.numba_support import AVAILABLE, FEW
from projections.audit.schemas import REQUESTS, DecidedBatch

FEW_ROWS = FEW // _ROW_COST


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ways that were prepared, in order."""
    prepared: list[str] = []

    def stand_in(name: str) -> type[object]:
        class Way:
            def __init__(self, _index: object) -> None:
                prepared.append(name)

            def decide(self, batch: pa.RecordBatch) -> DecidedBatch:
                return DecidedBatch(batch)

        return Way

    monkeypatch.setattr("projections.audit.kernel.batch_decider.RowByRow", stand_in("row by row"))
    monkeypatch.setattr("projections.audit.kernel.kernel.Kernel", stand_in("compiled"))
    monkeypatch.setattr("projections.audit.numba_support._Compiled.is_ready", lambda _self: True)
    return prepared


def decide(sizes: list[int]) -> None:
    decider = BatchDecider(None)  # type: ignore[arg-type] # the stand-ins need no index
    for size in sizes:
        batch = pa.RecordBatch.from_arrays([pa.nulls(size, field.type) for field in REQUESTS], names=REQUESTS.names)
        assert decider.decide(batch).verdicts.num_rows == size


@pytest.mark.skipif(not AVAILABLE, reason="Numba is not installed, so nothing is compiled")
@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([FEW_ROWS], ["row by row"]),
        ([FEW_ROWS + 1], ["compiled"]),
        ([FEW_ROWS - 1, 1], ["row by row"]),
        ([FEW_ROWS - 1, 2, 5], ["row by row", "compiled"]),
        ([], []),
    ],
)
def test_the_way_changes_once_at_the_first_row_too_many(ways: list[str], sizes: list[int], expected: list[str]) -> None:
    decide(sizes)
    assert ways == expected


@pytest.mark.skipif(not AVAILABLE, reason="Numba is not installed, so nothing is compiled")
def test_rows_are_decided_row_by_row_until_the_kernel_is_compiled(
    ways: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready: list[bool] = []
    monkeypatch.setattr("projections.audit.numba_support._Compiled.is_ready", lambda _self: bool(ready))
    monkeypatch.setattr("projections.audit.numba_support._AHEAD.start", lambda: True)
    decider = BatchDecider(None)  # type: ignore[arg-type] # the stand-ins need no index
    batch = pa.RecordBatch.from_arrays([pa.nulls(FEW_ROWS, field.type) for field in REQUESTS], names=REQUESTS.names)
    for _batch in range(3):
        decider.decide(batch)
    assert ways == ["row by row"]
    ready.append(True)
    decider.decide(batch)
    assert ways == ["row by row", "compiled"]


@pytest.mark.skipif(not AVAILABLE, reason="Numba is not installed, so nothing is compiled")
def test_a_long_log_waits_for_the_kernel(ways: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.audit.numba_support._Compiled.is_ready", lambda _self: False)
    monkeypatch.setattr("projections.audit.numba_support._AHEAD.start", lambda: True)
    decide([FEW_ROWS] * 50 + [1])
    assert ways == ["row by row", "compiled"]


def test_without_numba_every_row_is_decided_row_by_row(ways: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.audit.numba_support.AVAILABLE", False)
    decide([FEW_ROWS, FEW_ROWS])
    assert ways == ["row by row"]
