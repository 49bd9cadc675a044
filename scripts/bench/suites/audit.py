"""`bench audit`: a whole audit of a log, beside reading and writing alone, Polars and DuckDB.

The ledger has five events for each subject, and the log twice as many requests as the ledger has events. Every case is
a program in its own process, from start to end, in alternation with the others over the same files. The suite compares
the peers' verdicts with ours row by row; one difference ends the bench. An audit of ten times the rows reads the same
log ten times over, once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

from ledger.append.submissions import parse_submissions
from ledger.errors import LedgerUnavailable
from ledger.opening import open_ledger, sqlite_path
from ledger.store import Ledger
from projections.audit.index.open import open_index
from scripts.bench.audit_log import write_log
from scripts.bench.audit_tables import write_tables
from scripts.bench.ledgers import large_ledger
from scripts.bench.marks import JudgedMark, judge
from scripts.bench.measure import take_turns
from scripts.bench.population import ACTOR, Population, setting_change
from scripts.bench.processes import ProgramCost, run_program
from scripts.bench.report import Column, SuiteResult, Table, count, number, ratio
from scripts.bench.suite import SuiteContext
from scripts.cli.files import progress

EVENTS: Final = 100_000
EVENTS_EACH: Final = 5
TENFOLD: Final = 10
NEW_EVENTS: Final = 1000
INDEX_TURNS_MIN: Final = 5
"""Unless --quick: the turns are short, and the share of the disk in them varies."""
OURS: Final = "inforce audit"
FLOOR: Final = "reading and writing the rows"
POLARS: Final = "Polars, join_asof"
DUCKDB: Final = "DuckDB, ASOF JOIN"
LINES: Final = "inforce audit, JSON Lines"
FLOOR_LINES: Final = "reading JSON Lines, PyArrow"
FLOOR_DUCKDB: Final = "reading JSON Lines, DuckDB"
_PEERS: Final = {POLARS: "polars", DUCKDB: "duckdb"}
_BASELINES: Final = {OURS: FLOOR, POLARS: FLOOR, DUCKDB: FLOOR, LINES: FLOOR_LINES, FLOOR_DUCKDB: FLOOR_LINES}


def run(context: SuiteContext) -> SuiteResult:
    url, population = large_ledger(context, context.events or (2000 if context.quick else EVENTS), EVENTS_EACH)
    with TemporaryDirectory(prefix=".inforce-bench-", dir=context.folder) as name:
        folder = Path(name)
        logs = _write_logs(population, folder)
        turns = _audit_turns(context, url, logs, folder)
        _require_same_verdicts(folder)
        for old in {*folder.glob("*.parquet")} - {logs[0]}:
            old.unlink()
        tenfold = _audit_tenfold(url, logs[0], folder)
        for log in logs:
            log.unlink()
        compiled, extended = _index_seconds(context, url, folder)
    rows = 2 * population.events
    wall = {name: median(cost.wall_s for cost in costs) for name, costs in turns.items()}
    table = [_row(name, rows, costs, wall.get(_BASELINES.get(name, ""))) for name, costs in turns.items()]
    table.append(_row(f"{OURS}, ten times the rows", TENFOLD * rows, [tenfold], None))
    index_table = [_index_row("compiled", compiled), _index_row(f"brought up by {NEW_EVENTS:,} events", extended)]
    memory = max(cost.memory_gb for cost in turns[OURS])
    return SuiteResult(
        [
            Table(f"an audit of {rows:,} requests, {population.events:,} events", _COLUMNS, table),
            Table("policy index", _INDEX_COLUMNS, index_table),
        ],
        [
            *_judge_audits(wall, memory, tenfold, population.events),
            judge("audit.index", median(compiled), size=population.events),
            judge("audit.extension", 1000 * median(extended), size=population.events),
        ],
        [
            "every case is a process, from its start to its end; memory is peak resident memory with mapped files",
            "Polars and DuckDB get the folded states as tables, and decide less (see scripts/bench/audit_peers.py)",
        ],
    )


def _judge_audits(wall: Mapping[str, float], memory: float, tenfold: ProgramCost, size: int) -> list[JudgedMark]:
    # The mark is about PyArrow's reader, because PyArrow reads and writes the Parquet floor, too.
    of_duckdb = f"relative to PyArrow's reader; relative to DuckDB's {wall[LINES] / wall[FLOOR_DUCKDB]:.2f} times"
    return [
        judge("audit.floor", wall[OURS] / wall[FLOOR], size=size),
        judge("audit.polars", wall[POLARS] / wall[OURS], size=size),
        judge("audit.duckdb", wall[DUCKDB] / wall[OURS], size=size),
        judge("audit.memory", memory, size=size),
        judge("audit.tenfold", TENFOLD * wall[OURS] / tenfold.wall_s, size=size),
        judge("audit.tenfold-memory", tenfold.memory_gb, size=size),
        judge("audit.lines", wall[LINES] / wall[FLOOR_LINES], size=size, note=of_duckdb),
    ]


def _write_logs(population: Population, folder: Path) -> tuple[Path, Path]:
    logs = (folder / "log.parquet", folder / "log.jsonl")
    for log in logs:
        write_log(log, 2 * population.events, population)
    return logs


def _audit_turns(
    context: SuiteContext, url: str, logs: tuple[Path, Path], folder: Path
) -> dict[str, list[ProgramCost]]:
    log, lines = map(str, logs)
    tables = folder / "tables"
    tables.mkdir()
    with open_ledger(url) as ledger:
        write_tables(open_index(ledger), tables)
    run_program("projections.audit.compile_ahead", [])
    # The floor writes copies of these verdicts.
    pattern = folder / "pattern.parquet"
    _audit(url, log, pattern)

    def peer(case: str, source: str, given: Path = tables) -> Callable[[int], ProgramCost]:
        arguments = [case, source, str(folder / f"{case}.parquet"), str(given)]
        return lambda _turn: run_program("scripts.bench.audit_peers", arguments)

    cases: dict[str, Callable[[int], ProgramCost]] = {
        FLOOR: peer("floor", log, pattern),
        OURS: lambda _turn: _audit(url, log, folder / "ours.parquet"),
        POLARS: peer("polars", log),
        DUCKDB: peer("duckdb", log),
        FLOOR_LINES: peer("floor-lines", lines),
        FLOOR_DUCKDB: peer("floor-lines-duckdb", lines),
        LINES: lambda _turn: _audit(url, lines, folder / "of-lines.parquet"),
    }
    return take_turns("bench audit", cases, context.turns)


def _audit(url: str, log: str, out: Path) -> ProgramCost:
    return run_program("scripts.main", ["audit", log, "--db", url, "--out", str(out)], exit_codes=(0, 1))


def _require_same_verdicts(folder: Path) -> None:
    for name, peer in _PEERS.items():
        files = [str(folder / "ours.parquet"), str(folder / f"{peer}.parquet")]
        differences = int(run_program("scripts.bench.audit_compare", files).output)
        if differences:
            raise LedgerUnavailable(f"{name} and {OURS} disagree on {differences} rows, so that it is no baseline")


def _audit_tenfold(url: str, log: Path, folder: Path) -> ProgramCost:
    copies = folder / "tenfold"
    copies.mkdir()
    for copy in range(TENFOLD):
        os.link(log, copies / f"{copy}.parquet")
    out = folder / "of-ten.parquet"
    cost = _audit(url, str(copies), out)
    out.unlink()
    shutil.rmtree(copies)
    return cost


def _index_seconds(context: SuiteContext, url: str, folder: Path) -> tuple[list[float], list[float]]:
    """Seconds of each turn: of compiling the policy index, and of adding NEW_EVENTS events to it."""
    if context.keep is not None:
        # A kept ledger must not change.
        copy = folder / "copy.db"
        shutil.copyfile(sqlite_path(url)[0], copy)
        url = f"sqlite:///{copy.absolute()}"
    compiled, extended = [], []
    turns = context.turns if context.quick else max(context.turns, INDEX_TURNS_MIN)
    with open_ledger(url) as ledger, progress("bench audit, policy index", turns + 1) as tell:
        for turn in range(turns + 1):
            index = folder / f"index-{turn}"
            compiled.append(_seconds(partial(open_index, ledger, folder=index)))
            _submit_changes(ledger, turn)
            extended.append(_seconds(partial(open_index, ledger, folder=index)))
            shutil.rmtree(index)
            tell(turn + 1, "")
    return compiled[1:], extended[1:]


def _seconds(work: Callable[[], object]) -> float:
    began = perf_counter()
    work()
    return perf_counter() - began


def _submit_changes(ledger: Ledger, turn: int) -> None:
    """NEW_EVENTS changes of as many organizations."""
    changes = [setting_change(f"org:o{number}", "training.opt_in", turn % 2 == 0) for number in range(NEW_EVENTS)]
    ledger.submit(parse_submissions({"events": changes}), actor=ACTOR)


_COLUMNS: Final = (
    Column("case", "case"),
    Column("rows", "rows", count),
    Column("wall_s", "wall s", number),
    Column("least_s", "least", number),
    Column("most_s", "most", number),
    Column("cpu_s", "CPU s", number),
    Column("memory_gb", "peak GB", number),
    Column("per_second", "rows a second", number),
    Column("times", "times", ratio),
)
_INDEX_COLUMNS: Final = (
    Column("case", "seconds"),
    Column("median_s", "median", number),
    Column("most_s", "most", number),
)


def _row(name: str, rows: int, costs: Sequence[ProgramCost], baseline_s: float | None) -> dict[str, Any]:
    wall = [cost.wall_s for cost in costs]
    return {
        "case": name,
        "rows": rows,
        "wall_s": round(median(wall), 3),
        "least_s": round(min(wall), 3),
        "most_s": round(max(wall), 3),
        "cpu_s": round(median(cost.cpu_s for cost in costs), 3),
        "memory_gb": round(max(cost.memory_gb for cost in costs), 4),
        "per_second": round(rows / median(wall), 1),
        "times": None if baseline_s is None else round(median(wall) / baseline_s, 4),
    }


def _index_row(name: str, seconds: list[float]) -> dict[str, Any]:
    return {"case": name, "median_s": round(median(seconds), 4), "most_s": round(max(seconds), 4)}
