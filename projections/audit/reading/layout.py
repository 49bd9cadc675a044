"""A log's layout as a caller names it on a command line or in a query string: columns, constants, time zone, format.

The same log gives other requests with another layout, so every result keeps the layout. Imports no engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, tzinfo
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from ledger.errors import BadRecord
from ledger.subjects import is_text
from projections.audit.reading.fields import ColumnMapping
from projections.audit.reading.shape import LogShape

_LOCAL_ZONES: Final = ("localtime", "posixrules")
"""Names in the time zone database that mean another zone on every machine."""


class Layout(NamedTuple):
    """`timezone`: its name."""

    mapping: ColumnMapping
    timezone: str | None
    shape: LogShape

    def json(self) -> dict[str, Any]:
        return {
            "map": dict(self.mapping.columns),
            "set": dict(self.mapping.constants),
            "timezone": self.timezone,
            **self.shape.json(),
        }

    def arguments(self) -> list[str]:
        """The layout as options of `inforce audit`."""
        options = [f"--map={field}={column}" for field, column in self.mapping.columns.items()]
        options += [f"--set={field}={value}" for field, value in self.mapping.constants.items()]
        if self.timezone is not None:
            options.append(f"--timezone={self.timezone}")
        return [*options, *self.shape.arguments()]


def make_layout(
    columns: Mapping[str, str], constants: Mapping[str, str], timezone: str | None, shape: LogShape
) -> Layout:
    """`columns`: field → column. `constants`: field → value. Raises `BadRecord` for an unknown field or zone, for an
    invalid constant, and for a shape that no log can have."""
    mapping = ColumnMapping(columns, constants, None if timezone is None else find_zone(timezone))
    for name in (*columns.values(), *constants.values()):
        if not is_text(name):
            raise BadRecord("the name of a column, or a constant, is not UTF-8, as all names and texts of a log are")
    try:
        mapping.checked_constants()
    except BadRecord as error:
        # The error names a place in a request record: add that the constants are to blame.
        raise BadRecord(f"the constants: {error.detail}" if error.faults else error.detail, error.faults) from None
    return Layout(mapping, timezone, shape.check())


def find_zone(name: str) -> tzinfo:
    """Raises `BadRecord` if there is no such zone."""
    if name.upper() == "UTC":
        return UTC
    if name in _LOCAL_ZONES:
        raise BadRecord(f"{name} is another zone on every machine; name one like UTC or Europe/Berlin")
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise BadRecord("there is no such time zone; name one like UTC or Europe/Berlin") from None
