"""`bench spark`: an audit on Spark on two cores of this machine, beside the same audit without Spark.

Each audit runs over a log and over ten times its rows, and the difference gives the time of a row. The fixed cost is
the rest of the short audit, less a session that does nothing. Everything is compiled before the first turn.
Proved by tests/bench/test_spark_suite.py.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

from scripts.bench.audit_log import write_log
from scripts.bench.ledgers import large_ledger
from scripts.bench.marks import JudgedMark, judge
from scripts.bench.measure import take_turns
from scripts.bench.processes import ProgramCost, run_program
from scripts.bench.report import Column, SuiteResult, Table, count, number
from scripts.bench.suite import SuiteContext

EVENTS: Final = 100_000
EVENTS_EACH: Final = 5
TENFOLD: Final = 10
MASTER: Final = "local[2]"
START: Final = "Spark's own start: a session without an audit"
ONE: Final = "inforce audit"
ON_SPARK: Final = "inforce audit on Spark"
MORE: Final = ", ten times the rows"


def run(context: SuiteContext) -> SuiteResult:
    url, population = large_ledger(context, context.events or (2000 if context.quick else EVENTS), EVENTS_EACH)
    rows = 2 * population.events
    with TemporaryDirectory(prefix=".inforce-bench-", dir=context.folder) as name:
        folder = Path(name)
        logs = {"": folder / "log.jsonl", MORE: folder / "tenfold"}
        write_log(logs[""], rows, population)
        logs[MORE].mkdir()
        for copy in range(TENFOLD):
            os.link(logs[""], logs[MORE] / f"{copy}.jsonl")
        run_program("projections.audit.compile_ahead", [])
        cases: dict[str, Callable[[int], ProgramCost]] = {
            START: lambda _turn: run_program("scripts.bench.spark_session", [MASTER])
        }
        for more, log in logs.items():
            cases[ONE + more] = _case(url, log, folder, [])
            cases[ON_SPARK + more] = _case(url, log, folder, ["--engine", "spark", "--master", MASTER])
        turns = take_turns("bench spark", cases, context.turns)
    by_case = {case: TENFOLD * rows if MORE in case else 0 if case == START else rows for case in turns}
    table = [_row(case, by_case[case], costs) for case, costs in turns.items()]
    wall = {case: median(cost.wall_s for cost in costs) for case, costs in turns.items()}
    return SuiteResult(
        [Table(f"an audit of {rows:,} requests, {population.events:,} events", _COLUMNS, table)],
        judged(wall, rows, population.events),
        ["every case is a process, from its start to its end; CPU leaves out Spark's Python workers"],
    )


def judged(wall: Mapping[str, float], rows: int, events: int) -> list[JudgedMark]:
    """`wall`: seconds by case. `rows`: of the short log."""
    more_rows = (TENFOLD - 1) * rows
    one, spark = ((wall[case + MORE] - wall[case]) / more_rows for case in (ONE, ON_SPARK))
    fixed = wall[ON_SPARK] - wall[START] - rows * spark
    each = f"{1e6 * spark:.2f} µs a row on Spark, {1e6 * one:.2f} without"
    return [judge("spark.fixed", fixed, size=events), judge("spark.row", spark / one, size=events, note=each)]


def _case(url: str, log: Path, folder: Path, more: Sequence[str]) -> Callable[[int], ProgramCost]:
    def audit(_turn: int) -> ProgramCost:
        # On Spark a result is a folder, and no folder is overwritten.
        out = folder / ("out" if more else "out.parquet")
        arguments = ["audit", str(log), "--db", url, "--out", str(out), *more]
        try:
            return run_program("scripts.main", arguments, exit_codes=(0, 1))
        finally:
            shutil.rmtree(out, ignore_errors=True)
            out.unlink(missing_ok=True)

    return audit


_COLUMNS: Final = (
    Column("case", "case"),
    Column("rows", "rows", count),
    Column("wall_s", "wall s", number),
    Column("least_s", "least", number),
    Column("most_s", "most", number),
    Column("cpu_s", "CPU s", number),
)


def _row(name: str, rows: int, costs: Sequence[ProgramCost]) -> dict[str, Any]:
    wall = [cost.wall_s for cost in costs]
    return {
        "case": name,
        "rows": rows,
        "wall_s": round(median(wall), 3),
        "least_s": round(min(wall), 3),
        "most_s": round(max(wall), 3),
        "cpu_s": round(median(cost.cpu_s for cost in costs), 3),
    }
