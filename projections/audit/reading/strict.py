"""The strict reader: one line of JSON Lines or CSV to one request record, or to the reason why it has none.

Every line that is not blank gives one row, and an unreadable line costs no other line. Fast readers leave to this one
all lines that they do not understand, so a log has one meaning only. Proved by tests/test_audit_records.py and
tests/test_real_logs.py.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple, get_args

from ledger import strict_json
from ledger.errors import BadInput, BadJson, BadRecord
from projections.audit.reading.columns import ColumnSurvey, shown, unknown_handling
from projections.audit.reading.fields import (
    FIELDS,
    MEMBERS,
    ColumnMapping,
    UnreadableValue,
    cell_value,
    json_value,
    raw_record,
    time_text,
)
from projections.decisions.model import RequestRecord, read_record

LogFormat = Literal["jsonl", "csv"]
LOG_FORMATS: Final[tuple[LogFormat, ...]] = get_args(LogFormat)

LINE_BYTES_MAX: Final = 1024 * 1024
"""A log is untrusted: longer lines are rejected, however much a packed file unpacks to."""
QUOTED_LINES_MAX: Final = 1000
"""The most lines of one CSV row: a quote that is left open costs one line, not the rest of the file."""


class RawLine(NamedTuple):
    """`number` counts from 1 and includes blank lines, as editors do. `text` None: longer than `LINE_BYTES_MAX`."""

    number: int
    text: bytes | None


class LogRow(NamedTuple):
    """A row of the log `source`: either `record` or `fault` is set. `line` counts from 1."""

    source: str
    line: int
    record: RequestRecord | None
    fault: str | None


def is_blank(line: RawLine) -> bool:
    return line.text is not None and not line.text.strip()


def is_json(first: RawLine) -> bool:
    """Whether a log is JSON Lines, by its first line that is not blank."""
    return (first.text or b"").lstrip()[:1] == b"{"


def too_many_rejects(rejects_max: int, first: LogRow) -> BadRecord:
    return BadRecord(
        f"more than {rejects_max} lines cannot be read, the first: {first.source} line {first.line}: {first.fault}; "
        "nothing was written"
    )


class CsvColumns(NamedTuple):
    """The columns of a CSV file: their number, and (field, column's place) of those that are read."""

    width: int
    places: list[tuple[str, int]]


class RowParser:
    """Parses the rows of one log. `BadRecord`: the mapping is invalid."""

    def __init__(self, source: str, mapping: ColumnMapping) -> None:
        self.source = source
        self.mapping = mapping
        self.constants = mapping.checked_constants()
        self.mapped_columns = {
            field: column for field, column in mapping.columns.items() if column and field not in mapping.path_values
        }
        """Mapped fields, of which a log must have the column."""
        self.survey = ColumnSurvey(mapping, self.constants)
        self.present_fields: set[str] = set()
        """Those of `mapped_columns` that a line has had."""
        self._needs_no_mapping = not mapping.columns and not self.constants

    @property
    def absent_fields(self) -> list[str]:
        return [field for field in self.mapped_columns if field not in self.present_fields]

    def parse_json(self, line: RawLine) -> LogRow:
        try:
            if line.text is None:
                raise UnreadableValue(f"the line has more than {LINE_BYTES_MAX} bytes")
            value = strict_json.loads(line.text, LINE_BYTES_MAX, "the line")
            return self._row(line.number, self._raw(value))
        except (BadInput, UnreadableValue) as error:
            return self._reject(line.number, error)

    def parse_csv(self, line: RawLine, columns: CsvColumns, lines: LineQueue) -> LogRow:
        """Parses the row that begins with `line`; takes from `lines` those that a quoted cell continues on."""
        try:
            cells = _cells(line.text, lines)
            if len(cells) != columns.width:
                raise UnreadableValue(f"the row has {len(cells)} cells where the header has {columns.width}")
            values = dict(self.constants)
            for field, place in columns.places:
                value = self._cell(field, cells[place])
                if value is not None:
                    values[field] = value
            return self._row(line.number, raw_record(values))
        except (BadInput, UnreadableValue) as error:
            return self._reject(line.number, error)

    def parse_values(self, number: int, row: Mapping[str, Any]) -> LogRow:
        """Parses a row of a binary format: field → value, as JSON would have it."""
        try:
            values = dict(self.constants)
            for field, value in row.items():
                if value is not None:
                    values[field] = json_value(field, value, self.mapping.timezone, mapped=field in self.mapped_columns)
            return self._row(number, raw_record(values))
        except (BadInput, UnreadableValue) as error:
            return self._reject(number, error)

    def parse_header(self, line: RawLine) -> CsvColumns:
        """Raises `BadRecord` if the line is no CSV header, or lacks a mapped column, or names no subject or no time."""
        where = f"{self.source} line {line.number}"
        try:
            if line.text is None:
                raise UnreadableValue(f"it has more than {LINE_BYTES_MAX} bytes")
            columns = _parsed(line.text)
        except UnreadableValue as error:
            raise BadRecord(f"{where}: this is neither JSON Lines nor the header of a CSV file: {error}") from None
        if len(set(columns)) != len(columns):
            raise BadRecord(f"{where}: the header names a column twice")
        for field, column in self.mapped_columns.items():
            if column not in columns:
                raise BadRecord(f"{self.source}: the header has no column of the name given for {field}")
            self.present_fields.add(field)
        try:
            self.check_columns(columns)
        except BadRecord as error:
            raise BadRecord(f"{error.detail}; if this is no CSV, name its format with --log-format") from None
        by_field = {field: self.mapping.column(field) for field in FIELDS}
        places = [(field, columns.index(column)) for field, column in by_field.items() if column and column in columns]
        return CsvColumns(len(columns), places)

    def check_columns(self, columns: Iterable[str]) -> None:
        """Notes the columns of a log whose rows all have the same ones. Raises `BadRecord` if no row can name a
        subject, or none its time, and for observations that are no fields."""
        names = list(columns)
        self.survey.note(names)
        unknown = unknown_handling(names, self.mapping)
        if unknown:
            known = ", ".join(field for field in FIELDS if field.startswith("handling."))
            raise BadRecord(f"{self.source}: {shown(unknown)} is no field of a request record; handling has {known}")
        fault = self.survey.require_subject_and_time(self.source)
        if fault is not None:
            raise BadRecord(fault)

    def _row(self, number: int, raw: Any) -> LogRow:
        if isinstance(raw, dict) and raw.get("at") is None:
            raise UnreadableValue("at is required: a log has the time of each request")
        return LogRow(self.source, number, read_record(raw, 0), None)

    def _reject(self, number: int, error: BadInput | UnreadableValue) -> LogRow:
        fault = error.detail if isinstance(error, BadInput | BadJson) else str(error)
        return LogRow(self.source, number, None, fault)

    def _cell(self, field: str, text: str) -> Any:
        try:
            return cell_value(field, text, self.mapping.timezone)
        except UnreadableValue as error:
            if FIELDS[field] == "time":
                raise
            raise UnreadableValue(f"/{field.replace('.', '/')}: {error}") from None

    def _raw(self, value: Any) -> dict[str, Any]:
        """The record in a row of JSON, with its values as `read_record` takes them."""
        if not isinstance(value, dict):
            raise UnreadableValue("a request record must be an object")
        if self._needs_no_mapping and value.keys() <= MEMBERS:
            if isinstance(value.get("at"), str):
                value["at"] = time_text(value["at"], self.mapping.timezone)
            return value
        handling = value.get("handling")
        if handling is not None and not isinstance(handling, dict):
            raise UnreadableValue("/handling: an object is required here")
        values: dict[str, Any] = {f"handling.{name}": inner for name, inner in (handling or {}).items()}
        for field in FIELDS:
            column = self.mapping.column(field)
            member = _member(value, column) if column else None
            if member is not None:
                if field in self.mapped_columns:
                    self.present_fields.add(field)
                values[field] = json_value(field, member, self.mapping.timezone, mapped=field in self.mapped_columns)
            elif field in self.constants:
                values[field] = self.constants[field]
            elif field in self.mapping.columns:
                values.pop(field, None)
        return raw_record(values)


class LineQueue(Iterator[RawLine]):
    """Lines that can be put back."""

    def __init__(self, lines: Iterable[RawLine]) -> None:
        self._back: deque[RawLine] = deque()
        self._lines = iter(lines)

    def __next__(self) -> RawLine:
        return self._back.popleft() if self._back else next(self._lines)

    @property
    def back_count(self) -> int:
        """The number of lines that were put back and not taken again."""
        return len(self._back)

    def put_back(self, lines: list[RawLine]) -> None:
        self._back.extendleft(reversed(lines))


def _cells(text: bytes | None, lines: LineQueue) -> list[str]:
    """The cells of the row that begins with `text`; takes the lines that a quoted cell continues on.

    Raises `UnreadableValue`, with these lines put back.
    """
    if text is None:
        raise UnreadableValue(f"the line has more than {LINE_BYTES_MAX} bytes")
    if text.count(b'"') % 2 == 0:
        return _parsed(text)
    further: list[RawLine] = []
    row = text
    try:
        while row.count(b'"') % 2:
            line = next(lines, None)
            if line is None:
                raise UnreadableValue("a quote is left open")
            further.append(line)
            if line.text is None or len(further) >= QUOTED_LINES_MAX or len(row) > LINE_BYTES_MAX:
                raise UnreadableValue("a quote is left open")
            row += b"\n" + line.text
        return _parsed(row)
    except UnreadableValue:
        lines.put_back(further)
        raise


def _parsed(text: bytes) -> list[str]:
    try:
        return next(csv.reader([text.decode("utf-8")], strict=True))
    except UnicodeDecodeError:
        raise UnreadableValue("the line is not UTF-8") from None
    except (csv.Error, StopIteration):
        raise UnreadableValue("the line is not CSV: a quote stands where it may not, or a cell is too large") from None


def _member(value: Mapping[str, Any], column: str) -> Any:
    """The member of that name, or else the one at that path, whose names are separated by dots."""
    if column in value or "." not in column:
        return value.get(column)
    inner: Any = value
    for name in column.split("."):
        if not isinstance(inner, dict):
            return None
        inner = inner.get(name)
    return inner
