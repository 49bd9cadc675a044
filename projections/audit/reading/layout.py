"""A log's layout as a caller names it on a command line or in a query string: columns, constants, the forms of values.

The same log gives other requests with another layout, so every result keeps the layout. Imports no engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, tzinfo
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from ledger.errors import BadRecord
from ledger.near_names import did_you_mean
from ledger.subjects import is_text
from projections.audit.reading.aliases import NO_ALIASES, Aliases
from projections.audit.reading.fields import PLAIN_FLAGS, ColumnMapping
from projections.audit.reading.log_times import TimeUnit, check_format
from projections.audit.reading.shape import LogShape

_LOCAL_ZONES: Final = ("localtime", "posixrules")
"""Names in the time zone database that mean another zone on every machine."""


class Forms(NamedTuple):
    """How the values of a log are written, where they differ from a request record's.

    timezone: the name of the zone of times without an offset. time_unit: of times that are numbers. time_format: of all
    times. true, false, neither: texts of flags. aliases: names that the log has in place of ids. happened: a row
    without observed handling is a request that happened, and no question.
    """

    timezone: str | None = None
    time_unit: TimeUnit | None = None
    time_format: str | None = None
    true: tuple[str, ...] = ()
    false: tuple[str, ...] = ()
    neither: tuple[str, ...] = ()
    aliases: Aliases = NO_ALIASES
    happened: bool = False


class Layout(NamedTuple):
    mapping: ColumnMapping
    forms: Forms
    shape: LogShape

    def json(self) -> dict[str, Any]:
        forms = self.forms
        return {
            "map": dict(self.mapping.columns),
            "set": dict(self.mapping.constants),
            "timezone": forms.timezone,
            "time_unit": forms.time_unit,
            "time_format": forms.time_format,
            "true": list(forms.true),
            "false": list(forms.false),
            "neither": list(forms.neither),
            "aliases": forms.aliases.json(),
            "happened": forms.happened,
            **self.shape.json(),
        }

    def arguments(self) -> list[str]:
        """The layout as options of `inforce audit`."""
        options = [f"--map={field}={column}" for field, column in self.mapping.columns.items()]
        options += [f"--set={field}={value}" for field, value in self.mapping.constants.items()]
        forms = self.forms
        named = {
            "timezone": forms.timezone,
            "time-unit": forms.time_unit,
            "time-format": forms.time_format,
            "true": ",".join(forms.true) or None,
            "false": ",".join(forms.false) or None,
            "neither": ",".join(forms.neither) or None,
            "aliases": forms.aliases.file,
        }
        options += [f"--{name}={value}" for name, value in named.items() if value is not None]
        return [*options, *(["--happened"] if forms.happened else []), *self.shape.arguments()]


def make_layout(columns: Mapping[str, str], constants: Mapping[str, str], forms: Forms, shape: LogShape) -> Layout:
    """`columns`: field → column. `constants`: field → value. Raises `BadRecord` for an unknown field or zone, for an
    invalid constant, and for forms and shapes that no log has."""
    for name in (*columns.values(), *constants.values(), *forms.true, *forms.false, *forms.neither):
        if not is_text(name):
            raise BadRecord("the name of a column, or a constant, is not UTF-8, as all names and texts of a log are")
    if forms.time_format is not None:
        if forms.time_unit is not None:
            raise BadRecord("times are numbers in a unit or texts in a form; name one of the two")
        check_format(forms.time_format)
    mapping = ColumnMapping(
        columns,
        constants,
        None if forms.timezone is None else find_zone(forms.timezone),
        time_unit=forms.time_unit,
        time_format=forms.time_format,
        flags=flags_of(forms),
        aliases=forms.aliases.by_field(),
        happened=forms.happened,
    )
    try:
        mapping.checked_constants()
    except BadRecord as error:
        # The error names a place in a request record: add that the constants are to blame.
        raise BadRecord(f"the constants: {error.detail}" if error.faults else error.detail, error.faults) from None
    return Layout(mapping, forms, shape.check())


def flags_of(forms: Forms) -> dict[str, bool | None]:
    """Text in small letters → the flag that it means. Raises `BadRecord` for a text with two meanings."""
    flags: dict[str, bool | None] = {}
    options: tuple[tuple[bool | None, Sequence[str]], ...] = (
        (True, forms.true),
        (False, forms.false),
        (None, forms.neither),
    )
    for meaning, texts in options:
        for text in texts:
            name = text.lower()
            if not name:
                raise BadRecord("a text of flags is empty; an empty cell says nothing in every log")
            if flags.setdefault(name, meaning) != meaning or PLAIN_FLAGS.get(name, meaning) != meaning:
                raise BadRecord(f"{text} would mean two things; true, 1, false and 0 mean the same in every log")
    return flags


def find_zone(name: str) -> tzinfo:
    """Raises `BadRecord` if there is no such zone."""
    if name.upper() == "UTC":
        return UTC
    if name in _LOCAL_ZONES:
        raise BadRecord(f"{name} is another zone on every machine; name one like UTC or Europe/Berlin")
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        near = did_you_mean(name, available_timezones())
        raise BadRecord(f"there is no such time zone{near}; name one like UTC or Europe/Berlin") from None
