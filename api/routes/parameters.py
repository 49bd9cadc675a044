"""The parameters of the API, declared once: their meaning, how they are read, and their documentation. Those of
a log are in `log_parameters.py`.

Browsers and many clients send a `+` unescaped, which a query decodes to a space. A time, a subject and a zone hold no
spaces, so a space in one of them is read as `+`.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.requests import Request

from api.http.parameters import Parameter, ParameterError, TimeParameterError, whole_number
from api.http.problems import ParameterFault, RequestRefused
from ledger.drafts import KEY_LENGTH_MAX
from ledger.errors import BadSubject, BadTime
from ledger.subjects import ID_PATTERN, KINDS, RESERVED_KINDS, SETTING_PATTERN, is_setting_key, parse_subject
from ledger.times import format_time, parse_time
from projections.query.query import IN_FORCE, KnownAt

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 1000
PREFIX_LENGTH_MAX: Final = 300


def with_plus(text: str) -> str:
    return text.replace(" ", "+")


def _time(text: str) -> int:
    try:
        return parse_time(with_plus(text))
    except BadTime as error:
        raise TimeParameterError(error.detail) from None


def _known_at(text: str) -> KnownAt:
    if text == IN_FORCE:
        return IN_FORCE
    try:
        return _time(text)
    except ParameterError as error:
        raise TimeParameterError(f"{error}; or the word at, for the settings in force") from None


def _setting(text: str) -> str:
    if not is_setting_key(text):
        raise ParameterError("a setting's key is 1-128 of A-Z a-z 0-9 . _ -")
    return text


def _subject(text: str) -> str:
    try:
        return parse_subject(with_plus(text))
    except BadSubject as error:
        raise ParameterError(error.detail) from None


_ALL_KINDS: Final = (*KINDS, *RESERVED_KINDS)


def _kind(text: str) -> str:
    if text not in _ALL_KINDS:
        raise ParameterError(f"the kinds are {', '.join(_ALL_KINDS)}")
    return text


def _prefix(text: str) -> str:
    if not 1 <= len(text) <= PREFIX_LENGTH_MAX:
        raise ParameterError(f"the beginning of a subject reference has 1 to {PREFIX_LENGTH_MAX} characters")
    return with_plus(text)


def _audit_id(text: str) -> str:
    if re.fullmatch(r"[0-9a-f]{32}", text) is None:
        raise ParameterError("an audit's id is 32 of 0-9 a-f")
    return text


def _interval(text: str) -> tuple[str, str]:
    setting, _, end = text.partition("@")
    if "@" not in text or not is_setting_key(setting):
        raise ParameterError("the form is SETTING@TIME, as in the next_after of the previous page")
    return setting, format_time(_time(end)) if end else ""


_TIME_SCHEMA: Final = {"type": "string", "format": "date-time"}
_POSITION_MAX: Final = 10**18 - 1
POSITION_SCHEMA: Final = {"type": "integer", "minimum": 0, "maximum": _POSITION_MAX}
read_position: Final = whole_number(0, _POSITION_MAX)
_SUBJECT_SCHEMA: Final = {"type": "string", "pattern": rf"^({'|'.join(_ALL_KINDS)}):{ID_PATTERN}$"}

AT: Final = Parameter(
    "at", _time, _TIME_SCHEMA, "Valid time: the instant in question. Default: now.", "2026-03-01T12:00:00Z"
)
KNOWN_AT: Final = Parameter(
    "known_at",
    _known_at,
    {"anyOf": [_TIME_SCHEMA, {"type": "string", "const": "at"}]},
    "Use only what was recorded by this instant; `at` asks for the settings in force. Default: everything recorded so"
    " far.",
    "at",
)
CHECK_KNOWN_AT: Final = KNOWN_AT._replace(
    description="Use only what was recorded by this instant. Default: `at`, in force at each record's own time.",
    default=IN_FORCE,
)
FROM: Final = Parameter(
    "from", _time, _TIME_SCHEMA, "The first of the two instants.", "2026-01-01T00:00:00Z", required=True
)
TO: Final = Parameter(
    "to", _time, _TIME_SCHEMA, "The second of the two instants. Default: now.", "2026-06-01T00:00:00Z"
)
SETTING: Final = Parameter(
    "setting",
    _setting,
    {"type": "string", "pattern": f"^{SETTING_PATTERN}$"},
    "Only this setting. Default: all settings.",
    "training.opt_in",
)
SETTINGS: Final = SETTING._replace(
    description="Only this setting; may be given several times. Default: all settings.", repeatable=True, example=None
)
LIMIT: Final = Parameter(
    "limit",
    whole_number(1, LIMIT_MAX),
    {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
    "The largest number of items on the page. A page also ends with the item that reaches 2 MiB.",
    default=LIMIT_DEFAULT,
)
AFTER_POSITION: Final = Parameter(
    "after",
    read_position,
    POSITION_SCHEMA | {"default": 0},
    "Only events after this position: 0, or the next_after of the previous page.",
    default=0,
)
AT_LEAST: Final = Parameter(
    "at_least",
    read_position,
    POSITION_SCHEMA | {"default": 0},
    "Answer only once the ledger has reached this position, such as that of a receipt. Waits a few seconds for it, or"
    " fails with `position_not_reached`.",
    default=0,
)


def _wait(text: str) -> str:
    if text != CHECKPOINT:
        raise ParameterError(f"the only thing to wait for is {CHECKPOINT}")
    return text


CHECKPOINT: Final = "checkpoint"
WAIT: Final = Parameter(
    "wait",
    _wait,
    {"type": "string", "const": CHECKPOINT},
    "`checkpoint`: answer once the events are under a published checkpoint of the log, with the proof in each receipt."
    " Waits up to 10 s; then the events are recorded, and `proof` is null.",
    CHECKPOINT,
)
TILE_PATH: Final = Parameter(
    "path",
    str,
    {"type": "string"},
    "`<L>/<N>` or `entries/<N>`, a partial one with `.p/<W>` behind it; N in groups of three digits, all but the last"
    " one behind an x.",
    "0/x001/x234/067",
    part="path",
)
AFTER_VERSION: Final = Parameter(
    "after",
    whole_number(1, _POSITION_MAX),
    {"type": "integer", "minimum": 1, "maximum": _POSITION_MAX},
    "Only events before this version of the subject: the next_after of the previous page. Default: start with the"
    " newest.",
)
AFTER_SETTING: Final = SETTING._replace(
    name="after",
    description="Only settings after this one in byte order: the next_after of the previous page.",
    example=None,
)
AFTER_INTERVAL: Final = Parameter(
    "after",
    _interval,
    {"type": "string", "pattern": f"^{SETTING_PATTERN}@.*$"},
    "Only intervals after this one, SETTING@TIME: the next_after of the previous page.",
)
OF_SUBJECT: Final = Parameter("subject", _subject, _SUBJECT_SCHEMA, "Only events of this subject.")
KIND: Final = Parameter(
    "kind", _kind, {"type": "string", "enum": list(_ALL_KINDS)}, "Only subjects of this kind.", "org"
)
PREFIX: Final = Parameter(
    "prefix",
    _prefix,
    {"type": "string", "minLength": 1, "maxLength": PREFIX_LENGTH_MAX},
    "Only subjects whose whole reference begins with this text.",
    "org:ac",
)
AFTER_SUBJECT: Final = Parameter(
    "after",
    _subject,
    _SUBJECT_SCHEMA,
    "Only subjects after this one in byte order: the next_after of the previous page.",
)
SUBJECT: Final = Parameter(
    "subject",
    _subject,
    _SUBJECT_SCHEMA,
    "The subject reference, `kind:id`, percent-encoded or raw; slashes need no encoding.",
    "org:acme",
    part="path",
)
EVENT_ID: Final = Parameter(
    "event_id",
    str,
    {"type": "string"},
    "The event's id, as in its receipt.",
    "00000000-0013-8c4f-a1d2-5b6e7f809a1b",
    part="path",
)
AUDIT_ID: Final = Parameter(
    "audit_id", str, {"type": "string"}, "The audit's id.", "5b1f0c9a4f7e4f0e8a3c2d1b0a998877", part="path"
)
AFTER_AUDIT: Final = Parameter(
    "after",
    _audit_id,
    {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    "Only audits behind this one in the list: the next_after of the previous page.",
)
AFTER_LINE: Final = Parameter(
    "after",
    read_position,
    POSITION_SCHEMA | {"default": 0},
    "Skip this many items: 0, or the next_after of the previous page.",
    default=0,
)

LAST_EVENT_ID: Final = Parameter(
    "Last-Event-ID",
    read_position,
    POSITION_SCHEMA,
    "The id of the last event received, as browsers send it when they reconnect. It takes precedence over `after`.",
    part="header",
)
IDEMPOTENCY_KEY: Final = Parameter(
    "Idempotency-Key",
    str,
    {"type": "string", "pattern": r'^"(\\["\\]|[ !#-\[\]-~])*"$'},
    "A quoted structured-field string (RFC 8941). The same key with the same body returns the first receipts again.",
    '"8e03978e-40d5-43dd-bc93-6894a57f9324"',
    part="header",
)
_QUOTED_KEY: Final = re.compile(r'[ \t]*"((?:\\["\\]|[ !#-\[\]-~])*)"[ \t]*')
_ESCAPED: Final = re.compile(r'\\(["\\])')


def read_subject(request: Request) -> str:
    """The subject of the path. Raises `RequestRefused`."""
    try:
        return parse_subject(request.path_params["subject"])
    except BadSubject as error:
        raise RequestRefused("bad_subject", error.detail, [ParameterFault("path", "subject", error.detail)]) from None


def read_idempotency_key(request: Request) -> str | None:
    """The header's text without its quotes; None if the header is absent. Raises `RequestRefused`."""
    texts = [value.decode("latin-1") for name, value in request.scope["headers"] if name == b"idempotency-key"]
    if not texts:
        return None
    match = _QUOTED_KEY.fullmatch(texts[0]) if len(texts) == 1 else None
    key = _ESCAPED.sub(r"\1", match[1]) if match else ""
    if not 1 <= len(key) <= KEY_LENGTH_MAX:
        detail = f'Idempotency-Key must be one quoted text of 1 to {KEY_LENGTH_MAX} characters, such as "8e03978e-40d5"'
        raise RequestRefused("bad_idempotency_key", detail, [ParameterFault("header", "Idempotency-Key", detail)])
    return key


def read_last_event_id(request: Request) -> int | None:
    """The position in the header; None if the header is absent or empty. Raises `RequestRefused`."""
    name = LAST_EVENT_ID.name
    texts = [text for text in request.headers.getlist(name) if text]
    if not texts:
        return None
    try:
        if len(texts) > 1:
            raise ParameterError("the header is given twice")
        position: int = LAST_EVENT_ID.read(texts[0])
    except ParameterError as error:
        detail = str(error)
        raise RequestRefused("bad_parameter", f"{name}: {detail}", [ParameterFault("header", name, detail)]) from None
    return position
