"""`backup`: copies a whole ledger in SQLite, or verifies such a copy. `ledger/backup.py` does the work."""

from __future__ import annotations

from pathlib import Path

import click

from ledger.backup import back_up, check_backup
from ledger.errors import LedgerCorrupt
from ledger.times import format_time
from scripts.cli import exits
from scripts.cli.files import progress
from scripts.cli.options import Format, database, output_format
from scripts.cli.output import show_record


@click.command
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
@click.option("--check", "check_only", is_flag=True, help="Do not copy: verify every event of the backup FILE.")
@database
@output_format
def backup(file: Path, db: str, format_: Format, force: bool, check_only: bool) -> int:
    """Copy a ledger in SQLite into a file while others write to it.

    The copy holds the whole ledger at one moment: events, reasons, idempotency keys, stored timelines. It is verified
    before FILE appears; the output names its last position and leaf hash. Back up PostgreSQL with pg_dump.

    To restore: stop every process that uses the ledger, delete its file and the -wal and -shm files beside it, and
    copy the backup there.

    Exits 1 if --check finds that the backup is damaged or incomplete.

    \b
      inforce backup ledger-2026-11-23.db
      inforce backup --check ledger-2026-11-23.db
    """
    if check_only and force:
        raise click.UsageError("--check writes no file, so there is nothing to overwrite; leave --force out")
    with progress("backup", 1000) as report:

        def report_share(done: float, text: str) -> None:
            report(int(done * 1000), text)

        if check_only:
            try:
                copy = check_backup(file, progress=report_share)
            except LedgerCorrupt as error:
                exits.print_message(error.detail)
                return exits.PROBLEM_FOUND
        else:
            copy = back_up(db, file, overwrite=force, progress=report_share)
    record = copy._asdict() | {"recorded_at": format_time(copy.recorded_at)}
    show_record(format_, record, "checked" if check_only else "backed up", times=("recorded_at",))
    return exits.OK
