"""Options and argument types that several verbs share: the database, the output format, times.

Proved by tests/cli/test_options.py and tests/cli/test_bad_input.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, TypeVar, get_args

import click
from click.shell_completion import CompletionItem

from ledger.built_in_catalog import BUILT_IN
from ledger.errors import BadInput
from ledger.subjects import is_setting_key, parse_subject
from scripts.cli.instants import Instant
from scripts.cli.settings import setting

Command = TypeVar("Command", bound=Callable[..., Any])
Format = Literal["table", "json", "ndjson", "csv"]

POSITION_MAX: Final = 10**18 - 1


class Parsed(click.ParamType[Any]):
    """An argument as `parse` returns it. `parse` raises `BadInput` if the text is no such thing."""

    def __init__(self, name: str, parse: Callable[[str], object], names: Callable[[], Iterable[str]] = tuple) -> None:
        """`names`: what a shell proposes."""
        self.name = name
        self._parse = parse
        self._names = names

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._parse(value) if isinstance(value, str) else value
        except BadInput as error:
            self.fail(error.detail, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in self._names() if name.startswith(incomplete)]


def subject_ref(*kinds: str) -> Parsed:
    """A subject reference, `kind:id`, with one of the given kinds."""
    return Parsed("subject", lambda text: parse_subject(text, kinds), lambda: (f"{kind}:" for kind in kinds))


def _setting_key(text: str) -> str:
    if not is_setting_key(text):
        raise BadInput("a setting's key is 1-128 of A-Z a-z 0-9 . _ -")
    return text


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise BadInput("write it as name=value")
    return name, value


def _built_in_settings() -> Iterable[str]:
    return BUILT_IN


FILE: Final = click.Path(readable=False, allow_dash=True)
"""A name of a file, or -, which a shell completes. The verb that opens the file says what is wrong with it."""
SETTING_KEY: Final = Parsed("setting", _setting_key, _built_in_settings)


def assignments(option: str, parameter: str, metavar: str, help_: str) -> Callable[[Command], Command]:
    """A repeatable option `name=value`, as a dict. Raises `click.UsageError` if a name is repeated."""

    def as_dict(_ctx: click.Context, _param: click.Parameter, pairs: tuple[tuple[str, str], ...]) -> dict[str, str]:
        values = dict(pairs)
        if len(values) != len(pairs):
            raise click.UsageError(f"{option} names something twice; name each once")
        return values

    type_, help_ = Parsed("name=value", _assignment), f"{help_} Can be repeated."
    return click.option(option, parameter, type=type_, multiple=True, callback=as_dict, metavar=metavar, help=help_)


def texts(option: str, help_: str) -> Callable[[Command], Command]:
    """A repeatable option `TEXT,...`, as a tuple of texts."""

    def split(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(text for value in values for text in value.split(","))

    return click.option(option, multiple=True, callback=split, metavar="TEXT,...", help=help_)


database: Final = setting("database", "db")
must_exist: Final = setting("must_exist")
output_format: Final = click.option(
    "--format",
    "format_",
    type=click.Choice(get_args(Format)),
    default="table",
    show_default=True,
    help="table for people; json, ndjson (one JSON value per line) or csv for programs.",
)
at: Final = click.option("--at", type=Instant("now"), default="now", show_default=True, help="The moment to ask about.")
actor: Final = setting("actor")
clock_behind_max: Final = setting("clock_behind_max")
clock_ahead_warn: Final = setting("clock_ahead_warn")
after: Final = click.option(
    "--after",
    type=click.IntRange(0, POSITION_MAX),
    default=0,
    metavar="POSITION",
    help="Only events after this position. Fails if the ledger ends before it: then it went back, or is another one.",
)
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
