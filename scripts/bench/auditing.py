"""`bench audit`: a log of twice as many requests as the ledger has events, five of each subject, audited as a whole.

Every case is a program in a process of its own and runs from its first line to its last, in turns with the others over
the same files. The peers' verdicts are compared with ours, row by row, and one that differs ends the bench. An audit of
ten times the rows reads the same log ten times over, once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

import msgspec

from ledger.append.submissions import parse_submissions
from ledger.errors import BadInput, LedgerUnavailable
from ledger.opening import open_ledger, sqlite_path
from ledger.store import Ledger
from projections.audit.index.open import open_index
from scripts.bench import audit_log
from scripts.bench.audit_peers import DEFAULTS
from scripts.bench.audit_steps import write_steps
from scripts.bench.audited import same_verdicts
from scripts.bench.child import Spent, spent
from scripts.bench.kept import large_ledger
from scripts.bench.leaves import ACTOR
from scripts.bench.marks import judge
from scripts.bench.population import MODELS, Population
from scripts.bench.reporting import Column, Result, Table, number
from scripts.bench.suites import Setting
from scripts.cli.files import progress

EVENTS: Final = 100_000
EVENTS_EACH: Final = 5
TENFOLD: Final = 10
NEWS: Final = 1000
INDEX_TURNS: Final = 5
"""At least, unless little is to be done: the turns are short, and the disk's share in them is not always the same."""
OURS: Final = "inforce audit"
FLOOR: Final = "reading and writing the rows"
POLARS: Final = "Polars, join_asof"
DUCKDB: Final = "DuckDB, ASOF JOIN"
LINES: Final = "inforce audit, JSON Lines"
FLOOR_LINES: Final = "reading JSON Lines, PyArrow"
FLOOR_DUCKDB: Final = "reading JSON Lines, DuckDB"
_PEERS: Final = {POLARS: "polars", DUCKDB: "duckdb"}


def run(setting: Setting) -> Result:
    _need()
    events = setting.events or (2000 if setting.quick else EVENTS)
    url, population = large_ledger(setting, events, EVENTS_EACH)
    with TemporaryDirectory(prefix=".inforce-bench-", dir=setting.folder) as own:
        return _measured(setting, url, population, Path(own))


def _need() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("pyarrow", "numpy", "polars", "duckdb") if find_spec(name) is None]
    if missing:
        raise BadInput(f"this bench needs {' and '.join(missing)}; install inforce[audit] and the bench group")


def _measured(setting: Setting, url: str, population: Population, folder: Path) -> Result:
    logs = _made_logs(population, folder)
    rows = 2 * population.events
    steps = folder / "steps"
    steps.mkdir()
    with open_ledger(url) as ledger:
        (steps / DEFAULTS).write_bytes(msgspec.json.encode(write_steps(open_index(ledger), steps)))
    turns = _turns(setting, url, logs, folder, steps)
    for name, peer in _PEERS.items():
        differing = same_verdicts(folder / "ours.parquet", folder / f"{peer}.parquet")
        if differing:
            raise LedgerUnavailable(f"{name} says otherwise than {OURS} of {differing} rows, so they are no baseline")
    for old in folder.glob("*.parquet"):
        if old != logs[0]:
            old.unlink()
    tenfold = _tenfold(url, logs[0], folder)
    for log in logs:
        log.unlink()
    shutil.rmtree(folder / "tenfold")
    compiled, extended = _index(setting, url, folder)
    wall = {name: median(one.wall_s for one in costs) for name, costs in turns.items()}
    memory = max(one.memory_gb for one in turns[OURS])
    size = population.events
    baseline = {OURS: FLOOR, POLARS: FLOOR, DUCKDB: FLOOR, LINES: FLOOR_LINES, FLOOR_DUCKDB: FLOOR_LINES}
    table = [_row(name, rows, costs, wall.get(baseline.get(name, ""))) for name, costs in turns.items()]
    table.append(_row(f"{OURS}, ten times the rows", TENFOLD * rows, [tenfold], None))
    return Result(
        [
            Table(f"an audit of {rows:,} requests, {population.events:,} events", _COLUMNS, table),
            Table("policy index", _INDEX_COLUMNS, _index_rows(compiled, extended)),
        ],
        [
            judge("audit.floor", wall[OURS] / wall[FLOOR], size=size),
            judge("audit.polars", wall[POLARS] / wall[OURS], size=size),
            judge("audit.duckdb", wall[DUCKDB] / wall[OURS], size=size),
            judge("audit.memory", memory, size=size),
            judge("audit.tenfold", TENFOLD * wall[OURS] / tenfold.wall_s, size=size),
            judge("audit.tenfold-memory", tenfold.memory_gb, size=size),
            judge("audit.lines", wall[LINES] / wall[FLOOR_LINES], size=size, note=_of_the_other(wall)),
            judge("audit.index", median(compiled), size=size),
            judge("audit.extension", 1000 * median(extended), size=size),
        ],
        [
            "every case is a process, from its start to its end; memory is the most that was resident, mapped files "
            "included",
            "Polars and DuckDB are given the folded states as tables, and say less (see scripts/bench/audit_peers.py)",
        ],
    )


def _of_the_other(wall: Mapping[str, float]) -> str:
    """The mark is about the reader whose library reads and writes the floor of Parquet, too."""
    return f"PyArrow's reader; of DuckDB's it is {wall[LINES] / wall[FLOOR_DUCKDB]:.2f} times"


def _made_logs(population: Population, folder: Path) -> tuple[Path, Path]:
    whom = audit_log.people(population.families, MODELS, population.events)
    rows = 2 * population.events
    logs = (folder / "log.parquet", folder / "log.jsonl")
    with progress("making the logs", 2 * rows) as tell:
        for number_, log in enumerate(logs):

            def told(made: int, before: int = number_ * rows) -> None:
                tell(before + made, "")

            audit_log.write(log, rows, whom, tell=told)
    return logs


def _turns(setting: Setting, url: str, logs: tuple[Path, Path], folder: Path, steps: Path) -> dict[str, list[Spent]]:
    log, lines = map(str, logs)
    ours = str(folder / "ours.parquet")
    pattern = folder / "pattern.parquet"

    def peer(case: str, source: str, given: Path = steps) -> Spent:
        return spent("scripts.bench.audit_peers", [case, source, str(folder / f"{case}.parquet"), str(given)])

    cases = {
        FLOOR: lambda: peer("floor", log, pattern),
        OURS: lambda: _audit(url, log, ours),
        POLARS: lambda: peer("polars", log),
        DUCKDB: lambda: peer("duckdb", log),
        FLOOR_LINES: lambda: peer("floor-lines", lines),
        FLOOR_DUCKDB: lambda: peer("floor-lines-duckdb", lines),
        LINES: lambda: _audit(url, lines, str(folder / "of-lines.parquet")),
    }
    # The verdicts that the floor writes, and what is compiled when it is first called.
    _audit(url, log, str(pattern))
    costs: dict[str, list[Spent]] = {name: [] for name in cases}
    with progress("bench audit", setting.turns + 1) as tell:
        for turn in range(setting.turns + 1):
            # To and fro, so that none always runs in the wake of the same other.
            for name in cases if turn % 2 == 0 else reversed(cases):
                cost = cases[name]()
                if turn > 0:
                    costs[name].append(cost)
            tell(turn + 1, "")
    return costs


def _audit(url: str, log: str, out: str) -> Spent:
    return spent("scripts.main", ["audit", log, "--db", url, "--out", out], ends_well=(0, 1))


def _tenfold(url: str, log: Path, folder: Path) -> Spent:
    copies = folder / "tenfold"
    copies.mkdir()
    for number_ in range(TENFOLD):
        os.link(log, copies / f"{number_}.parquet")
    cost = _audit(url, str(copies), str(folder / "of-ten.parquet"))
    (folder / "of-ten.parquet").unlink()
    return cost


def _index(setting: Setting, url: str, folder: Path) -> tuple[list[float], list[float]]:
    """Seconds of compiling it, and of bringing it up by NEWS events, of each turn."""
    if setting.keep is not None:
        # What is kept stays as it was made.
        copy = folder / "copy.db"
        shutil.copyfile(sqlite_path(url)[0], copy)
        url = f"sqlite:///{copy.absolute()}"
    compiled, extended = [], []
    turns = setting.turns if setting.quick else max(setting.turns, INDEX_TURNS)
    with open_ledger(url) as ledger, progress("bench audit, policy index", turns + 1) as tell:
        for turn in range(turns + 1):
            place = folder / f"index-{turn}"
            began = perf_counter()
            open_index(ledger, folder=place)
            compiled.append(perf_counter() - began)
            _more(ledger, turn)
            began = perf_counter()
            open_index(ledger, folder=place)
            extended.append(perf_counter() - began)
            shutil.rmtree(place)
            tell(turn + 1, "")
    return compiled[1:], extended[1:]


def _more(ledger: Ledger, turn: int) -> None:
    """NEWS changes of as many organizations."""
    events = [
        {"type": "setting.changed", "subject": f"org:o{place}", "setting": "training.opt_in", "value": turn % 2 == 0}
        for place in range(NEWS)
    ]
    ledger.submit(parse_submissions({"events": events}), actor=ACTOR)


_COLUMNS: Final = (
    Column("case", "case"),
    Column("rows", "rows", lambda rows: f"{rows:,}"),
    Column("wall_s", "wall s", number),
    Column("least_s", "least", number),
    Column("most_s", "most", number),
    Column("cpu_s", "CPU s", number),
    Column("memory_gb", "peak GB", number),
    Column("per_second", "rows a second", number),
    Column("times", "times", lambda value: "baseline" if value is None else number(value)),
)
_INDEX_COLUMNS: Final = (
    Column("case", "seconds"),
    Column("median_s", "median", number),
    Column("most_s", "most", number),
)


def _row(name: str, rows: int, costs: Sequence[Spent], baseline_s: float | None) -> dict[str, Any]:
    wall = median(cost.wall_s for cost in costs)
    return {
        "case": name,
        "rows": rows,
        "wall_s": round(wall, 3),
        "least_s": round(min(cost.wall_s for cost in costs), 3),
        "most_s": round(max(cost.wall_s for cost in costs), 3),
        "cpu_s": round(median(cost.cpu_s for cost in costs), 3),
        "memory_gb": round(max(cost.memory_gb for cost in costs), 4),
        "per_second": round(rows / wall, 1),
        "times": None if baseline_s is None else round(wall / baseline_s, 4),
    }


def _index_rows(compiled: list[float], extended: list[float]) -> list[dict[str, Any]]:
    return [
        {"case": name, "median_s": round(median(taken), 4), "most_s": round(max(taken), 4)}
        for name, taken in (("compiled", compiled), (f"brought up by {NEWS:,} events", extended))
    ]
