"""What an audit is asked: which log, how it is read, and what must not be written over."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import click

from ledger.subjects import is_text
from projections.audit.reading.layout import Layout, make_layout
from projections.temporal.coordinates import KnownAt
from scripts.cli.options import unique

if TYPE_CHECKING:
    from projections.audit.reading.files import LogFile
    from projections.audit.reading.logs import LogReader


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The log, how it is read, and what the verdicts rest on. `arguments`: that as on a command line."""

    files: Sequence[LogFile]
    layout: Layout
    known_at: KnownAt
    arguments: tuple[str, ...]

    def logs(self) -> LogReader:
        from projections.audit.reading.logs import LogReader

        return LogReader(self.files, self.layout.log_format)


def asked(
    logs: tuple[str, ...], timezone: str | None, log_format: Any, columns: Any, constants: Any, known_at: KnownAt
) -> Asked:
    """Raises `BadInput` and `click.UsageError` for what cannot be read like that."""
    from projections.audit.reading.files import STDIN, log_files

    how = make_layout(unique(columns, "--map"), unique(constants, "--set"), timezone, log_format)
    if logs.count("-") > 1:
        raise click.UsageError("standard input can be read once")
    found = log_files(logs, how.mapping)
    # A name that begins with a dash would be an option where a report shows the command.
    as_words = (f"./{name}" if name.startswith("-") and name != STDIN else name for name in logs)
    return Asked(files=found, layout=how, known_at=known_at, arguments=(*as_words, *how.arguments()))


def must_be_text(options: dict[str, Any]) -> None:
    """Names are written into what an audit says of itself, and ids are looked for: both are UTF-8."""
    for option in ("out", "rejects", "report", "changes", "explain"):
        if not is_text(options[option] or ""):
            name = "--what-if" if option == "changes" else f"--{option}"
            raise click.UsageError(f"{name}: this is not UTF-8, as names and ids are here; name another")


def must_differ(asked: Asked, out: str | None, rejects: str, changes: str | None, folder: str | None) -> None:
    """What is written must not take the place of what is read, or of what else is written. `rejects`: whether it was
    asked for by name or is the one that is used without."""
    from scripts.audit.outputs import PIN_SUFFIX
    from scripts.audit.report import DOCUMENT, PAGE

    if out == rejects == "-":
        raise click.UsageError("verdicts and rejects cannot both go to standard output; name a file for one of them")
    names = [name for name in (out, rejects, changes) if name is not None and name != "-"]
    if out is not None and out != "-":
        names.append(f"{out}{PIN_SUFFIX}")
    if folder is not None:
        names += [os.path.join(folder, PAGE), os.path.join(folder, DOCUMENT)]
    names += [file.name for file in asked.files if file.name != "-"]
    paths = [os.path.realpath(name) for name in names]
    if len(set(paths)) != len(paths):
        raise click.UsageError(
            f"LOG and all that is written must be different files (lines that cannot be read go to {rejects}: "
            "--rejects names another)"
        )


class _Counted(Protocol):
    @property
    def bytes_read(self) -> int: ...


def paced(tell: Callable[[int, str], None], logs: _Counted) -> Callable[[int], None]:
    """Is told how many rows are done, and tells that and how many a second. Time before the first ones does not count:
    the index may have been made in it."""
    first: list[tuple[int, float]] = []

    def told(count: int) -> None:
        now = time.monotonic()
        if not first:
            first.append((count, now))
        since, began = first[0]
        rate = f", {(count - since) / (now - began):,.0f} a second" if now - began >= 1 else ""
        tell(logs.bytes_read, f"{count:,} rows{rate}")

    return told
