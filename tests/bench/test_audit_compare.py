"""A peer is a baseline only if it decides as we do: the comparison finds one row that differs, in any order."""

from pathlib import Path
from typing import Any

import pytest

pa = pytest.importorskip("pyarrow", reason="the extra `audit` is not installed")
pytest.importorskip("duckdb", reason="the dependency group `bench` is not installed")
import pyarrow.parquet as pq  # noqa: E402 - only where it is installed

from scripts.bench.audit_compare import count_differences  # noqa: E402 - needs pyarrow

ROWS: list[dict[str, Any]] = [
    {
        "request_id": f"req-{number}",
        "at": number,
        "verdict": "violation",
        "governed_by": None if number == 3 else f"org:o{number}",
        "may_store": True,
        "may_cache": False,
        "may_train": False,
        "may_leave_platform": False,
        "reasons": ["stored_against_setting", "cached_against_setting"],
        "deciding_positions": [number, 11],
        "lag_position": 9 if number == 4 else None,
    }
    for number in range(12)
]
TYPES = {
    "at": pa.timestamp("us", tz="UTC"),
    "governed_by": pa.string(),
    "lag_position": pa.int64(),
    "deciding_positions": pa.list_(pa.int64()),
}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    columns = {name: pa.array([row[name] for row in rows], TYPES.get(name)) for name in rows[0]}
    pq.write_table(pa.table(columns), path)
    return path


def rows_with(number: int, **members: Any) -> list[dict[str, Any]]:
    return [row | members if row["at"] == number else row for row in ROWS]


def test_the_same_rows_in_another_order_are_equal(tmp_path: Path) -> None:
    ours = write(tmp_path / "ours.parquet", ROWS)
    assert count_differences(ours, write(tmp_path / "theirs.parquet", ROWS[::-1])) == 0


@pytest.mark.parametrize(
    "members",
    [
        {"verdict": "compliant"},
        {"governed_by": "org:o99"},
        {"governed_by": None},
        {"may_cache": True},
        {"reasons": ["stored_against_setting"]},
        {"reasons": []},
        {"deciding_positions": [7, 12]},
        {"at": 70},
    ],
)
def test_one_row_with_another_value_differs(tmp_path: Path, members: dict[str, Any]) -> None:
    ours = write(tmp_path / "ours.parquet", ROWS)
    assert count_differences(ours, write(tmp_path / "theirs.parquet", rows_with(7, **members))) == 1


def test_a_governing_subject_where_we_have_none_differs(tmp_path: Path) -> None:
    ours = write(tmp_path / "ours.parquet", ROWS)
    assert count_differences(ours, write(tmp_path / "theirs.parquet", rows_with(3, governed_by="org:o3"))) == 1


def test_the_reasons_of_a_row_with_a_lag_are_not_compared(tmp_path: Path) -> None:
    ours = write(tmp_path / "ours.parquet", ROWS)
    assert count_differences(ours, write(tmp_path / "theirs.parquet", rows_with(4, reasons=[]))) == 0


def test_with_a_missing_row_every_row_differs(tmp_path: Path) -> None:
    ours = write(tmp_path / "ours.parquet", ROWS)
    assert count_differences(ours, write(tmp_path / "theirs.parquet", ROWS[:-1])) == 12
