"""Times as people write them on the command line: RFC 3339, or with --timezone a local date or a local time.

A date stands for the first instant of that day in the zone. A local time that the zone's clocks showed twice, or not at
all, is refused. Proved by tests/cli/test_instants.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any, Final, TypeVar

import click

from ledger.errors import BadInput, BadTime
from ledger.times import SECOND, parse_time

Command = TypeVar("Command", bound=Callable[..., Any])

_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_LOCAL: Final = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d)(:\d\d(?:\.\d{1,9})?)?", re.ASCII)
_ZONE: Final = "inforce.timezone"
_HINT: Final = "add --timezone, as in --timezone Europe/Berlin, or write it as in 2026-01-31T09:30:00Z"


def read_instant(text: str, zone: tzinfo | None) -> int:
    """The text as µs since 1970. Raises `BadTime`."""
    if _DATE.fullmatch(text):
        if zone is None:
            raise BadTime(f"a date begins at another moment in every time zone; {_HINT}")
        return _first_instant(text, zone)
    local = _LOCAL.fullmatch(text)
    if local is None:
        # Tables show a space between date and time, and a time is copied from there.
        return parse_time(f"{text[:10]}T{text[11:]}" if text[10:11] == " " else text)
    if zone is None:
        raise BadTime(f"a time without an offset is another moment in every time zone; {_HINT}")
    # Most commands name no such time, and need not wait for the reader of logs.
    from projections.audit.reading.log_times import UnreadableValue, time_text

    day, minute, seconds = local.groups()
    try:
        return parse_time(time_text(f"{day}T{minute}{seconds or ':00'}", zone))
    except UnreadableValue:
        raise BadTime(
            "no single moment had this local time in the zone: its clocks showed it twice, or not at all; write it "
            "with its offset, as in 2026-01-31T09:30:00+01:00"
        ) from None


def _first_instant(text: str, zone: tzinfo) -> int:
    try:
        day = date.fromisoformat(text)
        midnight = datetime.combine(day, time(), zone)
        begins = _seconds(midnight)
        if _local_date(begins, zone) != day or _local(begins, zone) != midnight.replace(tzinfo=None):
            begins = _end_of_gap(day, zone)
    except (ValueError, OverflowError):
        raise BadTime("there is no such day; write it as in 2026-01-31") from None
    if _local_date(begins, zone) != day:
        raise BadTime("this day did not happen in the time zone; name another day")
    return begins * SECOND


def _end_of_gap(day: date, zone: tzinfo) -> int:
    """The first second at which the zone's clocks, which skipped midnight, showed this day or a later one."""
    low = _seconds(datetime.combine(day - timedelta(days=1), time(12), zone))
    high = _seconds(datetime.combine(day + timedelta(days=1), time(12), zone))
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _local_date(middle, zone) >= day else (middle + 1, high)
    return low


def _seconds(local: datetime) -> int:
    return int((local.astimezone(UTC) - _EPOCH) / timedelta(seconds=1))


def _local(seconds: int, zone: tzinfo) -> datetime:
    return (_EPOCH + timedelta(seconds=seconds)).astimezone(zone).replace(tzinfo=None)


def _local_date(seconds: int, zone: tzinfo) -> date:
    return _local(seconds, zone).date()


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Instant(click.ParamType[Any]):
    """A time as µs since 1970. The `keywords` pass unchanged."""

    name = "time"

    def __init__(self, *keywords: str) -> None:
        self._keywords = keywords

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str) or value in self._keywords:
            return value
        try:
            return read_instant(value, None if ctx is None else ctx.meta.get(_ZONE))
        except BadInput as error:
            self.fail(error.detail, param, ctx)


def remember_zone(ctx: click.Context, _param: click.Parameter, name: str | None) -> str | None:
    """The callback of an eager option --timezone: the times of this command's options are read in the zone.

    Raises `BadInput` if there is no such zone.
    """
    if name is not None:
        from projections.audit.reading.layout import find_zone

        ctx.meta[_ZONE] = find_zone(name)
    return name


timezone: Final = click.option(
    "--timezone",
    metavar="ZONE",
    is_eager=True,
    expose_value=False,
    callback=remember_zone,
    help="The zone of times without an offset, like UTC or Europe/Berlin. A date is the first moment of that day.",
)
