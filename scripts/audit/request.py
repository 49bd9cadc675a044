"""What to audit: which log, how to read it, at which `known_at`, and which files must not be overwritten."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import click

from ledger.subjects import is_text
from projections.audit.reading.layout import Layout, make_layout
from projections.temporal.coordinates import KnownAt
from scripts.cli.files import ReportProgress

if TYPE_CHECKING:
    from projections.audit.reading.batches import LogBatch
    from projections.audit.reading.files import LogFile
    from projections.audit.reading.logs import LogReader


@dataclass(frozen=True, kw_only=True)
class AuditRequest:
    """`arguments`: the log and its layout, as on a command line."""

    files: Sequence[LogFile]
    layout: Layout
    known_at: KnownAt
    arguments: tuple[str, ...]

    def logs(self) -> LogReader:
        from projections.audit.reading.logs import LogReader

        return LogReader(self.files, self.layout.log_format)


def layout_of_options(options: dict[str, Any]) -> Layout:
    return make_layout(options["columns"], options["constants"], options["timezone"], options["log_format"])


def audit_request(logs: tuple[str, ...], known_at: KnownAt, options: dict[str, Any]) -> AuditRequest:
    """Raises `BadInput` and `click.UsageError` for a log or a layout that cannot be read."""
    from projections.audit.reading.files import STDIN, log_files

    log_layout = layout_of_options(options)
    if logs.count(STDIN) > 1:
        raise click.UsageError("standard input can be read once; name - once")
    files = log_files(logs, log_layout.mapping)
    # In the command that a report shows, a name that begins with a dash would be an option.
    names = (f"./{name}" if name.startswith("-") and name != STDIN else name for name in logs)
    return AuditRequest(files=files, layout=log_layout, known_at=known_at, arguments=(*names, *log_layout.arguments()))


def check_names(options: dict[str, Any]) -> None:
    """Raises `click.UsageError` for a name or an id that is not UTF-8: names stand in the output of an audit."""
    for option in ("out", "rejects", "report", "changes", "explain"):
        if not is_text(options[option] or ""):
            raise click.UsageError(f"{option_name(option)}: this is not UTF-8, as names and ids are here; name another")


def option_name(parameter: str) -> str:
    return "--what-if" if parameter == "changes" else f"--{parameter.replace('_', '-')}"


def check_distinct_files(request: AuditRequest, rejects: str, options: dict[str, Any]) -> None:
    """Raises `click.UsageError` if an output would overwrite an input or another output.

    `rejects`: the file for unreadable lines, whether the user or we named it.
    """
    from scripts.audit.outputs import PIN_SUFFIX
    from scripts.audit.report import DOCUMENT, PAGE

    out, folder = options["out"], options["report"]
    if out == rejects == "-":
        raise click.UsageError("verdicts and rejects cannot both go to standard output; name a file for one of them")
    names = [name for name in (out, rejects, options["changes"]) if name is not None and name != "-"]
    if out is not None and out != "-":
        names.append(f"{out}{PIN_SUFFIX}")
    if folder is not None:
        names += [os.path.join(folder, PAGE), os.path.join(folder, DOCUMENT)]
    names += [file.name for file in request.files if file.name != "-"]
    paths = [os.path.realpath(name) for name in names]
    if len(set(paths)) != len(paths):
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
