"""What an audit is asked: which log, how it is read, and what must not be written over."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Any

import click

from projections.audit.fields import Shape
from projections.pins import KnownAt
from scripts.options import unique

if TYPE_CHECKING:
    from projections.audit.reading.files import LogFile
    from projections.audit.reading.logs import Logs


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The log, how it is read, and what the verdicts rest on. `arguments`: that as on a command line."""

    files: Sequence[LogFile]
    shape: Shape
    timezone: str | None
    log_format: Any
    known_at: KnownAt
    arguments: tuple[str, ...]

    def logs(self) -> Logs:
        from projections.audit.reading.logs import Logs

        return Logs(self.files, self.log_format)

    def reading_json(self) -> dict[str, Any]:
        """How the log was read: without it the same log is not the same requests."""
        return {
            "map": dict(self.shape.columns),
            "set": dict(self.shape.constants),
            "timezone": self.timezone,
            "log_format": self.log_format,
        }


def asked(
    logs: tuple[str, ...], timezone: str | None, log_format: Any, columns: Any, constants: Any, known_at: KnownAt
) -> Asked:
    """Raises `BadInput` and `click.UsageError` for what cannot be read like that."""
    from projections.audit.reading.files import log_files

    shape = Shape(unique(columns, "--map"), unique(constants, "--set"), _zone(timezone))
    shape.checked_constants()
    if logs.count("-") > 1:
        raise click.UsageError("standard input can be read once")
    found = log_files(logs, shape)
    for file in found:
        file.shape.checked_constants()
    arguments = [*logs]
    arguments += [f"--map={field}={column}" for field, column in shape.columns.items()]
    arguments += [f"--set={field}={value}" for field, value in shape.constants.items()]
    if log_format is not None:
        arguments.append(f"--log-format={log_format}")
    if timezone is not None:
        arguments.append(f"--timezone={timezone}")
    return Asked(
        files=found,
        shape=shape,
        timezone=timezone,
        log_format=log_format,
        known_at=known_at,
        arguments=tuple(arguments),
    )


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
