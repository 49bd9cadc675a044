"""`demo`: the whole road on an invented platform: record, write a request log, audit it, find what was planted."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Final

import click

from scripts.cli import exits
from scripts.cli.options import EXAMPLES

FOLDER: Final = "inforce-demo"
REQUESTS: Final = 100_000


@click.command(context_settings=EXAMPLES)
@click.option(
    "--keep",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=FOLDER,
    show_default=True,
    help="Where the ledger and the log are left. What an earlier demo left there is made anew.",
)
@click.option(
    "--requests",
    metavar="N",
    type=click.IntRange(1000, 10_000_000),
    default=REQUESTS,
    show_default=True,
    help="How many requests the log holds.",
)
@click.option("--seed", metavar="N", type=int, default=1, show_default=True, help="Another platform for another seed.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="json is for programs.",
)
def demo(keep: Path, requests: int, seed: int, format_: str) -> int:
    """Show the whole road on an invented platform.

    Records eighteen months of it in an embedded ledger, writes its request log with violations of every kind planted
    in it, audits the log, and compares: exactly what was planted must be found. Everything stays in a folder, to go on
    from there; the last lines say how.

    Exits 1 when anything else was found than was planted.

    \b
      inforce demo
      inforce demo --keep /tmp/larkspur --requests 10000 --seed 7
    """
    import gc

    from scripts.cli.files import progress
    from scripts.cli.output import write_json
    from scripts.demo import finding, folder, making, show

    # Looking for cycles after every 700 objects costs a tenth of the time, and there are none to find.
    gc.set_threshold(50_000, 50, 100)
    started = perf_counter()
    folder.prepare(keep)
    with progress("living through eighteen months", requests) as tell:
        made = making.make(keep, requests, seed, lambda done: tell(done, ""))
    recorded = perf_counter()
    if format_ == "table":
        show.show_made(made)
    exits.warn_if_slow()
    with progress("auditing", (keep / folder.LOG).stat().st_size) as tell:
        found = finding.find(made, lambda done: tell(done, ""))
    ended = perf_counter()
    if format_ == "table":
        show.show_found(made, found, ended - started)
    else:
        seconds = {"record": recorded - started, "audit": ended - recorded, "all": ended - started}
        write_json(show.document(made, found, {what: round(s, 3) for what, s in seconds.items()}))
    return exits.AGAINST if found.differences else exits.OK
