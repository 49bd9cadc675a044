"""The strict reader: one row of JSON or CSV to one request record, or to the reason why it has none.

Every row gives a record or a fault, and an unreadable row costs no other row. Only what a field is read from is judged.
Fast readers leave to this one all rows that they do not understand, so a log has one meaning only. Proved by
tests/test_audit_records.py and tests/test_real_logs.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from ledger.errors import BadInput, BadRecord
from ledger.subjects import is_text
from projections.audit.reading import csv_rows
from projections.audit.reading.columns import ColumnSurvey, holds_observations, shown, unknown_handling
from projections.audit.reading.fields import (
    FIELDS,
    ColumnMapping,
    cell_value,
    json_value,
    raw_record,
)
from projections.audit.reading.json_values import Odd, read_json
from projections.audit.reading.log_times import UnreadableValue
from projections.audit.reading.member_paths import ABSENT, LogColumn, all_names, find, inside, log_column
from projections.audit.reading.shape import ANY_SHAPE, LogForm, LogShape
from projections.decisions.model import RequestRecord, read_record

_HANDLING: Final = "handling"
_OBSERVATIONS: Final = "handling."
"""Begins the name of a column that holds an observation."""
_NOTED_BYTES_MAX: Final = 1 << 20
_VERDICTS: Final = frozenset(("verdict", "before_verdict"))
_IN_HANDLING: Final = frozenset(field.partition(".")[2] for field in FIELDS if "." in field)


class LogRow(NamedTuple):
    """A row of the log `source`: either `record` or `fault` is set. `line` counts from 1."""

    source: str
    line: int
    record: RequestRecord | None
    fault: str | None


def too_many_rejects(rejects_max: int, first: LogRow) -> BadRecord:
    return BadRecord(
        f"more than {rejects_max} rows cannot be read, the first: {first.source} line {first.line}: {first.fault}; "
        "nothing was written"
    )


class CellPlace(NamedTuple):
    """The cell that holds a field: its place in the row, and the column in its text of JSON, if the cell holds one."""

    field: str
    place: int
    inner: LogColumn | None = None


class CsvColumns(NamedTuple):
    """The columns of a CSV file: their number, and the cells that are read."""

    width: int
    places: list[CellPlace]
    delimiter: str = ","


class RowParser:
    """Parses the rows of one log. `BadRecord`: the mapping is invalid."""

    def __init__(self, source: str, mapping: ColumnMapping, shape: LogShape = ANY_SHAPE) -> None:
        self.source = source
        self.mapping = mapping
        self.shape = shape
        self.form: LogForm | None = None
        """None: the log has no row yet."""
        self.constants = mapping.checked_constants()
        self.mapped_columns = {
            field: column for field, column in mapping.columns.items() if column and field not in mapping.path_values
        }
        """Mapped fields, of which a log must have the column."""
        self.survey = ColumnSurvey(mapping, self.constants)
        self.present_fields: set[str] = set()
        """Those of `mapped_columns` that a row has had."""
        self.columns = {field: log_column(mapping.column(field)) for field in FIELDS if mapping.column(field)}
        self._holds_observations = holds_observations(mapping)
        """Whether a member `handling` is the record's own, or something else."""
        self._names = frozenset({_HANDLING}.union(*map(all_names, self.columns.values())))

    @property
    def absent_fields(self) -> list[str]:
        return [field for field in self.mapped_columns if field not in self.present_fields]

    def too_large(self, number: int) -> LogRow:
        return LogRow(
            self.source,
            number,
            None,
            f"the row has more than {self.shape.row_bytes_max} bytes; --max-row-bytes raises this bound",
        )

    def parse_json(self, number: int, text: bytes, line: int | None = None) -> LogRow:
        """`line`: as for `read_json`. Raises `BadRecord` for observations that are no fields: ignored, they would hide
        what was done, in a log's last row as in its first."""
        try:
            value = read_json(text, self._names, line, _OBSERVATIONS)
        except UnreadableValue as error:
            return self.reject(number, error)
        if isinstance(value, dict) and (_OBSERVATIONS.encode() in text or b"\\" in text):
            self._refuse_observations(value)
        try:
            return self._row(number, self._raw(value))
        except (BadInput, UnreadableValue) as error:
            return self.reject(number, error)

    def parse_csv(self, number: int, row: bytes, columns: CsvColumns) -> LogRow:
        try:
            return self.parse_cells(number, csv_rows.cells_of(row, columns.delimiter), columns)
        except UnreadableValue as error:
            return self.reject(number, error)

    def parse_cells(self, number: int, cells: list[str], columns: CsvColumns) -> LogRow:
        try:
            if len(cells) != columns.width:
                raise UnreadableValue(f"the row has {len(cells)} cells where the header has {columns.width}")
            values = dict(self.constants)
            for field, place, inner in columns.places:
                value = self._cell(field, cells[place], inner)
                if value is not None:
                    values[field] = value
            return self._row(number, raw_record(values))
        except (BadInput, UnreadableValue) as error:
            return self.reject(number, error)

    def parse_values(self, number: int, row: Mapping[str, Any]) -> LogRow:
        """Parses a row of a binary format: field → value, as JSON would have it."""
        try:
            values = dict(self.constants)
            for field, value in row.items():
                judged = self._judged(field, value)
                if judged is not None:
                    values[field] = judged
            return self._row(number, raw_record(values))
        except (BadInput, UnreadableValue) as error:
            return self.reject(number, error)

    def delimiter_of(self, headers: Mapping[str, bytes]) -> str:
        """The delimiter of a header, of those by which it is read differently: the one that gives most columns that are
        read, then most columns. `headers`: delimiter → the header if that is it, the usual one first."""
        names = {name for column in self.columns.values() for name in (column.name, ".".join(column.outer))}

        def columns(delimiter: str) -> tuple[int, int]:
            try:
                cells = csv_rows.cells_of(headers[delimiter], delimiter)
            except UnreadableValue:
                return -1, 0
            return len(names & set(cells)), len(cells)

        return max(headers, key=columns)

    def parse_header(self, number: int, row: bytes, delimiter: str = ",") -> CsvColumns:
        """Raises `BadRecord` if the row is no CSV header, or lacks a mapped column, or has an unknown one."""
        where = f"{self.source} line {number}"
        try:
            names = csv_rows.cells_of(row, delimiter)
            if not all(map(is_text, names)):
                raise UnreadableValue("the row is not UTF-8")
        except UnreadableValue as error:
            raise BadRecord(f"{where}: this is neither JSON nor the header of a CSV file: {error}") from None
        try:
            return self.named_columns(where, names)._replace(delimiter=delimiter)
        except BadRecord as error:
            raise BadRecord(f"{error.detail}; if this is no CSV, name its format with --log-format") from None

    def named_columns(self, where: str, names: list[str]) -> CsvColumns:
        """The columns of a header. Raises `BadRecord` as `parse_header` does."""
        places: list[CellPlace] = []
        for field, column in self.columns.items():
            inner = None
            name = column.name
            if name not in names and column.inner is not None:
                name, inner = ".".join(column.outer), column.inner
            if name in names:
                if names.count(name) > 1:
                    raise BadRecord(f"{where}: the header names the column of {field} twice")
                places.append(CellPlace(field, names.index(name), inner))
                if field in self.mapped_columns:
                    self.present_fields.add(field)
            elif field in self.mapped_columns:
                raise BadRecord(f"{self.source}: the header has no column of the name given for {field}")
        self.check_columns(names, (place.field for place in places))
        return CsvColumns(len(names), places)

    def check_columns(self, columns: Iterable[str], fields: Iterable[str] = ()) -> None:
        """Notes the columns of a log whose rows all have the same ones, and the fields that they hold. Raises
        `BadRecord` if no row can name a subject, or none its time, and for observations that are no fields."""
        names = list(columns)
        self._refuse_columns(names)
        self.survey.note(names, fields)
        fault = self.survey.require_subject_and_time(self.source)
        if fault is not None:
            raise BadRecord(fault)

    def note_json(self, text: bytes) -> None:
        """Notes the members of one of a log's first rows. Passes over a text that is no JSON, or that is large.

        Raises `BadRecord` for the members of an audit's own output, and for observations that are no fields.
        """
        if len(text) > _NOTED_BYTES_MAX:
            return
        with suppress(UnreadableValue):
            row = read_json(text, frozenset())
            if isinstance(row, dict):
                self._refuse_columns(row.keys())
            self.survey.note_row(row)

    def _refuse_columns(self, names: Collection[str]) -> None:
        if {"source", "line"} <= set(names) and _VERDICTS & set(names):
            raise BadRecord(
                f"{self.source}: this holds the verdicts of an earlier audit, and is no log; move it away, or name the "
                "logs one by one"
            )
        self._refuse_observations(names)

    def _refuse_observations(self, names: Iterable[str]) -> None:
        unknown = unknown_handling(names) if self._holds_observations else ()
        if unknown:
            known = ", ".join(field for field in FIELDS if field.startswith("handling."))
            raise BadRecord(f"{self.source}: {shown(unknown)} is no field of a request record; handling has {known}")

    def _row(self, number: int, raw: dict[str, Any]) -> LogRow:
        if raw.get("at") is None:
            raise UnreadableValue("at is required: a log has the time of each request")
        return LogRow(self.source, number, read_record(raw, 0), None)

    def reject(self, number: int, error: BadInput | UnreadableValue) -> LogRow:
        fault = error.detail if isinstance(error, BadInput) else str(error)
        return LogRow(self.source, number, None, fault)

    def _cell(self, field: str, text: str, inner: LogColumn | None) -> Any:
        try:
            if not text.isascii() and not is_text(text):
                raise UnreadableValue("the cell is not UTF-8")
            if inner is None:
                return cell_value(field, text, self.mapping)
            value = inside(text, inner)
        except UnreadableValue as error:
            if FIELDS[field] == "time":
                raise
            raise UnreadableValue(f"{_pointer(field)}: {error}") from None
        return None if value is ABSENT else self._judged(field, value)

    def _raw(self, value: Any) -> dict[str, Any]:
        """The record of a row of JSON, as `read_record` takes it."""
        if not isinstance(value, dict):
            raise UnreadableValue("a request record must be an object")
        members = self._with_own_handling(value)
        values: dict[str, Any] = {}
        for field, column in self.columns.items():
            try:
                member = find(members, column)
            except UnreadableValue as error:
                self.present_fields.add(field)
                raise UnreadableValue(f"{_pointer(field)}: {error}") from None
            if member is ABSENT:
                continue
            self.present_fields.add(field)
            judged = self._judged(field, member)
            if judged is not None:
                values[field] = judged
        return raw_record(self.constants | values if self.constants else values)

    def _with_own_handling(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row without a member `handling` that is something else."""
        handling = row.get(_HANDLING)
        if handling is None:
            return row
        if isinstance(handling, dict):
            if self._holds_observations and not handling.keys() <= _IN_HANDLING:
                raise UnreadableValue("/handling: a member does not belong here")
            return row
        if not self._holds_observations:
            return {name: value for name, value in row.items() if name != _HANDLING}
        raise UnreadableValue("/handling: an object is required here")

    def _judged(self, field: str, value: Any) -> Any:
        """A field's value in JSON; None if it is absent, as an empty text is. Raises `UnreadableValue`."""
        if value is None or value == "":
            return None
        if isinstance(value, Odd):
            raise UnreadableValue(f"{_pointer(field)}: {value.fault}")
        if isinstance(value, str) and not value.isascii() and not is_text(value):
            raise UnreadableValue(f"{_pointer(field)}: the text holds half of a surrogate pair, which is no character")
        return json_value(field, value, self.mapping, mapped=field in self.mapped_columns)


def _pointer(field: str) -> str:
    return f"/{field.replace('.', '/')}"
