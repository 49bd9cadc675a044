"""The request for an audit: which log, how to read it, at which `known_at`, and where the rows go.

Refuses options that contradict one another, and outputs that would overwrite an input.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, Protocol

import click

from ledger.subjects import is_text
from projections.audit.reading.aliases import NO_ALIASES, read_aliases
from projections.audit.reading.batches import LogBatch
from projections.audit.reading.files import PATTERN, PIN_SUFFIX, REJECTS_SUFFIX, STDIN, LogFile, log_files
from projections.audit.reading.layout import Forms, Layout, make_layout
from projections.audit.reading.logs import LogReader
from projections.audit.reading.shape import LogShape
from projections.audit.verdict_files import format_of
from projections.temporal.coordinates import KnownAt
from scripts.cli.files import ReportProgress
from scripts.cli.options import Format

PAGE: Final = "report.html"
SUMMARY_PAGE: Final = "summary.html"
DOCUMENT: Final = "report.json"
_LOCAL_ONLY: Final = ("findings", "report", "changes", "explain")
_SPARK_ONLY: Final = ("master", "spark_conf", "spark_index_max")
_REFUSED_BY: Final = {
    "explain": ("out", "rejects", "max_rejects", "findings", "report", "changes"),
    "changes": ("report",),
}


@dataclass(frozen=True, kw_only=True)
class AuditRequest:
    """The logs as named on the command line, the files behind the names (none for Spark), and where the rows go.

    `rejects` None: a file named after the first log, if there are any rejects.
    """

    names: tuple[str, ...]
    files: Sequence[LogFile]
    layout: Layout
    known_at: KnownAt
    out: str | None
    rejects: str | None
    max_rejects: int | None

    @property
    def rejects_file(self) -> str:
        return self.rejects or _beside(self.names[0])

    @property
    def arguments(self) -> tuple[str, ...]:
        """The logs and their layout, as on a command line."""
        # A name that begins with a dash would be an option.
        names = (f"./{name}" if name.startswith("-") and name != STDIN else name for name in self.names)
        return (*names, *self.layout.arguments())

    @property
    def read_once(self) -> bool:
        return STDIN in self.names

    def logs(self) -> LogReader:
        return LogReader(self.files, self.layout.shape)


def _beside(log: str) -> str:
    """The file for the rejects of a log, beside the log or the folder of logs; in the current folder if the log is
    standard input, or if its own folder is for reading only."""
    if log == STDIN:
        return f"stdin{REJECTS_SUFFIX}"
    if not os.path.lexists(log):
        # A pattern: its logs are below the folder that it names first.
        parts = list(takewhile(lambda part: not PATTERN & set(part), Path(log).parts))
        log = str(Path(*parts)) if parts else "logs"
    path = Path(log)
    named = f"{path.name or path.resolve().name or 'logs'}{REJECTS_SUFFIX}"
    beside = path.parent / named
    return str(beside) if os.access(path.parent, os.W_OK) else named


def audit_request(logs: tuple[str, ...], known_at: KnownAt, options: dict[str, Any]) -> AuditRequest:
    """Raises `BadInput` and `click.UsageError` for a log or a layout that cannot be read."""
    shape = LogShape(
        options["log_format"],
        options["max_row_bytes"],
        {"tab": "\t", "\\t": "\t"}.get(options["delimiter"], options["delimiter"]),
        options["rows"],
        options["sheet"],
    )
    layout = make_layout(options["columns"], options["constants"], _forms(options), shape)
    files: Sequence[LogFile] = ()
    if options["engine"] == "local":
        if logs.count(STDIN) > 1:
            raise click.UsageError("standard input can be read once; name - once")
        files = log_files(logs, layout.mapping)
    outputs = {name: options[name] for name in ("out", "rejects", "max_rejects")}
    return AuditRequest(names=logs, files=files, layout=layout, known_at=known_at, **outputs)


def _forms(options: Mapping[str, Any]) -> Forms:
    """Raises `BadRecord` and `OSError` for a table of aliases that cannot be read."""
    table = options["aliases"]
    return Forms(
        timezone=options["timezone"],
        time_unit=options["time_unit"],
        time_format=options["time_format"],
        true=options["true"],
        false=options["false"],
        neither=options["neither"],
        aliases=NO_ALIASES if table is None else read_aliases(table),
        happened=options["happened"],
    )


def check_options(options: Mapping[str, Any], format_: Format) -> None:
    """Raises `click.UsageError` for options that the engine does not have, that have no effect together, or that are
    not UTF-8, and `BadInput` for a result whose ending is no format."""
    if options["out"] is not None:
        format_of(options["out"])
    if options["engine"] == "spark":
        _refuse(options, _LOCAL_ONLY, "{} works on one machine only; leave out --engine spark")
        _check_cluster_options(options)
        return
    _refuse(options, _SPARK_ONLY, "{} needs --engine spark", unset=(None, {}))
    if options["findings"] and format_ in ("ndjson", "csv"):
        raise click.UsageError(f"--format {format_} prints counts and has no --findings; table and json show them")
    for name, others in _REFUSED_BY.items():
        if options[name] is not None:
            _refuse(options, others, f"{_option_name(name)} takes no {{}}; run them one after the other")
    # Names stand in the output of an audit.
    for name in ("out", "rejects", "report", "changes", "explain"):
        if not is_text(options[name] or ""):
            raise click.UsageError(f"{_option_name(name)}: this is not UTF-8, as names and ids are here; name another")


def _refuse(
    options: Mapping[str, Any], names: Sequence[str], message: str, unset: tuple[object, ...] = (None, 0)
) -> None:
    for name in names:
        if options[name] not in unset:
            raise click.UsageError(message.format(_option_name(name)))


def _check_cluster_options(options: Mapping[str, Any]) -> None:
    if options["master"] is None:
        raise click.UsageError("--engine spark needs --master, as in spark://host:7077 or local[*]")
    if "-" in (options["out"], options["rejects"]):
        raise click.UsageError("a cluster writes folders of files, not standard output; name a folder")
    folders = [f"{os.path.normpath(name)}/" for name in (options["out"], options["rejects"]) if name is not None]
    if len(folders) > 1 and (folders[0].startswith(folders[1]) or folders[1].startswith(folders[0])):
        raise click.UsageError("--out and --rejects must be different folders, and neither inside the other")


def _option_name(parameter: str) -> str:
    return "--what-if" if parameter == "changes" else f"--{parameter.replace('_', '-')}"


def check_distinct_files(request: AuditRequest, changes: str | None, report: str | None) -> None:
    """Raises `click.UsageError` if an output would overwrite an input or another output."""
    out, rejects = request.out, request.rejects_file
    if out == rejects == "-":
        raise click.UsageError("verdicts and rejects cannot both go to standard output; name a file for one of them")
    names = [
        name for name in (out, rejects, changes, request.layout.forms.aliases.file) if name is not None and name != "-"
    ]
    if out is not None and out != "-":
        names.append(f"{out}{PIN_SUFFIX}")
    if report is not None:
        names += [os.path.join(report, name) for name in (PAGE, SUMMARY_PAGE, DOCUMENT)]
    names += [file.name for file in request.files if file.name != "-"]
    if len({os.path.realpath(name) for name in names}) != len(names):
        raise click.UsageError(
            f"LOG and every output must be different files (unreadable lines go to {rejects}; --rejects names another)"
        )


class ByteCounter(Protocol):
    @property
    def bytes_read(self) -> int: ...


def rate_reporter(report: ReportProgress, counter: ByteCounter) -> Callable[[int], None]:
    """Reports how many rows are done, and how many per second.

    The rate leaves out the time before the first rows, in which the policy index may have been compiled.
    """
    first: list[tuple[int, float]] = []

    def report_rows(count: int) -> None:
        now = time.monotonic()
        if not first:
            first.append((count, now))
        first_count, began = first[0]
        rate = f", {(count - first_count) / (now - began):,.0f} a second" if now - began >= 1 else ""
        report(counter.bytes_read, f"{count:,} rows{rate}")

    return report_rows


def with_progress(logs: LogReader, report: ReportProgress) -> Iterator[LogBatch]:
    """The batches of the logs; reports the bytes read after each."""
    for batch in logs:
        yield batch
        report(logs.bytes_read, "")
