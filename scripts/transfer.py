"""`export` and `import`: the whole ledger out, and into an empty one."""

from __future__ import annotations

import os

import click

from ledger.opening import open_ledger
from ledger.store import Ledger
from ledger.times import format_time
from ledger.transfer.transfer import ImportSummary, export_lines, export_personal, import_ledger
from scripts.cli.files import progress, reading, size_of, writing
from scripts.cli.options import EXAMPLES, Format, database, output_format
from scripts.cli.output import Columns, human_time, show


@click.command("export", context_settings=EXAMPLES)
@click.option("--out", default="-", metavar="FILE", help="Where to; - (the default) is standard output.")
@click.option("--personal", metavar="FILE", help="Also write reasons here: they are not part of an event's bytes.")
@database
def export(db: str, out: str, personal: str | None) -> None:
    """Write every event, exactly as it was recorded.

    One a line, in order of position. These bytes are the leaves that were hashed. inforce import restores them.
    Reasons are personal data, kept beside the events and only committed to by them: --personal writes them to a
    file of their own.

    \b
      inforce export | gzip > ledger.jsonl.gz
      inforce export --out ledger.jsonl --personal reasons.jsonl
    """
    if personal is not None and _same_file(personal, out):
        raise click.UsageError("events and personal data go to two different files")
    with open_ledger(db) as ledger:
        # Personal data first: of events that are recorded meanwhile, rather a reason is missing than an event.
        if personal is not None:
            with writing(personal) as file:
                file.writelines(export_personal(ledger))
        _export(ledger, out)


def _same_file(one: str, other: str) -> bool:
    return one == other or ("-" not in (one, other) and os.path.realpath(one) == os.path.realpath(other))


def _export(ledger: Ledger, out: str) -> None:
    head = ledger.head().position
    with writing(out) as file, progress("exporting", head) as tell:
        for done, line in enumerate(export_lines(ledger, until=head), 1):
            file.write(line)
            if done % 10_000 == 0:
                tell(done, f"{done:,} events")


@click.command("import", context_settings=EXAMPLES)
@click.argument("file", metavar="FILE")
@click.option("--personal", metavar="FILE", help="The reasons of exported events: what export --personal wrote.")
@click.option("--origin", help="Names the new ledger of submissions; exported events keep theirs.")
@database
@output_format
def import_(file: str, db: str, format_: Format, personal: str | None, origin: str | None) -> None:
    """Fill an empty ledger from an export or from submissions.

    FILE is JSON Lines, gzip too, - for standard input: exported events, which are verified and restored byte for
    byte, or submissions as for submit, each with a "recorded_at" added. For operators: elsewhere only the ledger
    itself sets the time of recording. What cannot be imported whole is not imported at all.

    \b
      inforce import ledger.jsonl.gz --personal reasons.jsonl --db sqlite:///copy.db
      inforce import past-changes.jsonl --origin ledger.example.com
    """
    if personal is not None and _same_file(personal, file):
        raise click.UsageError("events and personal data come from two different files")
    total = size_of(file)
    with reading(file) as stream, progress("importing", total) as tell:

        def told(events: int, taken: int) -> None:
            tell(taken, f"{events:,} events")

        if personal is None:
            summary = import_ledger(db, stream, origin=origin, progress=told)
        else:
            with reading(personal) as beside:
                summary = import_ledger(db, stream, personal=beside, origin=origin, progress=told)
    _show_import(format_, summary)


def _show_import(format_: Format, summary: ImportSummary) -> None:
    row = summary._asdict() | {"first": format_time(summary.first), "last": format_time(summary.last)}
    columns: Columns = {
        "": lambda pair: pair[0],
        "imported": lambda pair: human_time(pair[1]) if pair[0] in ("first", "last") else pair[1],
    }
    if format_ == "table":
        show("table", row, list(row.items()), (), columns)
    else:
        show(format_, row, [row], tuple(row), columns)
