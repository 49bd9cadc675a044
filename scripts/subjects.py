"""`subjects`: the subjects that have a history. Proved by tests/cli/test_subjects.py."""

from __future__ import annotations

from typing import Final

import click

from api.responses import subjects_json
from ledger.subjects import KINDS, RESERVED_KINDS
from projections.timelines.contract import SubjectRow
from scripts.cli import exits
from scripts.cli.options import Format, at_least, database, output_format, subject_ref
from scripts.cli.output import Columns, show
from scripts.cli.questions import open_query

PREFIX_LENGTH_MAX: Final = 300
_FIELDS: Final = SubjectRow._fields
_COLUMNS: Final[Columns] = {
    "subject": lambda row: row["subject"],
    "version": lambda row: row["version"],
    "last event": lambda row: f"#{row['position']}",
}


@click.command
@click.argument("prefix", required=False, metavar="[PREFIX]")
@click.option("--kind", type=click.Choice([*KINDS, *RESERVED_KINDS]), help="Only subjects of this kind.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Show at most this many.")
@click.option(
    "--after", type=subject_ref(*KINDS, *RESERVED_KINDS), metavar="SUBJECT", help="Show the subjects after this one."
)
@at_least
@database
@output_format
def subjects(
    prefix: str | None, db: str, format_: Format, *, kind: str | None, limit: int, after: str | None, at_least: int
) -> None:
    """List the subjects that have a history.

    Lists them in byte order, each with its version, which inforce submit --expected-version takes, and the position of
    its last event. PREFIX is the beginning of a whole reference: org:ac.

    \b
      inforce subjects
      inforce subjects org:ac
      inforce subjects --kind key --limit 1000 --format csv
    """
    if prefix is not None and not 1 <= len(prefix) <= PREFIX_LENGTH_MAX:
        raise click.UsageError(f"PREFIX has 1 to {PREFIX_LENGTH_MAX} characters; leave it out to list all subjects")
    with open_query(db, at_least) as query:
        position, rows = query.subjects(kind, prefix, after, limit)
    document = subjects_json(position, rows, limit)
    show(format_, document, document["subjects"], _FIELDS, _COLUMNS, f"subjects, position {position}")
    if document["next_after"] is not None and format_ != "json":
        exits.print_note(f"there may be more: --after {document['next_after']}")
