"""`audit`: checks every request of a log against the policy that was in force when it was made.

This module parses the options, runs the audit, and hands the larger options to their modules: what_if, explain, report,
spark. Proved by tests/cli/audit/.
"""

from __future__ import annotations

from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import click

from ledger.errors import BadInput
from ledger.opening import open_ledger
from projections.audit.reading.fields import FIELDS
from projections.audit.summary import LogDigest, Summary, pin_json
from projections.query.pinned import PinnedQuery
from projections.query.query import KnownAt, Query
from scripts.audit.request import (
    AuditRequest,
    audit_request,
    check_distinct_files,
    check_names,
    layout_of_options,
    option_name,
    rate_reporter,
    with_progress,
)
from scripts.cli import exits
from scripts.cli.files import progress
from scripts.cli.options import EXAMPLES, Format, assignments, database, known_at, output_format

if TYPE_CHECKING:
    from projections.audit.report.collector import ReportCollector
    from projections.audit.run import RowSink


@click.command(context_settings=EXAMPLES, epilog=f"Fields: {', '.join(FIELDS)}.")
@click.argument("logs", nargs=-1, required=True, metavar="LOG...")
@assignments(
    "--map",
    "columns",
    "FIELD=COLUMN",
    "Read a field from this column; in JSON the column may be a path with dots. The column that has the field's own "
    "name is then ignored. FIELD= reads the field from no column.",
)
@assignments("--set", "constants", "FIELD=VALUE", "Use this value on every line that has none.")
@click.option(
    "--log-format",
    type=click.Choice(["jsonl", "csv"]),
    help="The format of a text. Without it: JSON Lines if the text begins with {, else CSV.",
)
@click.option(
    "--timezone",
    metavar="ZONE",
    help="The zone of times without an offset, like UTC or Europe/Berlin. Without it such lines are rejected.",
)
@known_at("at")
@click.option(
    "--out",
    metavar="FILE",
    help="Write a verdict per row: as Parquet if the name ends in .parquet, as CSV if in .csv, else as NDJSON.",
)
@click.option(
    "--rejects",
    metavar="FILE",
    help="Write unreadable lines as NDJSON. Without it: LOG.rejects.jsonl, if there are any.",
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
@click.option("--report", metavar="DIR", help="Write a report into this folder: a page to attach, and JSON.")
@click.option(
    "--what-if",
    "changes",
    metavar="CHANGES",
    help="Show which requests would be decided differently if these changes had been made. CHANGES is JSON Lines, as "
    "for submit. --out then has a row for each of these requests.",
)
@click.option("--explain", metavar="REQUEST_ID", help="Show only which events decided the row with this id.")
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

    LOG is a Parquet file, JSON Lines, or CSV with a header, plain, gzip or zstd; a folder of such files; a pattern; or
    - for standard input. A row is a request record. Its fields are the columns with their names, or those that --map
    names; a folder named org_id=acme sets that field for all files below. A field that a row does not have is not
    judged.

    Every row gets a verdict, or is rejected with its line number and the reason. All verdicts use the ledger at one
    position. The summary shows that position, and the output has it too: in the metadata of a Parquet file, in
    FILE.pin.json beside another file. The same position and the same log give the same bytes.

    Exits 1 if there is a violation or a denial, and 2 if no row could be read.

    \b
      inforce audit requests.jsonl.gz --findings 3
      inforce audit log.csv --map at=TIMESTAMP --set org_id=acme --timezone UTC
      inforce audit logs/ 'more/*.parquet' --out verdicts.parquet
      inforce audit log.jsonl --map account_id=user.id --out verdicts.csv
      inforce audit requests.jsonl.gz --report report/
      inforce audit requests.jsonl.gz --explain req_00017
      inforce audit requests.jsonl.gz --what-if changes.jsonl --out changed.csv
      inforce audit s3a://logs/june/ --engine spark --master spark://host:7077 \\
          --out s3a://audits/june.parquet
    """
    _require_packages(options["report"])
    from scripts.audit.spark import check_engine_options

    check_engine_options(options)
    if options["engine"] == "spark":
        return _audit_on_spark(db, logs, known_at, format_, options)
    _check_combination(options, format_)
    check_names(options)
    request = audit_request(logs, known_at, options)
    if options["explain"] is not None:
        return _explain(db, request, options["explain"], format_)
    from projections.audit.run import limit_memory
    from scripts.audit.outputs import rejects_name

    limit_memory()
    exits.warn_if_slow()
    check_distinct_files(request, rejects_name(logs[0], options["rejects"]), options)
    if options["changes"] is not None:
        return _what_if(db, logs[0], request, options, format_)
    return _audit(db, logs[0], request, options, format_)


def _require_packages(report: str | None) -> None:
    from importlib.util import find_spec

    names = ("pyarrow", "numpy") if report is None else ("pyarrow", "numpy", "jinja2")
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise BadInput(f"this audit needs {' and '.join(missing)}, which is not installed; install inforce[audit]")


def _check_combination(options: dict[str, Any], format_: Format) -> None:
    """Raises `click.UsageError` for options that would have no effect together."""
    others: tuple[str, ...]
    if options["findings"] and format_ in ("ndjson", "csv"):
        raise click.UsageError(f"--format {format_} prints counts and has no --findings; table and json show them")
    if options["explain"] is not None:
        others = ("out", "rejects", "max_rejects", "findings", "report", "changes")
    elif options["changes"] is not None:
        others = ("report",)
    else:
        return
    alone = "--explain" if options["explain"] is not None else "--what-if"
    for other in others:
        if options[other] not in (None, 0):
            raise click.UsageError(f"{alone} takes no {option_name(other)}; run them one after the other")


def _audit_on_spark(db: str, logs: tuple[str, ...], known_at: KnownAt, format_: Format, options: dict[str, Any]) -> int:
    from scripts.audit.spark import SparkRequest, audit_on_spark

    request = SparkRequest(
        logs,
        layout_of_options(options),
        known_at,
        options["master"],
        options["spark_conf"],
        options["out"],
        options["rejects"],
        options["max_rejects"],
        options["spark_index_max"],
    )
    exits.warn_if_slow()
    return audit_on_spark(db, request, format_)


def _what_if(db: str, first_log: str, request: AuditRequest, options: dict[str, Any], format_: Format) -> int:
    from scripts.audit.what_if import WhatIfRequest, what_if

    what_if_request = WhatIfRequest(
        changes=options["changes"],
        logs=request.logs,
        read_once=any(file.name == "-" for file in request.files),
        known_at=request.known_at,
        first_log=first_log,
        rejects=options["rejects"],
        max_rejects=options["max_rejects"],
        out=options["out"],
        shown=options["findings"],
        reading=request.layout.json(),
    )
    return what_if(db, what_if_request, format_)


def _audit(db: str, first_log: str, request: AuditRequest, options: dict[str, Any], format_: Format) -> int:
    from projections.audit.index.pin import pin_of
    from projections.audit.run import index_decider, run
    from scripts.audit.outputs import FirstFindings, OutputFiles, VerdictSink, rejects_message
    from scripts.audit.show_summary import show_summary

    out, folder, findings_max = options["out"], options["report"], options["findings"]
    files = OutputFiles(first_log, out=out, rejects=options["rejects"], max_rejects=options["max_rejects"])
    logs, collector = request.logs(), _collector(folder)
    with ExitStack() as stack:
        ledger = stack.enter_context(open_ledger(db))
        stack.enter_context(files)
        # Only evidence needs the stored timelines, which may have to be built first.
        query = PinnedQuery(Query(ledger)) if findings_max or collector is not None else None
        pin = pin_of(ledger) if query is None else query.pinned
        summary = Summary(pin, request.known_at)
        findings = FirstFindings(query, request.known_at, findings_max)
        sinks: list[RowSink] = [VerdictSink(files), findings]
        if collector is not None:
            sinks.append(collector)
        decide = index_decider(ledger, pin, request.known_at)
        with progress("auditing", logs.size) as report:
            run(logs, decide, summary, sinks=sinks, progress=rate_reporter(report, logs))
        summary.log = LogDigest(logs.digest, [(source.name, source.bytes) for source in logs.sources])
        files.finish(pin_json(summary) | {"reading": request.layout.json()})
        if collector is not None and query is not None:
            _write_report(folder, collector, summary, query, request, files.rejects)
    for warning in logs.warnings:
        exits.print_message(warning)
    if not summary.rows:
        exits.print_message("the log has no rows, so nothing was audited; check that it is the right log")
    if summary.rejects:
        where = f"all are in {files.rejects}"
        exits.print_message(rejects_message(summary.rejects, summary.rows, files.first_reject, where))
        if summary.rejects == summary.rows:
            return exits.BAD_INPUT
    # Rows on standard output are for programs, so nothing else is printed there.
    if "-" not in (out, files.rejects):
        show_summary(format_, summary, files.rejects, findings.findings)
    return exits.PROBLEM_FOUND if summary.against else exits.OK


def _collector(folder: str | None) -> ReportCollector | None:
    """What a report counts while the audit runs."""
    if folder is None:
        return None
    from projections.audit.report.collector import ReportCollector
    from scripts.audit.report import make_folder

    make_folder(folder)
    return ReportCollector()


def _write_report(
    folder: str, collector: ReportCollector, summary: Summary, query: PinnedQuery, request: AuditRequest, rejects: str
) -> None:
    from projections.audit.report.report import Invocation, build_report
    from scripts.audit.report import write_report

    try:
        installed = version("inforce")
    except PackageNotFoundError:
        installed = "not installed"
    invocation = Invocation(request.arguments, rejects if summary.rejects else None, installed)
    write_report(folder, build_report(collector, summary, query, invocation))


def _explain(db: str, request: AuditRequest, request_id: str, format_: Format) -> int:
    from scripts.audit.explain import explain_rows, find_rows, show_explained

    logs = request.logs()
    with open_ledger(db) as ledger:
        with progress("looking for the request", logs.size) as report:
            matching = find_rows(with_progress(logs, report), request_id)
        rows = explain_rows(PinnedQuery(Query(ledger)), matching, request.known_at)
    for warning in logs.warnings:
        exits.print_message(warning)
    show_explained(format_, rows, matching.total)
    return exits.OK
