"""What several verbs ask for in the same words: the database, the format, instants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar

import click

from ledger.errors import BadSubject, BadTime
from ledger.subjects import parse_subject
from ledger.times import parse_time

Command = TypeVar("Command", bound=Callable[..., Any])
Format = Literal["table", "json", "ndjson", "csv"]

POSITION_MAX: Final = 10**18 - 1
DEFAULT_DATABASE: Final = "sqlite:///inforce.db"
FORMATS: Final = ("table", "json", "ndjson", "csv")
EXAMPLES: Final[Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
"""Settings of every verb; help texts keep the layout of their examples with `\\b`."""


class Instant(click.ParamType[int | str]):
    """An RFC 3339 time, as µs since 1970; `words` are taken as they are."""

    name = "time"

    def __init__(self, *words: str) -> None:
        self.words = words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if isinstance(value, int):
            return value
        if value in self.words:
            return str(value)
        try:
            return parse_time(value)
        except BadTime as error:
            self.fail(error.detail, param, ctx)


class SubjectRef(click.ParamType[str]):
    """A subject reference with a kind among `kinds`."""

    name = "subject"

    def __init__(self, *kinds: str) -> None:
        self.kinds = kinds

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return parse_subject(value, self.kinds)
        except BadSubject as error:
            self.fail(error.detail, param, ctx)


class Assignments(click.ParamType[tuple[str, str]]):
    """`name=value`, as a pair."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        name, equals, text = value.partition("=")
        if not equals or not name:
            self.fail("write it as name=value", param, ctx)
        return name, text


def database(command: Command) -> Command:
    return click.option(
        "--db",
        envvar="INFORCE_DATABASE",
        default=DEFAULT_DATABASE,
        metavar="URL",
        show_default=True,
        show_envvar=True,
        help="The ledger: sqlite:///path, sqlite:////absolute/path or postgresql://user@host/name.",
    )(command)


def output_format(command: Command) -> Command:
    return click.option(
        "--format",
        "format_",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="table for people; json, ndjson (a JSON value a line) and csv for programs.",
    )(command)


def at(command: Command) -> Command:
    return click.option("--at", type=Instant("now"), default="now", show_default=True, help="The moment asked about.")(
        command
    )


def known_at(default: str, meaning: str) -> Callable[[Command], Command]:
    """`at`, `now` or a time: see `known`."""
    return click.option(
        "--known-at",
        type=Instant("at", "now"),
        default=default,
        show_default=True,
        help=f"{meaning} A time: with what was recorded by then. at: in force, what anyone could have known at that "
        "moment. now: in hindsight, with everything recorded since.",
    )


def at_least(command: Command) -> Command:
    return click.option(
        "--at-least",
        type=click.IntRange(0, POSITION_MAX),
        default=0,
        metavar="POSITION",
        help="Only answer once the ledger has reached this position: waits a few seconds for it, or fails.",
    )(command)


def known(known_at: int | str) -> Any:
    """The `KnownAt` of projections.query.query that an option of `known_at` stands for."""
    return None if known_at == "now" else known_at


def unique(pairs: tuple[tuple[str, str], ...], option: str) -> dict[str, str]:
    """Pairs as a dict. Raises `click.UsageError` where a name comes twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise click.UsageError(f"{option} names something twice")
    return found
