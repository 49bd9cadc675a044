"""`audit`: every request of a log against the policy that was in force when it was made."""

from __future__ import annotations

from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ledger.errors import BadInput
from ledger.opening import open_ledger
from projections.audit.reading.fields import FIELDS
from projections.audit.reading.layout import make_layout
from projections.audit.summary import LogDigest, Summary, pin_json
from projections.query.pinned import PinnedQuery
from projections.query.query import KnownAt, Query
from scripts.audit.request import Asked, asked, must_be_text, must_differ, paced
from scripts.audit.spark import AskedSpark, audit_on_spark, must_suit
from scripts.cli import exits
from scripts.cli.files import progress
from scripts.cli.options import EXAMPLES, Assignments, Format, database, known, known_at, output_format, unique

if TYPE_CHECKING:
    from projections.audit.reading.logs import LogReader
    from projections.audit.report.collector import ReportCollector
    from projections.audit.run import Taker
    from scripts.audit.outputs import RowFiles


@click.command(context_settings=EXAMPLES, epilog=f"Fields: {', '.join(FIELDS)}.")
@click.argument("logs", nargs=-1, required=True, metavar="LOG...")
@click.option(
    "--map",
    "columns",
    type=Assignments(),
    multiple=True,
    metavar="FIELD=COLUMN",
    help="Read a field from this column (in JSON, a path with dots too). Columns of other names are then ignored; "
    "FIELD= reads it from none.",
)
@click.option(
    "--set",
    "constants",
    type=Assignments(),
    multiple=True,
    metavar="FIELD=VALUE",
    help="What holds on every line that does not say.",
)
@click.option(
    "--log-format", type=click.Choice(["jsonl", "csv"]), help="Of text. Left out: { begins JSON Lines, else CSV."
)
@click.option("--timezone", metavar="ZONE", help="Of times without an offset: UTC, Europe/Berlin. Left out: rejected.")
@known_at("at", "What the verdicts rest on.")
@click.option(
    "--out",
    metavar="FILE",
    help="A verdict a row: Parquet if the name ends in .parquet, CSV if in .csv, else NDJSON.",
)
@click.option("--rejects", metavar="FILE", help="Unreadable lines as NDJSON. Left out: LOG.rejects.jsonl, if any.")
@click.option("--max-rejects", type=click.IntRange(min=0), metavar="N", help="Give up when there are more.")
@click.option("--findings", type=click.IntRange(min=0), default=0, metavar="N", help="Show the first N with evidence.")
@click.option("--report", metavar="DIR", help="A page to attach, and the same as JSON, in this folder.")
@click.option(
    "--what-if",
    "changes",
    metavar="CHANGES",
    help="JSON Lines of changes, as for submit: which of the requests would have been decided otherwise? Then --out is "
    "a row for each of these.",
)
@click.option("--explain", metavar="REQUEST_ID", help="Name the events that decided the row with this id, and no more.")
@click.option("--engine", type=click.Choice(["local", "spark"]), default="local", help="This machine, or a cluster.")
@click.option("--master", metavar="URL", help="Of Spark: spark://host:7077, local[*], yarn, k8s://…")
@click.option("--spark-conf", type=Assignments(), multiple=True, metavar="KEY=VALUE", help="A setting of Spark's.")
@click.option(
    "--spark-index-max",
    type=click.IntRange(min=0),
    metavar="BYTES",
    help="Above this, executors have slices of the policy index instead of all of it. Left out: 4 GiB.",
)
@database
@output_format
def audit(logs: tuple[str, ...], db: str, format_: Format, timezone: str | None, known_at: Any, **options: Any) -> int:
    """Check every request of a log.

    LOG is a Parquet file, JSON Lines, or CSV with a header; gzip or zstd, too; a folder of them, a pattern, or - for
    standard input. A row is a request record; its fields are the columns that bear their names, or that --map names;
    folders like org_id=acme say the same of all files below. What a row does not say is not judged. Every row gets a
    verdict, or is rejected with its number and why: none is guessed at, none is lost. All verdicts rest on one
    position of the ledger, which the summary names, and so does the output: in the metadata of a Parquet file, beside
    another in FILE.pin.json. The same ledger position and log give the same bytes.

    Exits 1 when there is a violation or a denial, and 2 when not one row could be read.

    \b
      inforce audit requests.jsonl.gz --findings 3
      inforce audit log.csv --map at=TIMESTAMP --set org_id=acme --timezone UTC
      inforce audit logs/ 'more/*.parquet' --out verdicts.parquet
      inforce audit log.jsonl --map account_id=user.id --map handling.stored=kept --out verdicts.csv
      inforce audit requests.jsonl.gz --report report/
      inforce audit requests.jsonl.gz --explain req_00017
      inforce audit requests.jsonl.gz --what-if changes.jsonl --out otherwise.csv
      inforce audit s3a://logs/june/ --engine spark --master spark://host:7077 --out s3a://audits/june.parquet
    """
    _need_packages(options["report"])
    must_suit(options)
    if options["engine"] == "spark":
        return _on_spark(db, logs, timezone, known(known_at), format_, options)
    _must_agree(options, format_)
    must_be_text(options)
    how = asked(logs, timezone, options["log_format"], options["columns"], options["constants"], known(known_at))
    if options["explain"] is not None:
        return _explain(db, how, options["explain"], format_)
    wanted = _Wanted(options["out"], options["report"], options["findings"], format_)
    from projections.audit.run import hold_little
    from scripts.audit.outputs import RowFiles, rejects_name

    hold_little()
    exits.warn_if_slow()
    must_differ(how, wanted.out, rejects_name(logs[0], options["rejects"]), options["changes"], wanted.report)
    changes = options["changes"]
    verdicts = wanted.out if changes is None else None
    files = RowFiles(logs[0], out=verdicts, rejects=options["rejects"], max_rejects=options["max_rejects"])
    if changes is None:
        return _audit(db, how, files, wanted)
    from scripts.audit.what_if import Asked as AskedWhatIf
    from scripts.audit.what_if import what_if

    once = any(file.name == "-" for file in how.files)
    read = how.layout.json()
    return what_if(
        db, AskedWhatIf(changes, how.logs, once, how.known_at, files, wanted.out, wanted.findings, read), format_
    )


def _on_spark(
    db: str, logs: tuple[str, ...], timezone: str | None, known_at: KnownAt, format_: Format, options: dict[str, Any]
) -> int:
    columns, constants = unique(options["columns"], "--map"), unique(options["constants"], "--set")
    asked = AskedSpark(
        logs,
        make_layout(columns, constants, timezone, options["log_format"]),
        known_at,
        options["master"],
        unique(options["spark_conf"], "--spark-conf"),
        options["out"],
        options["rejects"],
        options["max_rejects"],
        options["spark_index_max"],
    )
    exits.warn_if_slow()
    return audit_on_spark(db, asked, format_)


class _Wanted(NamedTuple):
    out: str | None
    report: str | None
    findings: int
    format: Format


def _need_packages(report: str | None) -> None:
    from importlib.util import find_spec

    names = ("pyarrow", "numpy") if report is None else ("pyarrow", "numpy", "jinja2")
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise BadInput(
            f"this audit needs {' and '.join(missing)}, which this installation has not; install inforce[audit]"
        )


def _audit(db: str, how: Asked, files: RowFiles, wanted: _Wanted) -> int:
    from projections.audit.index.pin import pin_of
    from projections.audit.run import by_kernel, run
    from scripts.audit.outputs import Findings
    from scripts.audit.show_summary import show_summary

    logs, collector = how.logs(), _collector(wanted.report)
    with ExitStack() as stack:
        ledger = stack.enter_context(open_ledger(db))
        stack.enter_context(files)
        # Evidence is shown from the timelines, which nothing else needs: they may first have to be made.
        query = PinnedQuery(Query(ledger)) if wanted.findings or collector is not None else None
        pin = pin_of(ledger) if query is None else query.pinned
        summary = Summary(pin, how.known_at)
        findings = Findings(query, how.known_at, wanted.findings)
        takers: list[Taker] = [files, findings]
        if collector is not None:
            takers.append(collector)
        with progress("auditing", logs.size) as tell:
            run(logs, by_kernel(ledger, pin, how.known_at), summary, takers=takers, progress=paced(tell, logs))
        summary.log = LogDigest(logs.digest, [(source.name, source.bytes) for source in logs.sources])
        files.finish(pin_json(summary) | {"reading": how.layout.json()})
        if collector is not None and query is not None and wanted.report is not None:
            _write_report(wanted.report, collector, summary, query, how, files.rejects)
    for warning in logs.warnings:
        exits.say(warning)
    if not summary.rows:
        exits.say("the log has no row, so nothing was audited; make sure that it is the one that was meant")
    if summary.rejects:
        first = files.first_reject
        assert first is not None
        none_read = summary.rejects == summary.rows
        exits.say(
            f"{summary.rejects} of {summary.rows} lines rejected, the first: {first.source} line {first.line}: "
            f"{first.fault}; all are in {files.rejects}" + ("; --map names the columns to read" if none_read else "")
        )
        if none_read:
            return exits.BAD_INPUT
    # Rows for programs are not followed by anything else.
    if "-" not in (wanted.out, files.rejects):
        show_summary(wanted.format, summary, files.rejects, findings.found)
    return exits.AGAINST if summary.against else exits.OK


def _collector(folder: str | None) -> ReportCollector | None:
    """What a report counts while rows are decided. Its folder is made now, not when hours of work would be lost."""
    if folder is None:
        return None
    from projections.audit.report.collector import ReportCollector
    from scripts.audit.report import prepare

    prepare(folder)
    return ReportCollector()


def _write_report(
    folder: str, collector: ReportCollector, summary: Summary, query: PinnedQuery, how: Asked, rejects: str
) -> None:
    from projections.audit.report.report import Invocation, build_report
    from scripts.audit.report import write_report

    try:
        ours = version("inforce")
    except PackageNotFoundError:
        ours = "not installed"
    invocation = Invocation(how.arguments, rejects if summary.rejects else None, ours)
    write_report(folder, build_report(collector, summary, query, invocation))


def _explain(db: str, how: Asked, request_id: str, format_: Format) -> int:
    from scripts.audit.explain import explain_rows, find, show_explained

    logs = how.logs()
    with open_ledger(db) as ledger:
        with progress("looking for the request", logs.size) as tell:
            found = find(_telling(logs, tell), request_id)
        explained = explain_rows(PinnedQuery(Query(ledger)), found, how.known_at)
    for warning in logs.warnings:
        exits.say(warning)
    show_explained(format_, explained, found.total)
    return exits.OK


def _telling(logs: LogReader, tell: Any) -> Any:
    for part in logs:
        yield part
        tell(logs.bytes_read, "")


def _must_agree(options: dict[str, Any], format_: Format) -> None:
    """Each of these questions has an answer of its own."""
    others: tuple[str, ...]
    if options["findings"] and format_ in ("ndjson", "csv"):
        raise click.UsageError(f"--format {format_} is rows of counts and has no --findings; table and json show them")
    if options["explain"] is not None:
        others = ("out", "rejects", "max_rejects", "findings", "report", "changes")
    elif options["changes"] is not None:
        others = ("report",)
    else:
        return
    asking = "--explain" if options["explain"] is not None else "--what-if"
    for other in others:
        if options[other] not in (None, 0):
            name = "--what-if" if other == "changes" else f"--{other.replace('_', '-')}"
            raise click.UsageError(f"{asking} answers by itself and takes no {name}; ask for that in another run")
