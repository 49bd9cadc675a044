"""What an audit is asked: which log, how it is read, and what must not be written over."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from projections.audit.layouts import Layout, layout
from projections.pins import KnownAt
from scripts.options import unique

if TYPE_CHECKING:
    from projections.audit.reading.files import LogFile
    from projections.audit.reading.logs import Logs


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The log, how it is read, and what the verdicts rest on. `arguments`: that as on a command line."""

    files: Sequence[LogFile]
    layout: Layout
    known_at: KnownAt
    arguments: tuple[str, ...]

    def logs(self) -> Logs:
        from projections.audit.reading.logs import Logs

        return Logs(self.files, self.layout.log_format)


def asked(
    logs: tuple[str, ...], timezone: str | None, log_format: Any, columns: Any, constants: Any, known_at: KnownAt
) -> Asked:
    """Raises `BadInput` and `click.UsageError` for what cannot be read like that."""
    from projections.audit.reading.files import log_files

    how = layout(unique(columns, "--map"), unique(constants, "--set"), timezone, log_format)
    if logs.count("-") > 1:
        raise click.UsageError("standard input can be read once")
    found = log_files(logs, how.shape)
    for file in found:
        file.shape.checked_constants()
    return Asked(files=found, layout=how, known_at=known_at, arguments=(*logs, *how.arguments()))


def must_differ(asked: Asked, out: str | None, rejects: str | None, changes: str | None, folder: str | None) -> None:
    """What is written must not take the place of what is read, or of what else is written."""
    from scripts.audit_files import PIN_SUFFIX
    from scripts.audit_report import DOCUMENT, PAGE

    names = [name for name in (out, rejects, changes) if name is not None and name != "-"]
    if out is not None and out != "-":
        names.append(f"{out}{PIN_SUFFIX}")
    if folder is not None:
        names += [os.path.join(folder, PAGE), os.path.join(folder, DOCUMENT)]
    names += [file.name for file in asked.files if file.name != "-"]
    paths = [os.path.realpath(name) for name in names]
    if len(set(paths)) != len(paths):
        raise click.UsageError("LOG and all that is written must be different files")
