"""`rebuild`: makes the stored timelines anew from the events."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import click

from ledger.opening import open_ledger
from projections.timelines.projector import Projector
from projections.timelines.rebuild.rebuild import Rebuilt
from projections.timelines.rebuild.rebuild import rebuild as rebuild_timelines
from projections.timelines.rebuild.workers import Workers, usual_processes
from projections.timelines.store import open_timelines
from scripts.cli import exits
from scripts.cli.files import progress
from scripts.cli.options import EXAMPLES, Format, database, output_format
from scripts.cli.output import Columns, print_line, said, show


@click.command(context_settings=EXAMPLES)
@click.option("--check", "check_only", is_flag=True, help="Only compare; leave the stored timelines as they are.")
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    help="That read and fold a large ledger.  [default: one for each processor, up to 6; one for a small ledger]",
)
@database
@output_format
def rebuild(db: str, format_: Format, check_only: bool, processes: int | None) -> int:
    """Make the stored timelines anew from the events.

    They are made beside the live ones, compared with them, and take their place in one transaction; answers and
    submissions go on meanwhile. Exits 1 when any row differed: live timelines never should.

    \b
      inforce rebuild
      inforce rebuild --check --format json
    """
    with open_ledger(db) as ledger, progress("rebuilding", ledger.head().position) as tell:
        projector = Projector(ledger, open_timelines(ledger))
        rebuilt = rebuild_timelines(
            projector,
            check_only=check_only,
            workers=Workers(db, processes or usual_processes()),
            progress=lambda done, _head: tell(done, f"{done:,} events"),
        )
    _show_rebuilt(format_, rebuilt)
    differs = bool(rebuilt.differences) or (check_only and not rebuilt.live_equal)
    return exits.AGAINST if differs else exits.OK


def _show_rebuilt(format_: Format, rebuilt: Rebuilt) -> None:
    differences = [
        {
            "subject": difference.subject,
            "setting": difference.setting,
            "axis": difference.axis,
            "live": str(difference.live) if difference.live else None,
            "rebuilt": str(difference.rebuilt) if difference.rebuilt else None,
        }
        for difference in rebuilt.differences
    ]
    fields = ("subject", "setting", "axis", "live", "rebuilt")
    if format_ != "table":
        document = rebuilt._asdict() | {"differences": differences}
        rows = [document] if format_ == "ndjson" else differences
        show(format_, document, rows, fields, {})
        return
    if rebuilt.live_equal:
        verdict = "equal to the live ones"
    elif differences:
        verdict = "NOT equal to the live ones"
    else:
        verdict = "there were no live ones of this version to compare with"
    did = "took their place" if rebuilt.swapped else "the live ones were left as they are"
    print_line(
        f"{rebuilt.events:,} events, {rebuilt.subjects:,} subjects, position {rebuilt.position}: {verdict}; {did}"
    )
    if differences:
        columns: Columns = {field: partial(_member_said, field) for field in fields}
        show("table", None, differences, (), columns, "the first differences:")


def _member_said(field: str, row: Mapping[str, Any]) -> Any:
    return said(row[field])
