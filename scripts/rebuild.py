"""`rebuild`: rebuilds the stored timelines from the events, or compares them."""

from __future__ import annotations

from operator import itemgetter
from typing import Final

import click

from ledger.opening import open_ledger
from projections.timelines.projector import Projector
from projections.timelines.rebuild.rebuild import RebuildResult
from projections.timelines.rebuild.rebuild import rebuild as rebuild_timelines
from projections.timelines.rebuild.workers import Workers, usual_processes
from projections.timelines.store import open_timelines
from scripts.cli import exits
from scripts.cli.files import progress
from scripts.cli.options import Format, database, output_format
from scripts.cli.output import print_line, print_table, show

_FIELDS: Final = ("subject", "setting", "axis", "live", "rebuilt")


@click.command
@click.option("--check", "check_only", is_flag=True, help="Only compare; do not replace the stored timelines.")
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    help="How many processes read and fold the events.  [default: 1 for a small ledger, else one per processor, up to "
    "6]",
)
@database
@output_format
def rebuild(db: str, format_: Format, check_only: bool, processes: int | None) -> int:
    """Rebuild the stored timelines from the events.

    The new timelines are built beside the live ones, compared with them, and replace them in one transaction.
    Questions and submissions go on meanwhile. Exits 1 if a row differed, which should never happen.

    \b
      inforce rebuild
      inforce rebuild --check --format json
    """
    with open_ledger(db) as ledger, progress("rebuilding", ledger.head().position) as report:
        projector = Projector(ledger, open_timelines(ledger))
        rebuilt = rebuild_timelines(
            projector,
            check_only=check_only,
            workers=Workers(db, processes or usual_processes()),
            progress=lambda done, _head: report(done, f"{done:,} events"),
        )
    _show_rebuilt(format_, rebuilt)
    differs = bool(rebuilt.differences) or (check_only and not rebuilt.live_equal)
    return exits.PROBLEM_FOUND if differs else exits.OK


def _show_rebuilt(format_: Format, rebuilt: RebuildResult) -> None:
    differences = [
        {name: value if value is None else str(value) for name, value in difference._asdict().items()}
        for difference in rebuilt.differences
    ]
    if format_ != "table":
        document = rebuilt._asdict() | {"differences": differences}
        show(format_, document, [document] if format_ == "ndjson" else differences, _FIELDS, {})
        return
    if rebuilt.live_equal:
        verdict = "equal to the live ones"
    elif differences:
        verdict = "NOT equal to the live ones"
    else:
        verdict = "no live ones of this version to compare with"
    action = "live timelines replaced" if rebuilt.swapped else "live timelines unchanged"
    print_line(
        f"{rebuilt.events:,} events, {rebuilt.subjects:,} subjects, position {rebuilt.position}: {verdict}; {action}"
    )
    if differences:
        print_table({field: itemgetter(field) for field in _FIELDS}, differences, "the first differences:")
