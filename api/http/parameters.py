"""Query, path and header parameters: what each means, how it is read, and how OpenAPI shows it, said once.

Unknown parameters are refused, as unknown members of a body are (WIRE.md section 1), and so is one that is given
twice. Browsers and many clients send the `+` of an offset unescaped, which a query reads as a space; no time has a
space, so `2026-01-01T00:00:00 02:00` is taken for what was meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from starlette.requests import Request

from api.http.problems import ParameterFault, RequestPart, RequestRefused
from ledger.errors import BadRecord, BadSubject, BadTime
from ledger.subjects import ID_PATTERN, KINDS, SETTING_PATTERN, is_setting_key, parse_subject
from ledger.times import parse_time
from projections.audit.reading.fields import FIELDS
from projections.audit.reading.layout import find_zone
from projections.audit.reading.strict import LOG_FORMATS
from projections.query.query import IN_FORCE, KnownAt

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 1000
PARAMETERS_MAX: Final = 100


class ParameterError(ValueError):
    """The value cannot be read. The message says what would do, and never what was sent."""


class TimeParameterError(ParameterError):
    """Not a time with an offset."""


class Parameter(NamedTuple):
    """`read` turns the text into the value or raises `ParameterError`; `default` stands in where it is not given."""

    name: str
    read: Callable[[str], Any]
    schema: dict[str, Any]
    description: str
    example: Any = None
    default: Any = None
    required: bool = False
    repeatable: bool = False
    part: RequestPart = "query"

    def openapi(self) -> dict[str, Any]:
        schema = {"type": "array", "items": self.schema} if self.repeatable else self.schema
        shown: dict[str, Any] = {"name": self.name, "in": self.part, "description": self.description, "schema": schema}
        shown["required"] = self.required or self.part == "path"
        if self.example is not None:
            shown["example"] = self.example
        return shown


def read_query(request: Request, *parameters: Parameter) -> dict[str, Any]:
    """Name → value of every one of `parameters`. Raises `RequestRefused`, naming every fault."""
    if not request.scope["query_string"] and not any(parameter.required for parameter in parameters):
        return {parameter.name: parameter.default for parameter in parameters}
    values: dict[str, Any] = {}
    faults: list[ParameterFault] = []
    code = "bad_time"
    known = {parameter.name: parameter for parameter in parameters}
    for name, text in _pairs(request.scope["query_string"]):
        try:
            _take(known, values, name, text)
        except ParameterError as error:
            # An unknown name is the caller's own text, so it is not repeated.
            faults.append(ParameterFault("query", name if name in known else "", str(error)))
            code = code if isinstance(error, TimeParameterError) else "bad_parameter"
    wrong = {fault.name for fault in faults}
    missing = [parameter for parameter in parameters if parameter.name not in values]
    for parameter in missing:
        if parameter.required and parameter.name not in wrong:
            faults.append(ParameterFault("query", parameter.name, "the parameter is required"))
            code = "bad_parameter"
    if faults:
        first = faults[0]
        raise RequestRefused(code, f"{first.name}: {first.detail}" if first.name else first.detail, faults)
    return values | {parameter.name: parameter.default for parameter in missing}


def _pairs(query_string: bytes) -> list[tuple[str, str]]:
    if not query_string:
        return []
    try:
        text = query_string.decode("ascii")
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX)
    except ValueError:
        detail = f"the query must be percent-encoded UTF-8 with at most {PARAMETERS_MAX} parameters"
        raise RequestRefused("bad_parameter", detail) from None


def _take(known: dict[str, Parameter], values: dict[str, Any], name: str, text: str) -> None:
    parameter = known.get(name)
    if parameter is None:
        raise ParameterError(f"a parameter is unknown; this call takes {', '.join(known) or 'none'}")
    if parameter.repeatable:
        values.setdefault(name, []).append(parameter.read(text))
    elif name in values:
        raise ParameterError("the parameter is given twice")
    else:
        values[name] = parameter.read(text)


def read_subject(request: Request) -> str:
    """The subject of the path. Raises `RequestRefused`."""
    try:
        return parse_subject(request.path_params["subject"])
    except BadSubject as error:
        raise RequestRefused("bad_subject", error.detail, [ParameterFault("path", "subject", error.detail)]) from None


_SPACE_FOR_PLUS: Final = re.compile(r" (?=\d\d:\d\d$)")


def _time(text: str) -> int:
    try:
        return parse_time(_SPACE_FOR_PLUS.sub("+", text))
    except BadTime as error:
        raise TimeParameterError(error.detail) from None


def _known_at(text: str) -> KnownAt:
    if text == IN_FORCE:
        return IN_FORCE
    try:
        return _time(text)
    except ParameterError as error:
        raise TimeParameterError(f"{error}; or the word at, for what was in force") from None


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,18}", text) is None or not low <= int(text) <= high:
            raise ParameterError(f"a whole number from {low} to {high} is required")
        return int(text)

    return read


def _setting(text: str) -> str:
    if not is_setting_key(text):
        raise ParameterError("a setting's key is 1-128 of A-Z a-z 0-9 . _ -")
    return text


def _subject(text: str) -> str:
    try:
        return parse_subject(text)
    except BadSubject as error:
        raise ParameterError(error.detail) from None


def _assignment(text: str) -> tuple[str, str]:
    field, equals, value = text.partition("=")
    if not equals:
        raise ParameterError("this is written FIELD=VALUE, and has no =")
    if field not in FIELDS:
        raise ParameterError(f"a request record has no such field; it has {', '.join(FIELDS)}")
    return field, value


def _log_format(text: str) -> str:
    if text not in LOG_FORMATS:
        raise ParameterError(f"a log of text is {' or '.join(LOG_FORMATS)}")
    return text


def _timezone(text: str) -> str:
    try:
        find_zone(text)
    except BadRecord as error:
        raise ParameterError(error.detail) from None
    return text


_ALL_KINDS: Final = (*KINDS, "catalog")


def _kind(text: str) -> str:
    if text not in _ALL_KINDS:
        raise ParameterError(f"the kinds are {', '.join(_ALL_KINDS)}")
    return text


def _beginning(text: str) -> str:
    if not 1 <= len(text) <= 300:
        raise ParameterError("the beginning of a subject reference has 1 to 300 characters")
    return text


_A_TIME: Final = {"type": "string", "format": "date-time"}
_POSITION: Final = {"type": "integer", "minimum": 0}
_POSITION_MAX: Final = 10**18 - 1
_REFERENCE: Final = {"type": "string", "pattern": rf"^({'|'.join(_ALL_KINDS)}):{ID_PATTERN}$"}

AT: Final = Parameter(
    "at", _time, _A_TIME, "Valid time: the instant that is asked about. Default: now.", "2026-03-01T12:00:00Z"
)
KNOWN_AT: Final = Parameter(
    "known_at",
    _known_at,
    {"anyOf": [_A_TIME, {"type": "string", "const": "at"}]},
    "Use only what was recorded by this instant; `at` means what was in force. Default: everything recorded so far.",
    "at",
)
CHECK_KNOWN_AT: Final = KNOWN_AT._replace(
    description="Use only what was recorded by this instant. Default: `at`, in force at each record's own time.",
    default=IN_FORCE,
)
FROM: Final = Parameter("from", _time, _A_TIME, "The first of the two instants.", "2026-01-01T00:00:00Z", required=True)
TO: Final = Parameter("to", _time, _A_TIME, "The second of the two instants. Default: now.", "2026-06-01T00:00:00Z")
SETTING: Final = Parameter(
    "setting",
    _setting,
    {"type": "string", "pattern": f"^{SETTING_PATTERN}$"},
    "Only this setting. Default: all.",
    "training.opt_in",
)
SETTINGS: Final = SETTING._replace(
    description="Only this setting; may be given several times. Default: all.", repeatable=True, example=None
)
LIMIT: Final = Parameter(
    "limit",
    _whole(1, LIMIT_MAX),
    {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
    "At most so many.",
    default=LIMIT_DEFAULT,
)
AFTER_POSITION: Final = Parameter(
    "after",
    _whole(0, _POSITION_MAX),
    _POSITION | {"default": 0},
    "Only events behind this position: 0, or the next_after of the page before.",
    default=0,
)
AT_LEAST: Final = Parameter(
    "at_least",
    _whole(0, _POSITION_MAX),
    _POSITION | {"default": 0},
    "Only answer once the ledger has reached this position, such as a receipt's: waits a few seconds for it, or fails"
    " with `position_not_reached`.",
    default=0,
)
AFTER_VERSION: Final = Parameter(
    "after",
    _whole(1, _POSITION_MAX),
    {"type": "integer", "minimum": 1},
    "Only events older than this version of the subject: the next_after of the page before. Default: the newest.",
)
OF_SUBJECT: Final = Parameter("subject", _subject, _REFERENCE, "Only events of this subject.")
KIND: Final = Parameter(
    "kind", _kind, {"type": "string", "enum": list(_ALL_KINDS)}, "Only subjects of this kind.", "org"
)
PREFIX: Final = Parameter(
    "prefix", _beginning, {"type": "string"}, "Only subjects whose whole reference begins so.", "org:ac"
)
AFTER_SUBJECT: Final = Parameter(
    "after", _subject, _REFERENCE, "Only subjects behind this one in byte order: the next_after of the page before."
)
SUBJECT: Final = Parameter(
    "subject",
    _subject,
    _REFERENCE,
    "The subject reference, `kind:id`, percent-encoded or raw; slashes may stand as they are.",
    "org:acme",
    part="path",
)
EVENT_ID: Final = Parameter(
    "event_id",
    str,
    {"type": "string"},
    "The event's id, as its receipt names it.",
    "00000000-0013-8c4f-a1d2-5b6e7f809a1b",
    part="path",
)
LOG_MAP: Final = Parameter(
    "map",
    _assignment,
    {"type": "string", "pattern": "^[a-z_.]+=.*$"},
    "FIELD=COLUMN: read a field of the request records from this column (in JSON, a path with dots too). Columns of"
    " other names are then ignored; FIELD= reads it from none. May be given several times.",
    repeatable=True,
)
LOG_SET: Final = LOG_MAP._replace(
    name="set",
    description="FIELD=VALUE: what holds on every line that does not say. May be given several times.",
)
TIMEZONE: Final = Parameter(
    "timezone",
    _timezone,
    {"type": "string"},
    "Of times without an offset: UTC, Europe/Berlin. Left out: lines with such times are rejected.",
    "Europe/Berlin",
)
LOG_FORMAT: Final = Parameter(
    "log_format",
    _log_format,
    {"type": "string", "enum": list(LOG_FORMATS)},
    "Of a log of text. Left out: { begins JSON Lines, else CSV.",
)
MAX_REJECTS: Final = Parameter(
    "max_rejects",
    _whole(0, _POSITION_MAX),
    _POSITION,
    "Give up when more lines than this cannot be read. Default: they are counted.",
)
AUDIT_ID: Final = Parameter(
    "audit_id", str, {"type": "string"}, "The audit's id.", "5b1f0c9a4f7e4f0e8a3c2d1b0a998877", part="path"
)
AFTER_LINE: Final = Parameter(
    "after",
    _whole(0, _POSITION_MAX),
    _POSITION | {"default": 0},
    "Only what comes behind so many of them: 0, or the next_after of the page before.",
    default=0,
)

LAST_EVENT_ID: Final = Parameter(
    "Last-Event-ID",
    _whole(0, _POSITION_MAX),
    _POSITION,
    "The id of the last event that was received, as browsers send it when they connect again. It wins over `after`.",
    part="header",
)
IDEMPOTENCY_KEY: Final = Parameter(
    "Idempotency-Key",
    str,
    {"type": "string", "pattern": r'^"(\\["\\]|[ !#-\[\]-~])*"$'},
    "A quoted structured-field string (RFC 8941). The same key with the same body answers the first receipts again.",
    '"8e03978e-40d5-43dd-bc93-6894a57f9324"',
    part="header",
)
_KEY: Final = re.compile(r'[ \t]*"((?:\\["\\]|[ !#-\[\]-~])*)"[ \t]*')
_ESCAPED: Final = re.compile(r'\\(["\\])')


def read_idempotency_key(request: Request) -> str | None:
    """The header's text without its quotes, or None where it is not sent. Raises `RequestRefused`."""
    sent = [value.decode("latin-1") for name, value in request.scope["headers"] if name == b"idempotency-key"]
    if not sent:
        return None
    match = _KEY.fullmatch(sent[0]) if len(sent) == 1 else None
    key = _ESCAPED.sub(r"\1", match[1]) if match else ""
    if not 1 <= len(key) <= 255:
        detail = 'Idempotency-Key must be one quoted text of 1 to 255 characters, such as "8e03978e-40d5"'
        raise RequestRefused("bad_idempotency_key", detail, [ParameterFault("header", "Idempotency-Key", detail)])
    return key


def read_last_event_id(request: Request) -> int | None:
    """The position of the header, or None where there is none. Raises `RequestRefused`."""
    sent = [text for text in request.headers.getlist(LAST_EVENT_ID.name) if text]
    if not sent:
        return None
    try:
        if len(sent) > 1:
            raise ParameterError("the header is given twice")
        position: int = LAST_EVENT_ID.read(sent[0])
    except ParameterError as error:
        detail = str(error)
        raise RequestRefused(
            "bad_parameter", f"{LAST_EVENT_ID.name}: {detail}", [ParameterFault("header", LAST_EVENT_ID.name, detail)]
        ) from None
    return position
