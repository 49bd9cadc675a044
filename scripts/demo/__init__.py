"""`demo`: records an invented platform, writes its request log, audits it, and compares the result with what was
planted.

Proved by tests/test_demo.py.
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import click

from scripts.cli import exits


@click.command
@click.option(
    "--keep",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default="inforce-demo",
    show_default=True,
    help="Where to leave the ledger and the log. Files of an earlier demo are replaced.",
)
@click.option(
    "--requests",
    metavar="N",
    type=click.IntRange(1000, 10_000_000),
    default=100_000,
    show_default=True,
    help="How many requests to put into the log.",
)
@click.option("--seed", metavar="N", type=int, default=1, show_default=True, help="Another seed, another platform.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="table for people, json for programs.",
)
def demo(keep: Path, requests: int, seed: int, format_: str) -> int:
    """Try inforce on an invented platform.

    Records eighteen months of its settings in an embedded ledger, writes its request log with violations of every kind
    planted in it, audits the log, and compares: the audit must find exactly what was planted. The ledger and the log
    stay in a folder; the last lines show what to try with them.

    Exits 1 if the audit found anything else.

    \b
      inforce demo
      inforce demo --keep /tmp/larkspur --requests 10000 --seed 7
    """
    import gc

    from projections.audit.kernel.kernel import COMPILED
    from projections.audit.numba_support import are_ready
    from scripts.cli.files import progress
    from scripts.cli.output import write_json
    from scripts.demo import comparison, generator, show

    # The default, a search for cycles after every 700 objects, costs a tenth of the time, and there are none.
    gc.set_threshold(50_000, 50, 100)
    started = perf_counter()
    generator.prepare(keep)
    # At the first demo of an installation, the compiler works while the demo records.
    are_ready(*COMPILED, wait=False)
    with progress("recording eighteen months", requests) as report:
        data = generator.generate(keep, requests, seed, lambda done: report(done, ""))
    recorded = perf_counter()
    if format_ == "table":
        show.show_story(data)
    exits.warn_if_slow()
    with progress("auditing", (keep / generator.LOG).stat().st_size) as report:
        result = comparison.audit_and_compare(data, lambda done: report(done, ""))
    ended = perf_counter()
    if format_ == "table":
        show.show_result(data, result, ended - started)
    else:
        seconds = {"record": recorded - started, "audit": ended - recorded, "all": ended - started}
        write_json(show.document(data, result, {name: round(value, 3) for name, value in seconds.items()}))
    return exits.PROBLEM_FOUND if result.mismatches else exits.OK
