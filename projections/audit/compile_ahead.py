"""Compiles all compiled functions of an audit and stores them: `python -m projections.audit.compile_ahead`.

It audits a log of two rows over a ledger of a few events, because that is how each function gets the types of a real
audit. An installer or an image's build may run it; `scripts/set-up` and the first audit run it in the background.
The kernel comes first, which saves most time. One process at a time does this; another waits, and then finds nothing
left to do. Proved by tests/audit/test_stored_code.py.
"""

from __future__ import annotations

import fcntl
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from ledger.append.submissions import parse_submissions
from ledger.opening import open_ledger
from ledger.store import Ledger
from projections.audit import numba_support
from projections.audit.index.compile import compile_index
from projections.audit.index.open import open_index
from projections.audit.kernel.batch_decider import BatchDecider
from projections.audit.reading.fields import NO_MAPPING
from projections.audit.reading.files import log_files
from projections.audit.reading.logs import LogReader
from projections.audit.run import run
from projections.audit.stored_code import lock_file
from projections.audit.summary import Summary
from projections.temporal.coordinates import IN_FORCE

_EVENTS: Final = {
    ("org:a", "training.opt_in"): True,
    ("key:k", "owner"): "org:a",
    ("model:m", "model.hosting"): "passthrough",
    ("model:m", "model.provider"): "provider:p",
    ("model:m", "model.regions"): ["r"],
    ("provider:p", "provider.names"): ["p"],
    ("region:r", "region.names"): ["r"],
}
_ROWS: Final = (
    b'{"at":"2100-01-01T00:00:00Z","key_id":"k","model_id":"m","handling":{"stored":true,"forwarded_to":"p"}}\n'
    b'{"at":"2100-01-01T00:00:00Z","org_id":"a","model_id":"m","handling":{"region":"r","forwarded_to":"p"}}\n'
)


def main() -> None:
    lock = lock_file("all.")
    if lock is not None:
        fcntl.flock(lock, fcntl.LOCK_EX)
    with tempfile.TemporaryDirectory(prefix="inforce-compile-") as name:
        folder = Path(name)
        with open_ledger(f"sqlite:///{folder}/ledger.db", create=True, origin="compile.example/ahead") as ledger:
            events = [
                {"type": "setting.changed", "subject": subject, "setting": setting, "value": value}
                for (subject, setting), value in _EVENTS.items()
            ]
            ledger.submit(parse_submissions({"events": events}), actor="operator:compile")
            _compile_all(ledger, folder)


def _compile_all(ledger: Ledger, folder: Path) -> None:
    index = open_index(ledger, folder=folder / "index")
    # From here on this process uses compiled code for the smallest log, too.
    numba_support.FEW = 0
    lines, parquet = folder / "log.jsonl", folder / "log.parquet"
    lines.write_bytes(_ROWS)
    pq.write_table(pa.table({"at": ["2100-01-01T00:00:00Z"], "org_id": ["a"]}), parquet)
    steps: dict[str, Callable[[], object]] = {
        "deciding": lambda: run(_log(lines), BatchDecider(index).decide, Summary(index.pin, IN_FORCE), threads=False),
        "reading lines": lambda: list(_log(lines, strict_bytes=0)),
        "reading Parquet": lambda: list(_log(parquet)),
        "indexing a ledger": lambda: compile_index(ledger, IN_FORCE, index.pin),
    }
    for number, (what, compile_step) in enumerate(steps.items(), 1):
        if sys.stderr.isatty():
            print(f"inforce: compiling, once: {what} ({number} of {len(steps)})", file=sys.stderr)
        compile_step()


def _log(file: Path, **options: Any) -> LogReader:
    return LogReader(log_files([str(file)], NO_MAPPING), **options)


if __name__ == "__main__":
    main()
