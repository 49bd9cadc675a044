"""The configuration: one typed class, filled from the command line, the environment and one TOML file, in this order.

A key `port` is the option `--port`, the variable `INFORCE_PORT` and the line `port = 8000` of the file that `--config`
or `INFORCE_CONFIG` names. An unknown key and a wrong value are refused at the start, in one line each, whatever verb
runs: a misspelt key would otherwise leave a server with a default. The table in scripts/OPERATING.md is `table()`.
Proved by tests/cli/test_configuration.py.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import TomlConfigSettingsSource as TomlFile

from api.oidc.issuer import OidcIssuer, check_issuers
from api.rate_limits.limit import LIMIT_RULE, parse_limit
from ledger.errors import BadInput, BadJson, Fault
from ledger.near_names import did_you_mean
from ledger.strict_json import loads

PREFIX: Final = "INFORCE_"
FILE_VARIABLE: Final = "INFORCE_CONFIG"
OTHER_VARIABLES: Final = {
    "INFORCE_CONFIG": "the TOML file with these keys, as `--config FILE`",
    "INFORCE_SIGNING_KEY": "the signing keys themselves, as a file of `inforce keygen` holds them, instead of a file",
    "INFORCE_PYTHON": "the Python that `scripts/inforce` and `scripts/test` make `.venv` with; without it `python3`",
    "INFORCE_TEST_POSTGRES": "a PostgreSQL server for the tests: a URL, where the tests make and drop databases",
    "INFORCE_TLOG_PYTHON": "a Python with the package aics-tlog, for the tests; without it the Python that runs them",
    "INFORCE_REAL_DATA": "the folder of the real data sets for the tests; without it `../shared/data`",
}
"""Variables with our prefix that are no keys → their meaning."""


class Key(NamedTuple):
    """The facts of a key beside its type, its default and its meaning, which is the field's description."""

    option: str
    allowed: str
    """The values that the key takes, in words, for errors and the table."""
    metavar: str | None = None
    secret: bool = False
    """Errors leave the value out."""


def split_texts(value: object) -> object:
    """A list as one text, with commas, where there are no lists: in the environment and on the command line."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _read_json(value: object) -> object:
    """Tables as JSON, where there are no tables: in the environment and on the command line."""
    if not isinstance(value, str):
        return value
    try:
        return loads(value.encode("utf-8", "surrogatepass"), what="the value")
    except BadJson as error:
        raise ValueError(error.detail) from None


def _told_apart(issuers: tuple[OidcIssuer, ...]) -> tuple[OidcIssuer, ...]:
    try:
        check_issuers(issuers)
    except BadInput as error:
        raise ValueError(error.detail) from None
    return issuers


def _limit(text: str) -> str:
    parse_limit(text)
    return text


Texts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_texts)]
Issuers = Annotated[tuple[OidcIssuer, ...], NoDecode, BeforeValidator(_read_json), AfterValidator(_told_apart)]
LimitText = Annotated[str, AfterValidator(_limit)]


class Configuration(BaseSettings):
    """Every key. A field's name is the key; its annotation holds the type and the bounds."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )
    toml: ClassVar[Path | None] = None

    database: Annotated[
        str,
        Key("--db", "a URL: sqlite:///path, sqlite:////absolute/path or postgresql://user@host/name", "URL", True),
    ] = Field("sqlite:///inforce.db", description="the ledger; `?mode=ro` after a path only reads")
    actor: Annotated[str, Key("--actor", "a text of 1 to 256 characters")] = Field(
        "cli", min_length=1, description="who makes the changes that the command line submits"
    )
    must_exist: Annotated[bool, Key("--must-exist", "true or false")] = Field(
        False, description="fail if there is no ledger yet, instead of creating one"
    )
    clock_behind_max: Annotated[float, Key("--clock-behind-max", "a number from 1 to 1000000000", "SECONDS")] = Field(
        60.0, ge=1, le=1e9, description="record nothing while this machine's clock is further behind the last event"
    )
    clock_ahead_warn: Annotated[float, Key("--clock-ahead-warn", "a number from 0 on", "DAYS")] = Field(
        90.0, ge=0, allow_inf_nan=False, description="warn if this machine's clock is further ahead of the last event"
    )
    host: Annotated[str, Key("--host", "localhost or an IP address of this machine")] = Field(
        "127.0.0.1", description="the address that `serve` listens on; one that is not loopback needs TLS and sign-in"
    )
    port: Annotated[int, Key("--port", "a number from 0 to 65535")] = Field(
        8000, ge=0, le=65_535, description="the port that `serve` listens on; 0: any free port"
    )
    auth: Annotated[bool, Key("--auth", "true or false")] = Field(
        True,
        description="require a token of every request; without it `serve` lets everybody on this machine do everything",
    )
    tls_cert: Annotated[Path | None, Key("--tls-cert", "a file in PEM", "FILE")] = Field(
        None, description="the certificate of `serve`, with its chain; TLS 1.3"
    )
    tls_key: Annotated[Path | None, Key("--tls-key", "a file in PEM, without a password", "FILE")] = Field(
        None, description="the private key of the certificate"
    )
    public_url: Annotated[str | None, Key("--public-url", "a URL without a path", "URL")] = Field(
        None, description="the address of `serve` as callers write it; its host name is served"
    )
    allowed_hosts: Annotated[Texts, Key("--allowed-hosts", "names or addresses without a port", "NAME,...")] = Field(
        (), description="further host names that `serve` answers to"
    )
    trusted_proxies: Annotated[Texts, Key("--trusted-proxies", "addresses or networks", "ADDRESS,...")] = Field(
        (), description="the proxies before `serve` that say for whom they ask; others are not believed"
    )
    forwarded_header: Annotated[
        Literal["x-forwarded-for", "forwarded"], Key("--forwarded-header", "x-forwarded-for or forwarded")
    ] = Field("x-forwarded-for", description="the header in which these proxies write it")
    audits_folder: Annotated[Path | None, Key("--audits-folder", "a folder's path")] = Field(
        None,
        description="where `serve` keeps logs sent to `POST /v1/audits`, and their results; without it `FILE.audits` "
        "beside a SQLite ledger, `~/.local/state/inforce` for PostgreSQL",
    )
    audits_keep: Annotated[float, Key("--audits-keep", "a number of hours above 0, at most 876000", "HOURS")] = Field(
        168.0, gt=0, le=876_000, description="how long `serve` keeps the results of an audit"
    )
    audits_max_bytes: Annotated[int, Key("--audits-max-bytes", "a number of bytes from 1 on", "N")] = Field(
        4 * 1024**3, ge=1, description="the largest log that `serve` accepts"
    )
    audits_max: Annotated[int, Key("--audits-max", "a number from 1 to 1000", "N")] = Field(
        100,
        ge=1,
        le=1000,
        description="how many audits `serve` keeps; at this number it refuses a log until one is deleted or expires",
    )

    signing_key_file: Annotated[Path | None, Key("--signing-key-file", "a file of `inforce keygen`", "FILE")] = Field(
        None,
        description="the keys that sign the checkpoints of the transparency log; without it, and without "
        "`INFORCE_SIGNING_KEY`, there is no log",
    )

    log_format: Annotated[Literal["text", "json"], Key("--log-format", "text or json")] = Field(
        "text", description="the form of the lines that `serve` logs on standard error"
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Key("--log-level", "debug, info, warning or error")
    ] = Field("warning", description="the lowest level of the lines that `serve` logs")
    access_log: Annotated[bool, Key("--access-log", "true or false")] = Field(
        False, description="log a line for each request: method, route, request id, status and time, no subject"
    )

    tracing: Annotated[bool, Key("--tracing", "true or false")] = Field(
        False,
        description="send a span for each request of `serve` to OpenTelemetry, by OTLP over HTTP: needs the "
        "extra `tracing`, and `OTEL_EXPORTER_OTLP_ENDPOINT`",
    )
    projector_lag_max: Annotated[int, Key("--projector-lag-max", "a number of events from 0 on", "N")] = Field(
        100_000, ge=0, description="`/readyz` fails while the stored timelines are more events behind the ledger"
    )
    disk_free_min: Annotated[int, Key("--disk-free-min", "a number of bytes from 0 on", "N")] = Field(
        256 * 1024**2,
        ge=0,
        description="`/readyz` fails while a disk that the server writes to has fewer bytes free (of a small disk a "
        "tenth suffices); 0: never",
    )

    oidc: Annotated[
        Issuers, Key("--oidc", "tables with the members of a provider; outside of the file as JSON", "JSON", True)
    ] = Field((), description="the OpenID Connect providers whose tokens sign in: see below")
    rate_limit: Annotated[LimitText, Key("--rate-limit", LIMIT_RULE, "LIMIT")] = Field(
        "60000/minute", description="the requests that `serve` answers each principal; more get 429 `rate_limited`"
    )
    sign_in_failures_max: Annotated[LimitText, Key("--sign-in-failures-max", LIMIT_RULE, "LIMIT")] = Field(
        "60/minute", description="the failed sign-ins of an address, after which unknown tokens from there get 429"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment, then the file: the first one that has a key decides."""
        return (env_settings, TomlFile(settings_cls, cls.toml)) if cls.toml else (env_settings,)


def key_of(name: str) -> tuple[FieldInfo, Key]:
    field = Configuration.model_fields[name]
    return field, next(one for one in field.metadata if isinstance(one, Key))


def load(path: str | None = None) -> Configuration:
    """The keys of the environment and of the TOML file at `path`, else of the one that INFORCE_CONFIG names. Raises
    `BadInput`, with a sentence for each key that is unknown or has a value that is not allowed, and `OSError`."""
    file = path or os.environ.get(FILE_VARIABLE) or None
    faults = list(_unknown_variables())
    if file is not None:
        _require_toml(file)
    # The base class reads the file that its class names.
    class_ = type("Configuration", (Configuration,), {"toml": Path(file)}) if file is not None else Configuration
    try:
        configuration: Configuration = class_()
    except ValidationError as error:
        faults += [_sentence(one, file) for one in error.errors()]
    else:
        if not faults:
            return configuration
    raise BadInput(f"{faults[0]}" + (f" (and {len(faults) - 1} more)" if faults[1:] else ""), _as_faults(faults))


def _as_faults(sentences: Iterable[str]) -> tuple[Fault, ...]:
    return tuple(Fault("", sentence) for sentence in sentences)


def _unknown_variables() -> Iterable[str]:
    known = {PREFIX + name.upper() for name in Configuration.model_fields} | OTHER_VARIABLES.keys()
    for name in sorted(os.environ):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            yield f"{name}: there is no such variable{did_you_mean(name, known)}; remove it, or correct its name"


def _require_toml(path: str) -> None:
    with open(path, "rb") as file:
        try:
            tomllib.load(file)
        except ValueError as error:
            raise BadInput(f"{path} is not TOML in UTF-8: {error}") from None


def _sentence(error: ErrorDetails, file: str | None) -> str:
    """Key, value, and what is allowed."""
    name = str(error["loc"][0])
    if name not in Configuration.model_fields:
        return f"{file}: there is no key {name}{did_you_mean(name, Configuration.model_fields)}"
    _, key = key_of(name)
    variable = next((one for one in os.environ if one.upper() == PREFIX + name.upper() and os.environ[one]), None)
    place = variable if variable is not None else f"{file}: {name}"
    if len(error["loc"]) > 1 or error["type"] == "value_error":
        inside = sentence_in(error, 1)
        return f"{place}{inside}" if inside.startswith(("[", ".")) else f"{place}: {inside}"
    value = "its value" if key.secret else _shown(os.environ[variable] if variable is not None else error["input"])
    return f"{place}: {value} is not allowed; it takes {key.allowed}"


def sentence_in(error: ErrorDetails, skip: int = 0) -> str:
    """The place inside of a key's value, such as `[0].issuer`, and pydantic's message. Leaves out the value, because it
    could hold a secret. `skip`: the parts of the place that name the key."""
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"][skip:])
    known = {"missing": "is missing", "extra_forbidden": "there is no such member"}
    message = known.get(error["type"], error["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def table() -> list[str]:
    """The rows of the table in scripts/OPERATING.md, in Markdown."""
    rows = ["| key | option | variable | means | takes | default |", "| --- | --- | --- | --- | --- | --- |"]
    for name in Configuration.model_fields:
        field, key = key_of(name)
        allowed = key.allowed.replace("|", "\\|")
        rows.append(
            f"| `{name}` | `{key.option}` | `{PREFIX}{name.upper()}` | {field.description} | {allowed} "
            f"| {_default(field)} |"
        )
    return rows


def provider_table() -> list[str]:
    """The rows of the table of a provider's members."""
    rows = ["| member of `oidc` | means | default |", "| --- | --- | --- |"]
    for name, field in OidcIssuer.model_fields.items():
        rows.append(f"| `{name}` | {field.description} | {'required' if field.is_required() else _default(field)} |")
    return rows


def _default(field: FieldInfo) -> str:
    value: Any = field.get_default(call_default_factory=True, validated_data={})
    match value:
        case None | "" | ():
            return "none"
        case dict() if not value:
            return "none"
        case tuple():
            return ", ".join(f"`{one}`" for one in value)
        case bool():
            return f"`{str(value).lower()}`"
        case float():
            return f"`{value:g}`"
    return f"`{value}`"


if __name__ == "__main__":
    print("\n".join([*table(), "", *provider_table()]))
