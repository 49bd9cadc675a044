"""`export` and `import`: the whole ledger to a file, and from a file into an empty ledger.

Proved by tests/cli/test_transfer.py and tests/transfer/.
"""

from __future__ import annotations

import os
from contextlib import nullcontext

import click

from ledger.opening import open_ledger
from ledger.recorders.contract import SEALED
from ledger.times import format_time
from ledger.transfer.export import export_lines, export_personal
from ledger.transfer.import_ledger import import_ledger
from scripts.cli import exits
from scripts.cli.files import open_input, open_output, progress
from scripts.cli.options import FILE, Format, after, database, output_format
from scripts.cli.output import show_record


@click.command("export")
@click.option("--out", type=FILE, default="-", metavar="FILE", help="Write to FILE instead of standard output.")
@click.option("--personal", type=FILE, metavar="FILE", help="Also write the reasons, into a file of their own.")
@after
@database
def export(db: str, out: str, personal: str | None, after: int) -> None:
    """Write every event to a file, byte for byte as recorded.

    One event per line, by position. The bytes of a line are the leaf that was hashed, and inforce import restores
    them. Reasons are personal data: an event holds only a commitment to its reason, and --personal writes the reasons
    themselves. Without it, a line on standard error counts the reasons that stay behind.

    \b
      inforce export | gzip > ledger.jsonl.gz
      inforce export --after 4711
      inforce export --out ledger.jsonl --personal reasons.jsonl
    """
    if personal is not None and _same_file(personal, out):
        raise click.UsageError("events and personal data go to two different files; name another with --personal")
    with open_ledger(db) as ledger:
        head = ledger.require_reached(after)
        # Personal data first: an event that is recorded meanwhile may lack its reason, but no reason lacks its event.
        if personal is not None:
            with open_output(personal) as file:
                file.writelines(export_personal(ledger))
        if personal is not None:
            head = ledger.head().position
        with open_output(out) as file, progress("exporting", head - after) as report:
            sealed = 0
            for count, line in enumerate(export_lines(ledger, after=after, until=head), 1):
                file.write(line)
                sealed += SEALED in line
                if count % 10_000 == 0:
                    report(count, f"{count:,} events")
        if sealed and personal is None:
            exits.print_note(
                f"{sealed:,} reason{' stays' if sealed == 1 else 's stay'} behind: an event holds only a commitment to "
                "its reason; --personal FILE writes the reasons, too"
            )


def _same_file(one: str, other: str) -> bool:
    return one == other or ("-" not in (one, other) and os.path.realpath(one) == os.path.realpath(other))


@click.command("import")
@click.argument("file", type=FILE, metavar="FILE")
@click.option(
    "--personal", type=FILE, metavar="FILE", help="The reasons of exported events, as export --personal wrote them."
)
@click.option("--origin", help="The name of the new ledger, for submissions. Exported events keep their origin.")
@database
@output_format
def import_(file: str, db: str, format_: Format, personal: str | None, origin: str | None) -> None:
    """Fill an empty ledger from an export or from submissions.

    FILE is JSON Lines, plain or gzip; - is standard input. It holds either exported events, which are verified and
    restored byte for byte, or submissions as for inforce submit: one a line, a batch {"events": [...]} a line, or one
    document. Each line has a "recorded_at" added, a batch beside its "events". An import takes the whole file or
    nothing.

    "recorded_at" is the moment from which the ledger knew of the change: questions with an earlier --known-at do not
    see it, and a change without "effective_from" takes effect then. It may not fall from line to line, nor lie in the
    future; neighbours with equal times are one submission. So an audit of last month judges by what was in force last
    month. "actor" names the person or program that made the change, in every answer and history; without it the
    actor is "import". Only an operator can set these two, and only here.

    \b
      inforce import ledger.jsonl.gz --personal reasons.jsonl --db sqlite:///copy.db
      inforce import past-changes.jsonl --origin ledger.example.com
      echo '{"type": "setting.changed", "subject": "org:acme", "setting": "training.opt_in", "value": true,
        "recorded_at": "2025-01-01T00:00:00Z", "actor": "alice"}' | inforce import -
    """
    if personal is not None and _same_file(personal, file):
        raise click.UsageError("events and personal data come from two different files; name another with --personal")
    with (
        open_input(file) as stream,
        open_input(personal) if personal is not None else nullcontext() as reasons,
        progress("importing", os.path.getsize(file) if os.path.isfile(file) else None) as report,
    ):

        def report_bytes(events: int, bytes_read: int) -> None:
            report(bytes_read, f"{events:,} events")

        summary = import_ledger(
            db, stream, personal=reasons, origin=origin, progress=report_bytes, announce=exits.print_message
        )
    record = summary._asdict() | {"first": format_time(summary.first), "last": format_time(summary.last)}
    show_record(format_, record, "imported", times=("first", "last"))
