"""A copy of the whole ledger for a bad day: backup."""

from __future__ import annotations

from pathlib import Path

import click

from ledger.backup import Backup, back_up, check_backup
from ledger.errors import LedgerCorrupt
from ledger.times import format_time
from scripts.cli import exits
from scripts.cli.files import progress
from scripts.cli.options import EXAMPLES, Format, database, output_format
from scripts.cli.output import Columns, human_time, show


@click.command(context_settings=EXAMPLES)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite FILE if it is there already.")
@click.option(
    "--check", "check_only", is_flag=True, help="Make nothing: read all of the backup FILE and see if it is whole."
)
@database
@output_format
def backup(file: Path, db: str, format_: Format, force: bool, check_only: bool) -> int:
    """Copy the whole ledger into a file, while others write to it.

    For ledgers in SQLite; one in PostgreSQL is backed up by pg_dump. The copy is of one moment and holds everything:
    events, reasons, idempotency keys, stored timelines. It is read once through before it takes its name, and its last
    position and leaf hash are told. To restore, stop whatever uses the ledger, take its file away with those named
    like it and -wal or -shm, and copy the backup there. Exits 1 when --check finds that the backup is not whole.

    \b
      inforce backup ledger-2026-11-23.db
      inforce backup --check ledger-2026-11-23.db
    """
    if check_only and force:
        raise click.UsageError("--check makes nothing, so there is nothing to overwrite: leave --force out")
    with progress("backup", 1000) as tell:

        def told(done: float, words: str) -> None:
            tell(int(done * 1000), words)

        if check_only:
            try:
                made = check_backup(file, progress=told)
            except LedgerCorrupt as error:
                exits.say(error.detail)
                return exits.AGAINST
        else:
            made = back_up(db, file, overwrite=force, progress=told)
    _show(format_, made, "checked" if check_only else "backed up")
    return exits.OK


def _show(format_: Format, made: Backup, title: str) -> None:
    row = made._asdict() | {"recorded_at": format_time(made.recorded_at)}
    if format_ == "table":
        said = row | {"recorded_at": human_time(made.recorded_at)}
        columns: Columns = {"": lambda pair: pair[0].replace("_", " "), title: lambda pair: pair[1]}
        show("table", row, list(said.items()), (), columns)
    else:
        show(format_, row, [row], tuple(row), {})
