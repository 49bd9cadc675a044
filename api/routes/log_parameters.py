"""The parameters of POST /v1/audits: how a log is read. `parameters.py` has those that several endpoints share.

Proved by tests/api/routes/test_audits.py.
"""

from __future__ import annotations

import re
from typing import Final

from api.http.parameters import Parameter, ParameterError
from api.routes.parameters import POSITION_SCHEMA, read_position, with_plus
from ledger.errors import BadRecord
from projections.audit.reading.fields import FIELDS
from projections.audit.reading.layout import find_zone
from projections.audit.reading.log_times import TIME_UNITS, check_format
from projections.audit.reading.shape import LOG_FORMATS


def _assignment(text: str) -> tuple[str, str]:
    field, equals, value = text.partition("=")
    if not equals:
        raise ParameterError("the form is FIELD=VALUE, and the = is missing")
    if field not in FIELDS:
        raise ParameterError(f"a request record has no such field; its fields are {', '.join(FIELDS)}")
    return field, value


def _log_format(text: str) -> str:
    if text not in LOG_FORMATS:
        raise ParameterError(f"the format of a text log is {' or '.join(LOG_FORMATS)}")
    return text


def _timezone(text: str) -> str:
    zone = with_plus(text)
    try:
        find_zone(zone)
    except BadRecord as error:
        raise ParameterError(error.detail) from None
    return zone


def _time_unit(text: str) -> str:
    if text not in TIME_UNITS:
        raise ParameterError(f"the unit of times is one of {', '.join(TIME_UNITS)}")
    return text


def _time_format(text: str) -> str:
    try:
        check_format(text)
    except BadRecord as error:
        raise ParameterError(error.detail) from None
    return text


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ParameterError("true or false is required")
    return text == "true"


def _texts(text: str) -> list[str]:
    return text.split(",")


LOG_MAP: Final = Parameter(
    "map",
    _assignment,
    {"type": "string", "pattern": rf"^({'|'.join(re.escape(field) for field in FIELDS)})="},
    "FIELD=COLUMN: read this field of the request records from this column (in JSON also a path with dots). Columns"
    " that are no fields are ignored, and the audit's warnings name them. FIELD= reads the field from no column. May be"
    " given several times.",
    repeatable=True,
)
LOG_SET: Final = LOG_MAP._replace(
    name="set",
    description="FIELD=VALUE: the value on every line that has none of its own. May be given several times.",
)
TIMEZONE: Final = Parameter(
    "timezone",
    _timezone,
    {"type": "string"},
    "The zone of times without an offset, such as UTC or Europe/Berlin. Default: lines with such times are rejected.",
    "Europe/Berlin",
)
TIME_UNIT: Final = Parameter(
    "time_unit",
    _time_unit,
    {"type": "string", "enum": list(TIME_UNITS)},
    "The unit of times that are numbers since 1970. Default: lines with such times are rejected.",
)
TIME_FORMAT: Final = Parameter(
    "time_format",
    _time_format,
    {"type": "string"},
    "The form of all times, in the directives of strptime. Times without an offset need `timezone`.",
    "%d.%m.%Y %H:%M",
)
TRUE_TEXTS: Final = Parameter(
    "true",
    _texts,
    {"type": "string"},
    "Texts of flags that mean true, separated by commas, besides true and 1. Also in JSON and Parquet.",
    "Y,yes",
    repeatable=True,
)
FALSE_TEXTS: Final = TRUE_TEXTS._replace(
    name="false",
    description="Texts of flags that mean false, separated by commas, besides false and 0.",
    example="N,no",
)
NEITHER_TEXTS: Final = TRUE_TEXTS._replace(
    name="neither", description="Texts of flags that say nothing, separated by commas.", example="None,-"
)
ALIAS: Final = Parameter(
    "alias",
    str,
    {"type": "string"},
    "KIND,NAME,ID: the id of a key, account, org, project or model for a name that the log has in its place, as a row"
    " of CSV. May be given several times.",
    "org,Acme Inc,acme",
    repeatable=True,
)
HAPPENED: Final = Parameter(
    "happened",
    _flag,
    {"type": "boolean", "default": False},
    "true: rows that say nothing of how the data was handled are requests that happened, so one that ought to have been"
    " denied is a violation. Default: they are questions.",
    default=False,
)
LOG_FORMAT: Final = Parameter(
    "log_format",
    _log_format,
    {"type": "string", "enum": list(LOG_FORMATS)},
    "The format of a text log: JSON Lines, CSV, or JSON with a list of rows or rows of many lines. Default: the first"
    " bytes tell.",
)
DELIMITER: Final = Parameter(
    "delimiter",
    str,
    {"type": "string", "minLength": 1, "maxLength": 1},
    "The sign between two cells of CSV. Default: the header shows which of , ; | and tab it is.",
    ";",
)
LIST_OF_ROWS: Final = Parameter(
    "rows", str, {"type": "string"}, "The list of rows in a document of JSON, as a path with dots.", "records"
)
SHEET: Final = Parameter(
    "sheet", str, {"type": "string"}, "The sheet of a spreadsheet. Default: the first one.", "Requests"
)
MAX_REJECTS: Final = Parameter(
    "max_rejects",
    read_position,
    POSITION_SCHEMA,
    "Fail the audit if more lines than this cannot be read. Default: only count such lines.",
)
