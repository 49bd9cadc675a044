"""`audit`: every request of a log against the policy that was in force when it was made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, tzinfo
from typing import Any, Final

import click

from ledger.opening import open_ledger
from projections.audit.fields import FIELDS, Shape
from projections.audit.records import Log, LogFormat, LogRow, read_log
from projections.audit.run import VERDICTS, Summary, by_weight, run, summary_json
from projections.decision import REASONS
from projections.query import Query
from scripts import exits
from scripts.audit_files import RowFiles, finding_json
from scripts.decisions import print_decision
from scripts.files import progress, reading, size_of
from scripts.options import EXAMPLES, Assignments, Format, database, known, known_at, output_format, unique
from scripts.output import Columns, human_time, print_line, print_table, show

SUBJECTS_SHOWN: Final = 10


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
@click.option("--log-format", type=click.Choice(["jsonl", "csv"]), help="Left out: { begins JSON Lines, else CSV.")
@click.option("--timezone", metavar="ZONE", help="Of times without an offset: UTC, Europe/Berlin. Left out: rejected.")
@known_at("at", "What the verdicts rest on.")
@click.option("--out", metavar="FILE", help="A decision a line: CSV if the name ends in .csv, else NDJSON.")
@click.option("--rejects", metavar="FILE", help="Unreadable lines as NDJSON. Left out: LOG.rejects.jsonl, if any.")
@click.option("--max-rejects", type=click.IntRange(min=0), metavar="N", help="Give up when there are more.")
@click.option("--findings", type=click.IntRange(min=0), default=0, metavar="N", help="Show the first N with evidence.")
@database
@output_format
def audit(logs: tuple[str, ...], db: str, format_: Format, timezone: str | None, known_at: Any, **options: Any) -> int:
    """Check every request of a log.

    LOG is JSON Lines or CSV with a header, gzip too, - for standard input. A line is a request record; its fields
    are the columns that bear their names, or that --map names. What a line does not say is not judged. Every line
    gets a verdict, or is rejected with its number and why: none is guessed at, none is lost. All verdicts rest on
    one position of the ledger, which the summary names.

    Exits 1 when there is a violation or a denial, and 2 when not one line could be read.

    \b
      inforce audit requests.jsonl.gz --findings 3
      inforce audit log.csv --map at=TIMESTAMP --set org_id=acme --timezone UTC
      inforce audit log.jsonl --map account_id=user.id --map handling.stored=kept --out verdicts.csv
    """
    out, rejects = options["out"], options["rejects"]
    shape = Shape(unique(options["columns"], "--map"), unique(options["constants"], "--set"), _zone(timezone))
    shape.checked_constants()
    if logs.count("-") > 1:
        raise click.UsageError("standard input can be read once")
    _must_differ([name for name in (out, rejects, *logs) if name not in (None, "-")])
    files = RowFiles(
        logs[0], out=out, rejects=rejects, max_rejects=options["max_rejects"], findings=options["findings"]
    )
    with open_ledger(db) as ledger, files, progress("auditing", _total(logs)) as tell:
        rows = _Rows(logs, shape, options["log_format"])

        def told(count: int) -> None:
            tell(rows.bytes_read, f"{count:,} rows")

        summary = run(Query(ledger), rows, known_at=known(known_at), on_row=files.take, progress=told)
    rows.warn()
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
    if out != "-":
        _show(format_, summary, files)
    return exits.AGAINST if summary.against else exits.OK


class _Rows:
    """The rows of all logs, one log after the other."""

    def __init__(self, logs: tuple[str, ...], shape: Shape, log_format: LogFormat | None) -> None:
        self._logs = logs
        self._shape = shape
        self._format = log_format
        self._warnings: list[str] = []
        self._reading: Log | None = None
        self._taken_before = 0

    @property
    def bytes_read(self) -> int:
        return self._taken_before + (self._reading.bytes_read if self._reading is not None else 0)

    def __iter__(self) -> Iterator[LogRow]:
        for name in self._logs:
            with reading(name) as stream:
                log = read_log(stream, name, shape=self._shape, log_format=self._format)
                self._reading = log
                yield from log
                self._warnings += [f"{name}: no line had the column that was named for {f}" for f in log.unseen]
                self._taken_before, self._reading = self.bytes_read, None

    def warn(self) -> None:
        # A slip in --map would otherwise pass for a log that never says anything against anybody.
        for warning in self._warnings:
            exits.say(warning)


def _must_differ(names: list[str]) -> None:
    """What is written must not take the place of what is read, or of what else is written."""
    paths = [os.path.realpath(name) for name in names]
    if len(set(paths)) != len(paths):
        raise click.UsageError("LOG, --out and --rejects must be different files")


def _zone(name: str | None) -> tzinfo | None:
    if name is None:
        return None
    if name.upper() == "UTC":
        return UTC
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise click.UsageError("there is no such time zone; name one like UTC or Europe/Berlin") from None


def _total(logs: tuple[str, ...]) -> int | None:
    sizes = [size_of(name) for name in logs]
    return None if None in sizes else sum(size for size in sizes if size)


def _show(format_: Format, summary: Summary, files: RowFiles) -> None:
    written = summary_json(summary)
    findings = [finding_json(row, decision) for row, decision in files.findings]
    if format_ != "table":
        document = written | {"findings": findings, "rejects_file": files.rejects if summary.rejects else None}
        counts = [{"what": "rows", "name": None, "count": summary.rows}]
        counts += [{"what": "rejects", "name": None, "count": summary.rejects}]
        for what, member in (("verdict", "verdicts"), ("reason", "reasons")):
            counts += [{"what": what, "name": name, "count": count} for name, count in written[member].items()]
        counts += [{"what": "hindsight", "name": None, "count": summary.hindsight}]
        show(format_, document, counts, ("what", "name", "count"), {})
        return
    _show_tables(summary)
    for row, decision in files.findings:
        print_line()
        print_line(f"{row.source} line {row.line}", "bold underline")
        print_decision(decision)


def _show_tables(summary: Summary) -> None:
    pin = summary.pin
    lines = f"{summary.rows:,} lines" + (f", {summary.rejects:,} rejected" if summary.rejects else "")
    if summary.first_at is not None:
        lines += f"; requests from {human_time(summary.first_at)} to {human_time(summary.last_at)}"
    print_line(lines, "bold")
    print_line(f"at position {pin.position} of {pin.origin}, whose event has leaf hash {pin.leaf_hash}")
    if summary.first_at is None:
        return
    print_line()
    verdicts = [(verdict, summary.verdicts[verdict]) for verdict in VERDICTS if summary.verdicts[verdict]]
    print_table(_counted("verdict"), verdicts)
    reasons = [(reason, summary.reasons[reason]) for reason in REASONS if summary.reasons[reason]]
    if reasons:
        print_line()
        print_table({**_counted("reason"), "": lambda pair: REASONS[pair[0]]}, reasons)
    print_line()
    subjects = by_weight(summary)
    of: Columns = {verdict: _verdict_count(summary, verdict) for verdict, _ in verdicts}
    who: Columns = {"governed by": lambda subject: subject or "(nobody that can be told)"}
    print_table({**who, **of}, subjects[:SUBJECTS_SHOWN])
    if len(subjects) > SUBJECTS_SHOWN:
        print_line(f"and {len(subjects) - SUBJECTS_SHOWN:,} more; --format json names all")
    if summary.hindsight:
        print_line()
        print_line(f"{summary.hindsight:,} of these would be decided otherwise with what was recorded later.")


def _counted(title: str) -> dict[str, Callable[[Any], object]]:
    return {title: lambda pair: pair[0], "requests": lambda pair: f"{pair[1]:,}"}


def _verdict_count(summary: Summary, verdict: str) -> Callable[[Any], object]:
    return lambda subject: f"{summary.subjects[subject][verdict]:,}"
