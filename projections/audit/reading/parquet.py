"""Reads Parquet files: checks columns as columns, and rows that fail the check one by one.

A row means what the same row means as a line of JSON: texts, numbers, flags, nulls, and `handling` as a group or as
columns with a dot. A time is a text, or a timestamp, cut off after microseconds; a number, date or decimal is no time.
A column of the wrong type is an error before the first row. Rows count from 1. Proved by
tests/audit/io/test_parquet.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ledger.errors import BadRecord, BadTime
from ledger.subjects import is_id
from ledger.times import BEGINNING, END, format_time, parse_time
from projections.audit.arrays import sealed
from projections.audit.numba_support import worth_compiling
from projections.audit.reading import scan_lines
from projections.audit.reading.alias_columns import AliasColumns
from projections.audit.reading.batches import LogBatch, merge_rows
from projections.audit.reading.block_rows import constant_columns
from projections.audit.reading.columns import holds_observations
from projections.audit.reading.fields import FIELDS, WHO, json_value, time_value
from projections.audit.reading.json_paths import NAMES
from projections.audit.reading.log_times import PER_SECOND, UnreadableValue
from projections.audit.reading.member_paths import ABSENT, LogColumn, inside
from projections.audit.reading.parquet_file import DAMAGED, as_bad_record, counted_rows, open_parquet, require_rows
from projections.audit.reading.plain_columns import column_path, column_type, plain_column, plain_type
from projections.audit.reading.strict import LogRow, RowParser
from projections.audit.reading.times import local_text, to_utc
from projections.audit.schemas import INSTANT, REQUESTS
from projections.decisions.model import TEXT_MAX

MAGIC: Final = b"PAR1"
BATCH_ROWS: Final = 65_536
_NO_FLAG: Final = object()
_IDS: Final = (*WHO, "model_id")
_IN_AN_ID: Final = np.array([is_id(chr(byte)) for byte in range(256)])
_TYPE_NAMES: Final = {
    "text": "text",
    "time": "a timestamp, or text",
    "position": "whole numbers",
    "flag": "true or false",
}
_ADVICE: Final = {
    "time": ", or the unit of times that are numbers with --time-unit",
    "flag": ", or the texts and numbers that mean true and false with --true and --false",
}


def read_batches(file: BinaryIO, parser: RowParser, batch_rows: int = BATCH_ROWS) -> Iterator[LogBatch]:
    """The rows of a file, in order. Raises `BadRecord` for a damaged file, also for one whose rows are not those that
    its footer counts, and for columns of a wrong type."""
    try:
        parquet = open_parquet(file)
        count = counted_rows(parquet, parser.source)
        columns = ParquetColumns(parquet.schema_arrow, parser)
        first = 1
        for batch in parquet.iter_batches(batch_rows, columns=columns.names, use_threads=False):
            values = {field: _column(batch, path) for field, path in columns.paths.items()}
            yield columns.log_batch(values, batch.num_rows, first)
            first += batch.num_rows
    except DAMAGED as error:
        raise as_bad_record(parser.source, error) from None
    require_rows(parser.source, count, first - 1)


def column_names(schema: pa.Schema, parser: RowParser) -> list[str]:
    """The columns, with the inner ones of groups by their paths. Raises `BadRecord` if `handling` is no group, although
    it should hold observations."""
    names: list[str] = []

    def add(name: str, kind: pa.DataType) -> None:
        names.append(name)
        if pa.types.is_struct(kind):
            for inner in kind:
                add(f"{name}.{inner.name}", inner.type)

    for field in schema:
        if field.name == "handling" and not pa.types.is_struct(field.type) and holds_observations(parser.mapping):
            raise BadRecord(
                f"{parser.source}: column handling is {field.type}, and has to be a group of its members; if it holds "
                "something else, name the columns of the observations with --map"
            )
        add(field.name, field.type)
    return names


class ParquetColumns:
    """The columns of files with one schema, and how to read them.

    paths: field → names from the top-level column down. types: field → type. names: columns to read. Raises `BadRecord`
    if a mapped column is missing, if no column names a subject or a time, and if one has a wrong type.
    """

    def __init__(self, schema: pa.Schema, parser: RowParser) -> None:
        self._parser = parser
        self._constants = constant_columns(parser)
        self._aliases = AliasColumns(parser.mapping.aliases)
        self.paths: dict[str, tuple[str, ...]] = {}
        self.types: dict[str, pa.DataType] = {}
        self._inner: dict[str, LogColumn] = {}
        """Field → the column in the text of JSON that its column holds."""
        if len(set(schema.names)) != len(schema.names):
            raise BadRecord(f"{parser.source}: the file has two columns of one name")
        for field in FIELDS:
            path = self._path(schema, parser.mapping.column(field))
            if path is None and self._path_to_json(schema, field):
                continue
            if path is not None:
                self.paths[field] = path
                self.types[field] = column_type(schema, path)
                self._check_type(field, plain_type(self.types[field]))
                parser.present_fields.add(field)
            elif field in parser.mapped_columns:
                raise BadRecord(f"{parser.source}: the file has no column of the name given for {field}")
        parser.check_columns(column_names(schema, parser), self.paths)
        if pa.types.is_timestamp(self.types.get("at", pa.null())):
            # Its unit is known, and it has no form.
            parser.mapping = parser.mapping._replace(time_unit=None, time_format=None)
        self.names = sorted({".".join(path) for path in self.paths.values()})

    def _path_to_json(self, schema: pa.Schema, field: str) -> bool:
        """Whether the field is read from within a column of JSON texts: then its rows are for the strict reader."""
        column = self._parser.columns.get(field)
        if column is None or column.inner is None:
            return False
        path = self._path(schema, ".".join(column.outer))
        if path is None:
            return False
        self.paths[field], self.types[field] = path, column_type(schema, path)
        kind = plain_type(self.types[field])
        if not (pa.types.is_string(kind) or pa.types.is_binary(kind)):
            raise BadRecord(f"{self._parser.source}: column {column.name} is {kind}, and has to be texts of JSON")
        self._inner[field] = column.inner
        return True

    def _path(self, schema: pa.Schema, column: str) -> tuple[str, ...] | None:
        return column_path(schema, column, self._parser.source) if column else None

    def _check_type(self, field: str, kind: pa.DataType) -> None:
        types, field_type, mapping = pa.types, FIELDS[field], self._parser.mapping
        is_text = types.is_string(kind)
        if field_type == "text":
            # Many writers store texts as plain bytes.
            fits = is_text or types.is_binary(kind) or (field in self._parser.mapped_columns and types.is_integer(kind))
        elif field_type == "time":
            is_number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
            fits = is_text or types.is_timestamp(kind) or (is_number and mapping.time_unit is not None)
        elif field_type == "position":
            fits = types.is_integer(kind)
        else:
            is_named = is_text or types.is_binary(kind) or types.is_integer(kind)
            fits = types.is_boolean(kind) or (bool(mapping.flags) and is_named)
        if not fits and not types.is_null(kind):
            column = mapping.column(field)
            advice = _ADVICE.get(field_type, "")
            raise BadRecord(
                f"{self._parser.source}: column {column} is {kind}, and {field} has to be {_TYPE_NAMES[field_type]}; "
                f"write the column as that, or name another with --map{advice}"
            )

    def log_batch(self, values: dict[str, pa.Array], count: int, first: int) -> LogBatch:
        """`values`: field → column of `count` rows. `first`: number of the first row."""
        if self._inner:
            none = pa.RecordBatch.from_pylist([], schema=REQUESTS)
            all_rows = [self._read_strictly(values, row, first) for row in range(count)]
            return merge_rows(self._parser.source, np.array([], np.int64), none, all_rows)
        good = np.ones(count, np.bool_)
        columns = []
        for field, name in zip(NAMES, REQUESTS.names, strict=True):
            column = values.get(field)
            if column is None or pa.types.is_null(column.type):
                column = pa.nulls(count, REQUESTS.field(name).type)
            else:
                column, column_good = self._checked(field, column)
                good &= column_good
            constant = self._constants.get(name)
            if constant is not None and column.null_count:
                column = column.fill_null(constant)
            columns.append(column)
        good &= _valid(columns[NAMES.index("at")])
        good &= np.logical_or.reduce([_valid(columns[NAMES.index(who)]) for who in WHO])
        schema = pa.schema([field.with_nullable(True) for field in REQUESTS])
        requests = pa.RecordBatch.from_arrays(columns, schema=schema)
        source = self._parser.source
        if good.all():
            return LogBatch(source, np.arange(first, first + count), requests.cast(REQUESTS), [])
        rows = np.flatnonzero(good)
        strict_rows = [self._read_strictly(values, int(row), first) for row in np.flatnonzero(~good)]
        return merge_rows(source, rows + first, requests.take(pa.array(rows)).cast(REQUESTS), strict_rows)

    def _checked(self, field: str, column: pa.Array) -> tuple[pa.Array, Any]:
        """(the column as in REQUESTS with null in the other rows, rows that are good for certain)"""
        field_type = FIELDS[field]
        if field_type == "flag":
            return self._flags(field, column)
        if field_type == "position":
            return _positions(column)
        if field_type == "time":
            if pa.types.is_timestamp(column.type):
                return self._timestamps(column)
            return self._times(column)
        if pa.types.is_integer(column.type):
            column = column.cast(pa.string())
        return _texts(field, self._aliases.resolved(field, column.view(pa.string())))

    def _flags(self, field: str, column: pa.Array) -> tuple[pa.Array, Any]:
        if pa.types.is_boolean(column.type):
            return column, np.ones(len(column), np.bool_)
        words = column.dictionary_encode()
        meanings = [self._flag(field, value) for value in words.dictionary]
        places = pc.fill_null(words.indices, len(meanings))
        flags = pa.array([*((flag if flag is not _NO_FLAG else None) for flag in meanings), None], pa.bool_())
        return flags.take(places), np.array([*(flag is not _NO_FLAG for flag in meanings), True])[places.to_numpy()]

    def _flag(self, field: str, value: pa.Scalar) -> object:
        with suppress(UnicodeDecodeError):
            text = value.as_py()
            text = text.decode() if isinstance(text, bytes) else text
            flag = json_value(field, text, self._parser.mapping, mapped=False)
            if flag is None or isinstance(flag, bool):
                return flag
        return _NO_FLAG

    def _times(self, column: pa.Array) -> tuple[pa.Array, Any]:
        """Times as texts or numbers; those in an unusual form are for the strict reader."""
        valid, mapping = _valid(column), self._parser.mapping
        if mapping.time_unit is not None and pa.types.is_signed_integer(column.type):
            return self._timestamps(column.cast(pa.int64()).cast(pa.timestamp(mapping.time_unit, "UTC")))
        if mapping.time_unit is not None or mapping.time_format is not None:
            return self._each_time(column, valid)
        if not worth_compiling(len(column), scan_lines.times):
            return pa.nulls(len(column), INSTANT), ~valid
        offsets, data = _bytes(column)
        # Padding: the loop looks a few bytes beyond a text that ends within its offset.
        data = np.concatenate([data, np.zeros(8, np.uint8)])
        values, kinds = np.zeros((2, len(column)), np.int64), np.zeros(len(column), np.int8)
        scan_lines.times(sealed(data), sealed(offsets), sealed(valid), values, kinds)
        micros, good = values[scan_lines.AT], kinds == 1
        local, zone = np.flatnonzero(kinds == 2), self._parser.mapping.timezone
        if zone is not None and len(local):
            micros[local], good[local] = to_utc(micros[local], zone)
        return pa.array(micros, INSTANT, mask=~good), good | ~valid

    def _each_time(self, column: pa.Array, valid: Any) -> tuple[pa.Array, Any]:
        micros, good = np.zeros(len(column), np.int64), np.zeros(len(column), np.bool_)
        for row in np.flatnonzero(valid).tolist():
            # The reason for a failure is up to the strict reader.
            with suppress(UnreadableValue, UnicodeDecodeError, BadTime):
                value = time_value(_json_value(column, row), self._parser.mapping)
                micros[row] = parse_time(value)
                good[row] = True
        return pa.array(micros, INSTANT, mask=~good), good | ~valid

    def _timestamps(self, column: pa.Array) -> tuple[pa.Array, Any]:
        valid = _valid(column)
        ticks = np.where(valid, _without_nulls(column.view(pa.int64())), 0)
        per_second = PER_SECOND[column.type.unit]
        if per_second > 1_000_000:
            micros, good = ticks // (per_second // 1_000_000), np.ones(len(ticks), np.bool_)
        else:
            scale = 1_000_000 // per_second
            good = np.abs(ticks) < 2**62 // scale
            micros = np.where(good, ticks, 0) * scale
        if column.type.tz is None:
            zone = self._parser.mapping.timezone
            if zone is None:
                return pa.nulls(len(column), INSTANT), ~valid
            micros, certain = to_utc(micros, zone)
            good &= certain
        else:
            good &= (micros >= BEGINNING) & (micros < END)
        return pa.array(micros, INSTANT, mask=~(valid & good)), good | ~valid

    def _read_strictly(self, values: dict[str, pa.Array], row: int, first: int) -> LogRow:
        """Reads the row as the line of JSON with the same values."""
        source, number = self._parser.source, first + row
        json_values: dict[str, Any] = {}
        for field, column in values.items():
            try:
                json_values[field] = self._within(field, _json_value(column, row))
            except UnicodeDecodeError:
                return LogRow(source, number, None, f"/{field.replace('.', '/')}: the text is not UTF-8")
            except UnreadableValue as error:
                return LogRow(source, number, None, f"/{field.replace('.', '/')}: {error}")
            except OverflowError:
                return LogRow(source, number, None, "/at: the time lies outside the years 0001 to 9999 in UTC")
        return self._parser.parse_values(number, json_values)

    def _within(self, field: str, value: Any) -> Any:
        inner = self._inner.get(field)
        if inner is None:
            return value
        value = inside(value, inner)
        if value is ABSENT:
            return None
        self._parser.present_fields.add(field)
        return value


def _column(batch: pa.RecordBatch, path: tuple[str, ...]) -> pa.Array:
    column = batch.column(path[0])
    for name in path[1:]:
        # Keeps the nulls of the groups above.
        column = pc.struct_field(column, name)
    return plain_column(column)


def _valid(column: pa.Array) -> Any:
    return column.is_valid().to_numpy(zero_copy_only=False)


def _without_nulls(column: pa.Array) -> Any:
    return (column.fill_null(0) if column.null_count else column).to_numpy(zero_copy_only=False)


def _positions(column: pa.Array) -> tuple[pa.Array, Any]:
    numbers, valid = _without_nulls(column), _valid(column)
    good = (numbers >= 0) & (numbers <= 2**63 - 1)
    return pa.array(np.where(good, numbers, 0).astype(np.int64), mask=~(valid & good)), good | ~valid


def _texts(field: str, column: pa.Array) -> tuple[pa.Array, Any]:
    valid = _valid(column)
    offsets, data = _bytes(column)
    lengths = np.diff(offsets)
    good = (lengths >= 1) & (lengths <= TEXT_MAX)
    if field in _IDS:
        if not _IN_AN_ID[data].all():
            good &= ~_any_in_each(~_IN_AN_ID[data], offsets)
        # An id that holds its kind is for the strict reader.
        kind = field.removesuffix("_id").encode()
        holds_kind = pc.starts_with(column.view(pa.binary()), kind + b":").fill_null(False)
        good &= ~holds_kind.to_numpy(zero_copy_only=False)
    elif field == "handling.network":
        known = pc.is_in(column.view(pa.binary()), pa.array([b"public", b"private"]))
        good &= known.to_numpy(zero_copy_only=False)
    elif len(data) and data.max() >= 0x80:
        # The strict reader checks the UTF-8 and counts the characters.
        good &= ~_any_in_each(data >= 0x80, offsets)
    if not (good | ~valid).all():
        column = pc.if_else(pa.array(good & valid), column, pa.scalar(None, pa.string()))
    return column, good | ~valid


def _bytes(column: pa.Array) -> tuple[Any, Any]:
    """(offsets from 0 on, the bytes that they divide)"""
    _, offsets, data = column.buffers()
    if offsets is None or data is None:
        return np.zeros(len(column) + 1, np.int32), np.zeros(0, np.uint8)
    ends = np.frombuffer(offsets, np.int32, len(column) + 1, column.offset * 4)
    return ends - ends[0], np.frombuffer(data, np.uint8)[ends[0] : ends[-1]]


def _any_in_each(flags: Any, offsets: Any) -> Any:
    """Whether any flag is set, for each span between offsets."""
    counts = np.concatenate([[0], np.cumsum(flags)])
    return counts[offsets[1:]] > counts[offsets[:-1]]


def _json_value(column: pa.Array, row: int) -> Any:
    """The cell as a value of JSON."""
    cell = column[row]
    if not cell.is_valid:
        return None
    kind = column.type
    if pa.types.is_timestamp(kind):
        micros = cell.value * 1_000_000 // PER_SECOND[kind.unit]
        if not BEGINNING <= micros < END:
            raise OverflowError
        return format_time(micros) if kind.tz is not None else local_text(micros)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return cell.as_py()
    if pa.types.is_decimal(kind):
        return str(cell.as_py())
    return cell.as_buffer().to_pybytes().decode("utf-8")
