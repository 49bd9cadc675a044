"""`audit`: checks every request of a log against the policy that was in force when it was made.

This module declares the options; `request.py` checks them, and a module per way to audit does the work. Proved by
tests/cli/audit/.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import click

from ledger.errors import BadInput
from projections.audit.reading.fields import FIELDS
from projections.audit.reading.log_times import TIME_UNITS
from projections.audit.reading.shape import LOG_FORMATS, ROW_BYTES_LIMIT, ROW_BYTES_MAX
from projections.query.query import KnownAt
from scripts.cli import exits
from scripts.cli.instants import remember_zone
from scripts.cli.options import FILE, Format, assignments, database, known_at, output_format, texts


@click.command(epilog=f"Fields: {', '.join(FIELDS)}.")
@click.argument("logs", nargs=-1, required=True, type=FILE, metavar="LOG...")
@assignments(
    "--map",
    "columns",
    "FIELD=COLUMN",
    "Read a field from this column; in JSON the column may be a path with dots. A path after a colon leads into a JSON "
    "text. The column that has the field's own name is then ignored, as are all columns that are no fields. "
    "FIELD= reads the field from no column.",
)
@assignments("--set", "constants", "FIELD=VALUE", "Use this value on every line that has none.")
@click.option(
    "--log-format",
    type=click.Choice(LOG_FORMATS),
    help="The format of a text: JSON Lines, CSV, or JSON with a list of rows or rows of many lines. Without it the "
    "first "
    "bytes tell.",
)
@click.option(
    "--delimiter",
    metavar="SIGN",
    help="The sign between two cells of CSV. Without it the header shows which: , ; | or tab.",
)
@click.option(
    "--rows", metavar="PATH", help='The list of rows in a document of JSON, as in records for {"records": [...]}.'
)
@click.option("--sheet", metavar="NAME", help="The sheet of a spreadsheet. Without it the first one.")
@click.option(
    "--max-row-bytes",
    type=click.IntRange(1, ROW_BYTES_LIMIT),
    default=ROW_BYTES_MAX,
    show_default=True,
    metavar="BYTES",
    help="Reject a row that has more bytes, however many lines it has.",
)
@click.option(
    "--timezone",
    metavar="ZONE",
    is_eager=True,
    callback=remember_zone,
    help="The zone of times without an offset, in the log and in --known-at, like UTC or Europe/Berlin. Without it "
    "such lines are rejected.",
)
@click.option(
    "--time-unit",
    type=click.Choice(TIME_UNITS),
    help="The unit of times that are numbers since 1970. Without it such lines are rejected.",
)
@click.option(
    "--time-format",
    metavar="FORM",
    help="The form of all times, as %d.%m.%Y %H:%M for 01.03.2026 14:05. Times without an offset need --timezone.",
)
@texts("--true", "Texts of flags that mean true, besides true and 1, as Y,yes. Also in JSON and Parquet.")
@texts("--false", "Texts of flags that mean false, besides false and 0.")
@texts("--neither", "Texts of flags that say nothing, as None,-.")
@click.option(
    "--aliases",
    metavar="FILE",
    help="Read ids for the names in the log from this CSV: kind (key, account, org, project, model), name, id.",
)
@click.option(
    "--happened",
    is_flag=True,
    help="Judge rows that say nothing of how the data was handled as requests that happened: a request that ought to "
    "have been denied is then a violation. Without it they are questions.",
)
@known_at("at")
@click.option(
    "--out",
    metavar="FILE",
    help="Write a verdict per row: as Parquet, CSV or NDJSON if the name ends in .parquet, .csv, .ndjson or .jsonl.",
)
@click.option(
    "--rejects",
    metavar="FILE",
    help="Write unreadable lines as NDJSON. Without it: LOG.rejects.jsonl beside the log, if there are any.",
)
@click.option(
    "--max-rejects",
    type=click.IntRange(min=0),
    metavar="N",
    help="Stop, and write nothing, if more lines are unreadable.",
)
@click.option(
    "--findings", type=click.IntRange(min=0), default=0, metavar="N", help="Show the first N findings with evidence."
)
@click.option(
    "--report", metavar="DIR", help="Write a report into this folder: a page to attach, a summary to print, and JSON."
)
@click.option(
    "--what-if",
    "changes",
    metavar="CHANGES",
    help="Show which requests would be decided differently if these changes had been made. CHANGES is JSON Lines, as "
    "for submit. --out then has a row for each of these requests.",
)
@click.option(
    "--explain",
    metavar="ID|FILE:LINE",
    help="Show only which events decided the row with this id, or the row that begins on this line of this log.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "spark"]),
    default="local",
    show_default=True,
    help="Run on this machine, or on a Spark cluster.",
)
@click.option("--master", metavar="URL", help="The Spark master: spark://host:7077, local[*], yarn, k8s://…")
@assignments("--spark-conf", "spark_conf", "KEY=VALUE", "A Spark setting.")
@click.option(
    "--spark-index-max",
    type=click.IntRange(min=0),
    metavar="BYTES",
    help="Above this size, give executors slices of the policy index instead of all of it. Without it: 4 GiB.",
)
@database
@output_format
def audit(logs: tuple[str, ...], db: str, format_: Format, known_at: KnownAt, **options: Any) -> int:
    """Check every request of a log against the policy in force.

    LOG is JSON Lines, JSON, CSV with a header, .xlsx or Parquet, packed or not; a folder of such files; a pattern; or
    - for standard input. A row is a request record. Its fields are the columns with their names, or those that --map
    names; a folder named org_id=acme sets that field for all files below. A field that a row does not have is not
    judged. Other columns are ignored and named once; a log without a column that names a subject is refused.

    Every row gets a verdict, or is rejected with its line number and the reason. All verdicts use the ledger at one
    position. The summary shows that position, and the output has it too: in the metadata of a Parquet file, in
    FILE.pin.json beside another file. The same position and the same log give the same bytes.

    Exits 1 if there is a violation or a denial, 2 if no row could be read, and 4 if some rows could not be read and
    nothing else was found.

    \b
      inforce audit requests.jsonl.gz --findings 3
      inforce audit log.csv --map at=TIMESTAMP --set org_id=acme --timezone UTC
      inforce audit calls.csv --time-format '%d.%m.%Y %H:%M' --timezone Europe/Berlin --true Y --false N \\
          --aliases customers.csv
      inforce audit logs/ 'more/*.parquet' --out verdicts.parquet
      inforce audit log.jsonl --map account_id=user.id --out verdicts.csv
      inforce audit requests.jsonl.gz --report report/
      inforce audit requests.jsonl.gz --explain req_00017
      inforce audit calls.csv --explain calls.csv:17
      inforce audit requests.jsonl.gz --what-if changes.jsonl --out changed.csv
      inforce audit s3a://logs/june/ --engine spark --master spark://host:7077 \\
          --out s3a://audits/june.parquet
    """
    _require_packages(options["report"])
    from scripts.audit import request as requests

    requests.check_options(options, format_)
    request = requests.audit_request(logs, known_at, options)
    if options["explain"] is not None:
        from scripts.audit.explain import explain_request

        return explain_request(db, request, options["explain"], format_)
    exits.warn_if_slow()
    if options["engine"] == "spark":
        from scripts.audit.spark import audit_on_spark

        return audit_on_spark(db, request, options, format_)
    from projections.audit.run import limit_memory

    # Before the modules that import the kernel.
    limit_memory()
    requests.check_distinct_files(request, options["changes"], options["report"])
    if options["changes"] is not None:
        from scripts.audit.what_if import what_if

        return what_if(db, request, options["changes"], format_, shown_max=options["findings"])
    from scripts.audit.local import audit_locally

    return audit_locally(db, request, options, format_)


def _require_packages(report: str | None) -> None:
    names = ("pyarrow", "numpy") if report is None else ("pyarrow", "numpy", "jinja2")
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise BadInput(f"this audit needs {' and '.join(missing)}, which is not installed; install inforce again")
