"""`export` and `import`: the whole ledger to a file, and from a file into an empty ledger.

Proved by tests/cli/test_transfer.py and tests/transfer/.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import click

from ledger.errors import LedgerCorrupt
from ledger.opening import open_ledger
from ledger.recorders.contract import SEALED
from ledger.store import Ledger
from ledger.times import format_time
from ledger.transfer.export import export_lines, export_personal
from ledger.transfer.import_ledger import import_ledger
from ledger.transparency.checkpoint_memory import memory_of
from ledger.transparency.integrator import Integrator
from ledger.transparency.keys import configured_keys
from ledger.transparency.note import SigningKey
from ledger.transparency.published_log import PublishedLog
from ledger.transparency.static_export import export_log
from scripts.cli import exits
from scripts.cli.files import open_input, open_output, progress
from scripts.cli.options import FILE, Format, after, database, output_format
from scripts.cli.output import show_record
from scripts.cli.settings import setting


@click.command("export")
@click.option("--out", type=FILE, default="-", metavar="FILE", help="Write to FILE instead of standard output.")
@click.option("--personal", type=FILE, metavar="FILE", help="Also write the reasons, into a file of their own.")
@click.option(
    "--log",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Instead write the published transparency log as static files into DIR.",
)
@setting("signing_key_file")
@after
@database
def export(
    db: str, out: str, personal: str | None, log: Path | None, signing_key_file: Path | None, after: int
) -> None:
    """Write every event to a file, byte for byte as recorded.

    One event per line, by position. The bytes of a line are the leaf that was hashed, and inforce import restores
    them. Reasons are personal data: an event holds only a commitment to its reason, and --personal writes the reasons
    themselves. Without it, a line on standard error counts the reasons that stay behind.

    With --log, DIR gets the checkpoint, tiles and bundles of the transparency log as any web server can serve them
    (c2sp.org/tlog-tiles). A further export writes only what is new, and one that was cut off goes on. With
    --signing-key-file the log is first brought up to the ledger, unless a server does so.

    \b
      inforce export | gzip > ledger.jsonl.gz
      inforce export --after 4711
      inforce export --out ledger.jsonl --personal reasons.jsonl
      inforce export --log /srv/log --signing-key-file log.key
    """
    if log is not None:
        if personal is not None or out != "-" or after:
            raise click.UsageError("--log writes the log alone; leave out --out, --personal and --after")
        _export_log(db, log, signing_key_file)
        return
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


def _export_log(db: str, folder: Path, signing_key_file: Path | None) -> None:
    keys = configured_keys(signing_key_file, os.environ)
    with open_ledger(db) as ledger:
        if keys:
            _publish(ledger, keys)
        log = PublishedLog(ledger.recorder)
        with progress("exporting", log.size()) as report:
            done = export_log(log, folder, lambda events: report(events, f"{events:,} events"))
    exits.print_note(f"{folder} holds the log {done.origin} up to {done.size:,} events; {done.written:,} files are new")


def _publish(ledger: Ledger, keys: Sequence[SigningKey]) -> None:
    """Brings the log up to the ledger. Where a server does so, its last checkpoint is right."""
    leader = ledger.recorder.integrator_lock()
    integrator = Integrator(ledger, keys, memory_of(ledger))
    if not leader.acquire():
        return
    try:
        integrator.catch_up()
    finally:
        leader.release()
    if integrator.problem is not None:
        raise LedgerCorrupt(f"{integrator.problem.code}: {integrator.problem.detail}")


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
