"""Compares two verdict files, to show that a peer of `bench audit` decides as we do.

Run as `python -m scripts.bench.audit_compare OURS THEIRS`, because DuckDB prints false leak warnings at the end of a
process that imports more than it. Proved by tests/bench/test_audit_compare.py.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import duckdb

_COLUMNS: Final = (
    *("at", "verdict", "governed_by", "may_store", "may_cache", "may_train", "may_leave_platform"),
    "deciding_positions",
)


def count_differences(ours: Path, theirs: Path) -> int:
    """The number of rows that differ; all of them if a row is missing. `theirs` may be in any order.

    Skips the reasons of a row that has a lag: only our audit reports that.
    """
    differ = " OR ".join(f'o."{name}" IS DISTINCT FROM t."{name}"' for name in _COLUMNS)
    query = f"""
        SELECT
          CASE WHEN count(*) = count(o.request_id) AND count(*) = count(t.request_id)
          THEN count(*) FILTER ({differ} OR (o.lag_position IS NULL AND o.reasons IS DISTINCT FROM t.reasons))
          ELSE greatest(count(o.request_id), count(t.request_id)) END
        FROM read_parquet($ours) o FULL JOIN read_parquet($theirs) t ON o.request_id = t.request_id
    """  # noqa: S608 - our own names
    with duckdb.connect() as connection:
        (count,) = connection.execute(query, {"ours": str(ours), "theirs": str(theirs)}).fetchall()[0]
    return int(count)


if __name__ == "__main__":
    print(count_differences(Path(sys.argv[1]), Path(sys.argv[2])))
