"""How a log is laid out, as it was asked for by name: on a command line, in a query string.

Without its layout the same log is not the same requests, so it is kept with every verdict. Imports no engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, tzinfo
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from ledger.errors import BadRecord
from ledger.subjects import is_text
from projections.audit.reading.fields import ColumnMapping
from projections.audit.reading.strict import LogFormat

_OF_THIS_MACHINE: Final = ("localtime", "posixrules")
"""Files among those of zones, which would make other requests of the same log elsewhere."""


class Layout(NamedTuple):
    """`timezone`: by its name; `log_format` None: told by the log's first bytes."""

    mapping: ColumnMapping
    timezone: str | None
    log_format: LogFormat | None

    def json(self) -> dict[str, Any]:
        return {
            "map": dict(self.mapping.columns),
            "set": dict(self.mapping.constants),
            "timezone": self.timezone,
            "log_format": self.log_format,
        }

    def arguments(self) -> list[str]:
        """That as options of `inforce audit`."""
        options = [f"--map={field}={column}" for field, column in self.mapping.columns.items()]
        options += [f"--set={field}={value}" for field, value in self.mapping.constants.items()]
        if self.log_format is not None:
            options.append(f"--log-format={self.log_format}")
        if self.timezone is not None:
            options.append(f"--timezone={self.timezone}")
        return options


def make_layout(
    columns: Mapping[str, str], constants: Mapping[str, str], timezone: str | None, log_format: LogFormat | None
) -> Layout:
    """Field → its column, field → its constant. Raises `BadRecord` for a field, constant or zone that is not to be
    had."""
    mapping = ColumnMapping(columns, constants, None if timezone is None else find_zone(timezone))
    for said in (*columns.values(), *constants.values()):
        if not is_text(said):
            raise BadRecord("the name of a column, or a constant, is not UTF-8, as all names and texts of a log are")
    try:
        mapping.checked_constants()
    except BadRecord as error:
        # What is wrong with the constants as a record says where in one, and not that it is them.
        raise BadRecord(f"the constants: {error.detail}" if error.faults else error.detail, error.faults) from None
    return Layout(mapping, timezone, log_format)


def find_zone(name: str) -> tzinfo:
    """Raises `BadRecord`."""
    if name.upper() == "UTC":
        return UTC
    if name in _OF_THIS_MACHINE:
        raise BadRecord(f"{name} is another zone on every machine; name one like UTC or Europe/Berlin")
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise BadRecord("there is no such time zone; name one like UTC or Europe/Berlin") from None
