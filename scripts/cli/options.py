"""Options and argument types that several verbs share: the database, the output format, instants.

Proved by tests/cli/test_options.py and tests/cli/test_bad_input.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar

import click

from ledger.errors import BadSubject, BadTime
from ledger.subjects import is_setting_key, parse_subject
from ledger.times import parse_time

Command = TypeVar("Command", bound=Callable[..., Any])
Format = Literal["table", "json", "ndjson", "csv"]

POSITION_MAX: Final = 10**18 - 1
DEFAULT_DATABASE: Final = "sqlite:///inforce.db"
FORMATS: Final = ("table", "json", "ndjson", "csv")


class Instant(click.ParamType[int | str]):
    """An RFC 3339 time, as µs since 1970. The `keywords` pass unchanged."""

    name = "time"

    def __init__(self, *keywords: str) -> None:
        self.keywords = keywords

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if isinstance(value, int):
            return value
        if value in self.keywords:
            return str(value)
        try:
            return parse_time(value)
        except BadTime as error:
            self.fail(error.detail, param, ctx)


class SubjectRef(click.ParamType[str]):
    """A subject reference, `kind:id`, with one of the given kinds."""

    name = "subject"

    def __init__(self, *kinds: str) -> None:
        self.kinds = kinds

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return parse_subject(value, self.kinds)
        except BadSubject as error:
            self.fail(error.detail, param, ctx)


class SettingKey(click.ParamType[str]):
    name = "setting"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not is_setting_key(value):
            self.fail("a setting's key is 1-128 of A-Z a-z 0-9 . _ -", param, ctx)
        return str(value)


class _Assignment(click.ParamType[tuple[str, str]]):
    """`name=value`, as a pair."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        name, equals, text = value.partition("=")
        if not equals or not name:
            self.fail("write it as name=value", param, ctx)
        return name, text


def assignments(option: str, parameter: str, metavar: str, help_: str) -> Callable[[Command], Command]:
    """A repeatable option `name=value`, as a dict. Raises `click.UsageError` if a name is repeated."""

    def as_dict(_ctx: click.Context, _param: click.Parameter, pairs: tuple[tuple[str, str], ...]) -> dict[str, str]:
        values = dict(pairs)
        if len(values) != len(pairs):
            raise click.UsageError(f"{option} names something twice; name each once")
        return values

    help_ = f"{help_} Can be repeated."
    return click.option(
        option, parameter, type=_Assignment(), multiple=True, callback=as_dict, metavar=metavar, help=help_
    )


database: Final = click.option(
    "--db",
    envvar="INFORCE_DATABASE",
    default=DEFAULT_DATABASE,
    metavar="URL",
    show_default=True,
    show_envvar=True,
    help="The ledger: sqlite:///path, sqlite:////absolute/path or postgresql://user@host/name.",
)
output_format: Final = click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="table for people; json, ndjson (one JSON value per line) or csv for programs.",
)
at: Final = click.option("--at", type=Instant("now"), default="now", show_default=True, help="The moment to ask about.")
at_least: Final = click.option(
    "--at-least",
    type=click.IntRange(0, POSITION_MAX),
    default=0,
    metavar="POSITION",
    help="Answer only after the ledger has reached this position. Waits up to 5 seconds, then fails.",
)


def known_at(default: str) -> Callable[[Command], Command]:
    """The option as a `KnownAt` of `projections.temporal.coordinates`: `now` becomes None."""
    return click.option(
        "--known-at",
        type=Instant("at", "now"),
        default=default,
        show_default=True,
        callback=lambda _ctx, _param, value: None if value == "now" else value,
        help="Use only what was recorded by this time. The word at stands for the moment asked about: the policy in "
        "force. The word now uses everything that is recorded: hindsight.",
    )
