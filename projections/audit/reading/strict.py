"""Request logs to request records: JSON Lines and CSV, gzip or plain, line by line and never held whole.

No line is lost: each that is not blank comes out once, as a record or as a fault with its number. What cannot be read
costs its own line and no other. A file that is no log at all, or is cut off, is refused.
Proved by tests/test_audit_records.py and tests/test_real_logs.py.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, BinaryIO, Final, Literal, NamedTuple, get_args

from ledger import strict_json
from ledger.errors import BadInput, BadJson, BadRecord
from projections.audit.reading.fields import (
    FIELDS,
    MEMBERS,
    NO_MAPPING,
    ColumnMapping,
    UnreadableValue,
    cell_value,
    json_value,
    raw_record,
    time_text,
)
from projections.audit.reading.lines import LINE_BYTES_MAX, CountingStream, RawLine, raw_lines
from projections.decisions.model import RequestRecord, read_record

LogFormat = Literal["jsonl", "csv"]
LOG_FORMATS: Final[tuple[LogFormat, ...]] = get_args(LogFormat)

QUOTED_LINES_MAX: Final = 1000
"""A CSV row may span this many lines; a quote that is left open costs one line, not the rest of the file."""


class LogRow(NamedTuple):
    """One line of a log: either `record` or `fault` is there. `source` names the log, `line` counts from 1."""

    source: str
    line: int
    record: RequestRecord | None
    fault: str | None


def read_log(
    stream: BinaryIO, source: str, *, mapping: ColumnMapping = NO_MAPPING, log_format: LogFormat | None = None
) -> Log:
    """The rows of the log in `stream`, which stays the caller's to close. `log_format` None: `{` begins JSON Lines.

    Raises `BadRecord`, here or while iterating, for a shape or a header that cannot be right and for damaged gzip data.
    """
    return Log(stream, source, mapping, log_format)


class Log:
    """Iterate once. `bytes_read`: of the stream so far; `unseen`: named columns that no line has had so far."""

    def __init__(self, stream: BinaryIO, source: str, mapping: ColumnMapping, log_format: LogFormat | None) -> None:
        self._rows = RowParser(source, mapping)
        self._format = log_format
        self._counted = CountingStream(stream)

    @property
    def bytes_read(self) -> int:
        return self._counted.count

    @property
    def unseen(self) -> list[str]:
        return self._rows.unseen

    def __iter__(self) -> Iterator[LogRow]:
        lines = (line for line in raw_lines(self._counted, self._rows.source) if not is_blank(line))
        first = next(lines, None)
        if first is None:
            return
        back = LineQueue([first], lines)
        if self._format == "jsonl" or (self._format is None and is_json(first)):
            for line in back:
                yield self._rows.of_json(line)
            return
        columns = self._rows.header(next(back))
        for line in back:
            yield self._rows.of_csv(line, columns, back)


def is_blank(line: RawLine) -> bool:
    return line.text is not None and not line.text.strip()


def is_json(first: RawLine) -> bool:
    """Whether a log whose first line that is not blank is this one is JSON Lines."""
    return (first.text or b"").lstrip()[:1] == b"{"


class CsvColumns(NamedTuple):
    """Of a CSV file: how many, and field → which."""

    width: int
    places: list[tuple[str, int]]


class RowParser:
    """Lines to rows, each for itself: what is a record, and what is a fault, is said here and nowhere else."""

    def __init__(self, source: str, mapping: ColumnMapping) -> None:
        self.source = source
        self.mapping = mapping
        self.constants = mapping.checked_constants()
        self.named = {
            field: column for field, column in mapping.columns.items() if column and field not in mapping.path_values
        }
        self.lenient = any(mapping.columns.values())
        """Whether columns of other names are ignored."""
        self.seen: set[str] = set()
        """Named fields that some line has had."""
        self._plain_json = not mapping.columns and not self.constants

    @property
    def unseen(self) -> list[str]:
        return [field for field in self.named if field not in self.seen]

    def of_json(self, line: RawLine) -> LogRow:
        number, text = line
        try:
            if text is None:
                raise UnreadableValue(f"the line has more than {LINE_BYTES_MAX} bytes")
            value = strict_json.loads(text, LINE_BYTES_MAX, "the line")
            raw = self._plain(value) if self._plain_json else self._mapped(value)
            return LogRow(self.source, number, _record(raw), None)
        except (BadInput, UnreadableValue) as error:
            return LogRow(self.source, number, None, _fault(error))

    def of_csv(self, line: RawLine, columns: CsvColumns, lines: LineQueue) -> LogRow:
        """The row that begins with `line`; takes from `lines` those that a quoted cell runs on to."""
        number, text = line
        try:
            cells = _cells(text, lines)
            if len(cells) != columns.width:
                raise UnreadableValue(f"the row has {len(cells)} cells where the header has {columns.width}")
            found = dict(self.constants)
            for field, place in columns.places:
                said = self._cell(field, cells[place])
                if said is not None:
                    found[field] = said
            return LogRow(self.source, number, _record(raw_record(found)), None)
        except (BadInput, UnreadableValue) as error:
            return LogRow(self.source, number, None, _fault(error))

    def _cell(self, field: str, text: str) -> Any:
        try:
            return cell_value(field, text, self.mapping.timezone)
        except UnreadableValue as error:
            if FIELDS[field] == "time":
                raise
            raise UnreadableValue(f"/{field.replace('.', '/')}: {error}") from None

    def of_fields(self, number: int, said: Mapping[str, Any]) -> LogRow:
        """A row that was no text: field → what its column says, as if it had been read from JSON."""
        try:
            found = dict(self.constants)
            for field, value in said.items():
                if value is not None:
                    found[field] = json_value(field, value, self.mapping.timezone, mapped=field in self.named)
            return LogRow(self.source, number, _record(raw_record(found)), None)
        except (BadInput, UnreadableValue) as error:
            return LogRow(self.source, number, None, _fault(error))

    def _plain(self, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("at"), str):
            value["at"] = time_text(value["at"], self.mapping.timezone)
        return value

    def _mapped(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise UnreadableValue("a request record must be an object")
        if not self.lenient and not value.keys() <= MEMBERS:
            raise UnreadableValue("a member does not belong here; name the columns to read, and others are ignored")
        observed = value.get("handling")
        if observed is not None and not isinstance(observed, dict):
            raise UnreadableValue("/handling: an object is required here")
        found: dict[str, Any] = {f"handling.{name}": said for name, said in (observed or {}).items()}
        for field in FIELDS:
            column = self.mapping.column(field)
            said = _member(value, column) if column else None
            if said is not None:
                if field in self.named:
                    self.seen.add(field)
                found[field] = json_value(field, said, self.mapping.timezone, mapped=field in self.named)
            elif field in self.constants:
                found[field] = self.constants[field]
            elif field in self.mapping.columns:
                found.pop(field, None)
        return raw_record(found)

    def header(self, line: RawLine) -> CsvColumns:
        """Raises `BadRecord` where it cannot be right."""
        where = f"{self.source} line {line.number}"
        try:
            if line.text is None:
                raise UnreadableValue(f"it has more than {LINE_BYTES_MAX} bytes")
            columns = _parsed(line.text)
        except UnreadableValue as error:
            raise BadRecord(f"{where}: this is neither JSON Lines nor the header of a CSV file: {error}") from None
        if len(set(columns)) != len(columns):
            raise BadRecord(f"{where}: the header names a column twice")
        return self.columns(columns)

    def columns(self, columns: list[str]) -> CsvColumns:
        """Where each field is. Raises `BadRecord` for a column that is missing, or that does not belong."""
        for field, column in self.named.items():
            if column not in columns:
                raise BadRecord(f"{self.source}: the header has no column of the name given for {field}")
            self.seen.add(field)
        if not self.lenient and not set(columns) <= FIELDS.keys():
            raise BadRecord(
                f"{self.source}: a column of the header is no field of a request record; name the columns to read, "
                f"and others are ignored (the fields are {', '.join(FIELDS)}); or name the format, if this is no CSV "
                "(its first line is no JSON object)"
            )
        by_field = {field: self.mapping.column(field) for field in FIELDS}
        places = [(field, columns.index(column)) for field, column in by_field.items() if column and column in columns]
        return CsvColumns(len(columns), places)


class LineQueue(Iterator[RawLine]):
    """Lines, one source after the other, with the lately taken to be put back."""

    def __init__(self, *sources: Iterable[RawLine]) -> None:
        self._waiting: deque[RawLine] = deque()
        self._rest = chain(*sources)

    def __next__(self) -> RawLine:
        return self._waiting.popleft() if self._waiting else next(self._rest)

    @property
    def waiting(self) -> int:
        """How many were put back and not taken again."""
        return len(self._waiting)

    def put_back(self, lines: list[RawLine]) -> None:
        self._waiting.extendleft(reversed(lines))


def _cells(text: bytes | None, lines: LineQueue) -> list[str]:
    """The cells of the row that begins with `text`; takes the lines that a quoted cell runs on to."""
    if text is None:
        raise UnreadableValue(f"the line has more than {LINE_BYTES_MAX} bytes")
    if text.count(b'"') % 2 == 0:
        return _parsed(text)
    taken: list[RawLine] = []
    whole = text
    try:
        while whole.count(b'"') % 2:
            line = next(lines, None)
            if line is None:
                raise UnreadableValue("a quote is left open")
            taken.append(line)
            if line.text is None or len(taken) >= QUOTED_LINES_MAX or len(whole) > LINE_BYTES_MAX:
                raise UnreadableValue("a quote is left open")
            whole += b"\n" + line.text
        return _parsed(whole)
    except UnreadableValue:
        lines.put_back(taken)
        raise


def _parsed(text: bytes) -> list[str]:
    try:
        return next(csv.reader([text.decode("utf-8")], strict=True))
    except UnicodeDecodeError:
        raise UnreadableValue("the line is not UTF-8") from None
    except (csv.Error, StopIteration):
        raise UnreadableValue("the line is not CSV: a quote stands where it may not, or a cell is too large") from None


def _member(value: Mapping[str, Any], column: str) -> Any:
    """A member by its name, or failing that by its path with dots."""
    if column in value or "." not in column:
        return value.get(column)
    inner: Any = value
    for name in column.split("."):
        if not isinstance(inner, dict):
            return None
        inner = inner.get(name)
    return inner


def _record(raw: Any) -> RequestRecord:
    if isinstance(raw, dict) and raw.get("at") is None:
        raise UnreadableValue("at is required: a log says when each request was made")
    return read_record(raw, 0)


def _fault(error: BadInput | UnreadableValue) -> str:
    return error.detail if isinstance(error, BadInput | BadJson) else str(error)
