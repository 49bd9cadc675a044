"""Options that are keys of the configuration: their value is that of the command line, else of `configuration.load`.

Type, bounds, default and help are those of the key, so that each is said once. Proved by
tests/cli/test_configuration.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

import click
from annotated_types import Ge, Gt, Le
from click.core import ParameterSource
from pydantic import AfterValidator, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from ledger.errors import BadInput
from scripts.cli.configuration import FILE_VARIABLE, PREFIX, Configuration, key_of, load, sentence_in, split_texts

Command = TypeVar("Command", bound=Callable[..., Any])

_LOADED: Final = "inforce.configuration"
_FILE: Final = "inforce.config"
_FAULT: Final = "inforce.configuration_fault"


def configuration() -> Configuration:
    """The configuration of the verb that runs, without the values of its command line. Read once for each file. Raises
    what `load` raises."""
    meta = click.get_current_context().meta
    path, loaded = meta.get(_LOADED, (None, None))
    if loaded is None or path != meta.get(_FILE):
        loaded = load(meta.get(_FILE))
        meta[_LOADED] = meta.get(_FILE), loaded
    configuration: Configuration = loaded
    return configuration


def configuration_fault() -> BadInput | None:
    """Why the configuration of a verb with lenient options was refused, and its defaults are used; None: it was not."""
    fault: BadInput | None = click.get_current_context().meta.get(_FAULT)
    return fault


def config_file() -> str | None:
    """The TOML file in use."""
    return click.get_current_context().meta.get(_FILE) or os.environ.get(FILE_VARIABLE) or None


def setting(name: str, parameter: str | None = None, *, lenient: bool = False) -> Callable[[Command], Command]:
    """The option of the key `name`. `parameter`: the name of the verb's parameter, if it is another. `lenient`: a wrong
    configuration does not stop the verb; see `configuration_fault`."""
    field, key = key_of(name)
    type_ = _click_type(field)
    flag = type_ is bool
    return click.option(
        f"{key.option}/--no-{key.option.removeprefix('--')}" if flag else key.option,
        parameter or name,
        cls=_SettingOption,
        key=name,
        lenient=lenient,
        type=None if flag else type_,
        default=field.default,
        show_default=not flag and field.default not in (None, "", ()),
        metavar=key.metavar,
        envvar=PREFIX + name.upper(),
        show_envvar=True,
        help=_help(field),
    )


def settings(*names: str, lenient: bool = False) -> Callable[[Command], Command]:
    """The options of several keys, in this order. The verb takes them as `**values`, for `chosen`."""

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            command = setting(name, lenient=lenient)(command)
        return command

    return decorate


def chosen(values: Mapping[str, Any]) -> Configuration:
    """The configuration with the `values` of options, which stand on the command line or come from it anyhow."""
    fault = configuration_fault()
    base = configuration() if fault is None else Configuration.model_construct()
    return base.model_copy(update=dict(values))


def _help(field: FieldInfo) -> str:
    text = (field.description or "").replace("`", "")
    return f"{text[0].upper()}{text[1:]}."


def _click_type(field: FieldInfo) -> Any:
    if any(isinstance(one, AfterValidator) for one in field.metadata):
        return _Validated(field)
    types = [type_ for type_ in get_args(field.annotation) if type_ is not NoneType] or [field.annotation]
    type_ = types[0]
    if get_origin(field.annotation) is Literal:
        return click.Choice(get_args(field.annotation))
    if get_origin(field.annotation) is tuple:
        return _Texts()
    if type_ is Path:
        return click.Path(path_type=Path)
    if type_ not in (int, float):
        return type_
    low = next((one for one in field.metadata if isinstance(one, Ge | Gt)), None)
    high = next((one.le for one in field.metadata if isinstance(one, Le)), None)
    bounds: dict[str, Any] = {
        "min": None if low is None else low.ge if isinstance(low, Ge) else low.gt,
        "min_open": isinstance(low, Gt),
        "max": high,
    }
    return click.IntRange(**bounds) if type_ is int else _Number(**bounds)


class _Number(click.FloatRange):
    """A range that also refuses what no bound stops: nan, and an infinity on the open side."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        return number if isfinite(number) else self.fail(f"{number} is not a number of this range", param, ctx)


class _Validated(click.ParamType[Any]):
    """A text that the key's own validators read."""

    name = "text"

    def __init__(self, field: FieldInfo) -> None:
        # The type is known at run time only.
        annotated: Any = Annotated[field.annotation, *field.metadata]
        self._adapter = TypeAdapter[Any](annotated)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            return self.fail(sentence_in(error.errors()[0]), param, ctx)


class _Texts(click.ParamType[Any]):
    """Texts with commas between them."""

    name = "text,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return split_texts(value)


class _SettingOption(click.Option):
    def __init__(self, *args: Any, key: str, lenient: bool, **more: Any) -> None:
        super().__init__(*args, **more)
        self._key = key
        self._lenient = lenient

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, ParameterSource]:
        if self.name in opts or ctx.resilient_parsing:
            return super().consume_value(ctx, opts)
        try:
            return getattr(configuration(), self._key), ParameterSource.DEFAULT_MAP
        except BadInput as error:
            if not self._lenient:
                raise
            ctx.meta[_FAULT] = error
            return Configuration.model_fields[self._key].default, ParameterSource.DEFAULT


def config_option() -> click.Option:
    """--config, for every verb that has an option of a key."""

    def remember(context: click.Context, _parameter: click.Parameter, path: str | None) -> None:
        if path is not None:
            context.meta[_FILE] = path

    return click.Option(
        ["--config"],
        metavar="FILE",
        type=click.Path(readable=False),
        is_eager=True,
        expose_value=False,
        callback=remember,
        envvar="INFORCE_CONFIG",
        show_envvar=True,
        help="A TOML file with the keys of scripts/OPERATING.md. Options and variables go before it.",
    )


def has_settings(command: click.Command) -> bool:
    return any(isinstance(parameter, _SettingOption) for parameter in command.params)
