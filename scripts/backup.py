"""`backup`: copies a whole ledger in SQLite, or verifies such a copy. `ledger/backup.py` does the work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast
from urllib.parse import quote

import click

from ledger.backup import back_up
from ledger.check import faults
from ledger.opening import database_file, open_for_check
from ledger.times import format_time
from projections.timelines.check import timeline_faults
from projections.timelines.store import timelines_as_stored
from scripts.cli import exits
from scripts.cli.files import progress
from scripts.cli.options import Format, database, output_format
from scripts.cli.output import show_record, write_json


@click.command
@click.argument("file", metavar="FILE", required=False, type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
@click.option("--check", "check_only", is_flag=True, help="Do not copy: check all of FILE, or of --db.")
@database
@output_format
def backup(file: Path | None, db: str, format_: Format, force: bool, check_only: bool) -> int:
    """Copy a ledger in SQLite into a file while others write to it.

    The copy holds the whole ledger at one moment: events, reasons, idempotency keys, stored timelines. It is verified
    before FILE appears; the output names its last position and leaf hash. Back up PostgreSQL with pg_dump.

    To restore: stop every process that uses the ledger, delete its file and the -wal and -shm files beside it, and
    copy the backup there.

    --check compares every event with its hash and its columns, reasons with their commitments, idempotency keys with
    their events, timelines with the events, and the definitions of the tables. It prints a line for each fault and
    exits 1 if there is any. Without FILE it checks the ledger itself, on PostgreSQL too.

    \b
      inforce backup ledger-2026-11-23.db
      inforce backup --check ledger-2026-11-23.db
      inforce backup --check --db postgresql://user@host/name
    """
    if check_only and force:
        raise click.UsageError("--check writes no file, so there is nothing to overwrite; leave --force out")
    if check_only:
        with progress("checked events", None) as report_check:
            return _check(file, db, format_, report_check)
    if file is None:
        raise click.UsageError("name the FILE to copy the ledger to")
    with progress("backup", 1000) as report:

        def report_share(done: float, text: str) -> None:
            report(int(done * 1000), text)

        copy = back_up(db, file, overwrite=force, progress=report_share)
    record = copy._asdict() | {"recorded_at": format_time(copy.recorded_at)}
    show_record(format_, record, "backed up", times=("recorded_at",))
    return exits.OK


def _check(file: Path | None, db: str, format_: Format, report: Callable[[int, str], None]) -> int:
    url = db if file is None else f"sqlite:///{quote(str(file))}"
    path = database_file(url)
    record: dict[str, object] = {} if path is None else {"file": str(path)}
    with open_for_check(url) as ledger:
        all_faults = list(faults(ledger.recorder, lambda position: report(position, "checking the events")))
        report(0, "checking the timelines")
        all_faults += timeline_faults(ledger, timelines_as_stored(ledger))
        if not all_faults:
            head = ledger.head()
            last = ledger.recorder.entry(head.position)
            if path is not None:
                record["bytes"] = path.stat().st_size
            record |= {"origin": ledger.origin, "position": head.position}
            record |= {} if last is None else {"recorded_at": last.recorded_at, "leaf_hash": last.leaf_hash.hex()}
    if all_faults:
        if format_ == "json":
            write_json(record | {"faults": all_faults})
        else:
            for fault in all_faults:
                exits.print_message(fault)
        return exits.PROBLEM_FOUND
    record["recorded_at"] = format_time(cast(int, record["recorded_at"]))
    show_record(format_, record, "checked", times=("recorded_at",))
    return exits.OK
