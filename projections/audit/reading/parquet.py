"""Parquet files to request records: columns checked as columns, rows that do not pass read one by one.

A row is what it would be as a line of JSON: a text, a number, a flag, null, and `handling` as a group of its members or
in columns with a dot. A time is a timestamp, of which what is finer than a microsecond is cut off, or a text; numbers,
dates and decimals are no times. Columns of another type than their field are refused before the first row. Rows are
counted from 1. Proved by tests/audit/io/test_parquet.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ledger.errors import BadRecord
from ledger.subjects import is_id
from ledger.times import BEGINNING, END, format_time
from projections.audit.arrays import sealed
from projections.audit.numba_support import worth_compiling
from projections.audit.reading import scan_lines as scanning
from projections.audit.reading.batches import LogBatch, merge_rows
from projections.audit.reading.fields import FIELDS
from projections.audit.reading.json_paths import NAMES, WHO
from projections.audit.reading.strict import LogRow, RowParser
from projections.audit.reading.text_logs import constant_columns
from projections.audit.reading.times import local_text, to_utc
from projections.audit.schemas import INSTANT, REQUESTS
from projections.decisions.model import TEXT_MAX

MAGIC: Final = b"PAR1"
BATCH_ROWS: Final = 65_536
_IDS: Final = (*WHO, "model_id")
_IN_AN_ID: Final = np.array([is_id(chr(byte)) for byte in range(256)])
_PER_SECOND: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_NOT_SAID: Final = {
    "text": "text",
    "time": "a timestamp, or text",
    "position": "whole numbers",
    "flag": "true or false",
}


def read_batches(file: BinaryIO, rows: RowParser, batch_rows: int = BATCH_ROWS) -> Iterator[LogBatch]:
    """The rows of a file, in order. Raises `BadRecord` for a file that is damaged, and for columns that cannot be."""
    try:
        # Old writers' times of 96 bits reach beyond what nanoseconds since 1970 can say, and would be other times.
        parquet = pq.ParquetFile(file, pre_buffer=False, coerce_int96_timestamp_unit="us")
        columns = ParquetColumns(parquet.schema_arrow, rows)
        first = 1
        for batch in parquet.iter_batches(batch_rows, columns=columns.read, use_threads=False):
            yield columns.part(batch, first)
            first += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise _damaged(rows.source, error) from None


def row_count(file: BinaryIO, source: str) -> int:
    """Raises `BadRecord` for a file that is damaged."""
    try:
        count: int = pq.ParquetFile(file, pre_buffer=False).metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise _damaged(source, error) from None
    return count


def _damaged(source: str, error: Exception) -> Exception:
    if isinstance(error, OSError) and error.errno is not None:
        return error
    return BadRecord(f"{source}: the Parquet file is damaged or cut off")


class ParquetColumns:
    def __init__(self, schema: pa.Schema, rows: RowParser) -> None:
        self._rows = rows
        self._constants = constant_columns(rows)
        self.paths: dict[str, tuple[str, ...]] = {}
        """Field → names from the top-level column down."""
        self.types: dict[str, pa.DataType] = {}
        if len(set(schema.names)) != len(schema.names):
            raise BadRecord(f"{rows.source}: the file has two columns of one name")
        for field in FIELDS:
            path = self._path(schema, rows.mapping.column(field))
            if path is not None:
                self.paths[field] = path
                self.types[field] = self._type(schema, path)
                self._must_be(field, self.types[field])
                rows.seen.add(field)
            elif field in rows.named:
                raise BadRecord(f"{rows.source}: the file has no column of the name given for {field}")
        if not rows.lenient:
            self._refuse_others(schema)
        self.read = sorted({".".join(path) for path in self.paths.values()})

    @staticmethod
    def _path(schema: pa.Schema, column: str) -> tuple[str, ...] | None:
        if not column:
            return None
        if column in schema.names:
            return (column,)
        path = tuple(column.split("."))
        if path[0] not in schema.names:
            return None
        kind = schema.field(path[0]).type
        for name in path[1:]:
            if not pa.types.is_struct(kind) or kind.get_field_index(name) < 0:
                return None
            kind = kind.field(name).type
        return path if len(path) > 1 else None

    @staticmethod
    def _type(schema: pa.Schema, path: tuple[str, ...]) -> pa.DataType:
        kind = schema.field(path[0]).type
        for name in path[1:]:
            kind = kind.field(name).type
        return kind

    def _must_be(self, field: str, kind: pa.DataType) -> None:
        types, field_type = pa.types, FIELDS[field]
        value = kind.value_type if types.is_dictionary(kind) else kind
        is_text = types.is_string(value) or types.is_large_string(value) or types.is_string_view(value)
        if field_type == "text":
            # Writers that know no texts, only bytes, are many.
            is_text = is_text or types.is_binary(value) or types.is_large_binary(value)
            fits = is_text or (field in self._rows.named and types.is_integer(value))
        elif field_type == "time":
            fits = is_text or types.is_timestamp(kind)
        elif field_type == "position":
            fits = types.is_integer(kind)
        else:
            fits = types.is_boolean(kind)
        if not fits and not types.is_null(kind):
            column = self._rows.mapping.column(field)
            raise BadRecord(
                f"{self._rows.source}: column {column} is {kind}, and {field} has to be {_NOT_SAID[field_type]}; "
                "write the column as that, or name another with --map"
            )

    def _refuse_others(self, schema: pa.Schema) -> None:
        others = [name for name in schema.names if name not in FIELDS and name != "handling"]
        if "handling" in schema.names:
            kind = schema.field("handling").type
            if not pa.types.is_struct(kind):
                raise BadRecord(f"{self._rows.source}: column handling is {kind}, and has to be a group of its members")
            others += [f"handling.{kind.field(n).name}" for n in range(kind.num_fields)]
            others = [name for name in others if name not in FIELDS]
        if others:
            raise BadRecord(
                f"{self._rows.source}: a column of the file is no field of a request record; name the columns to "
                f"read, and others are ignored (the fields are {', '.join(FIELDS)})"
            )

    def part(self, batch: pa.RecordBatch, first: int) -> LogBatch:
        said = {field: self._column(batch, path) for field, path in self.paths.items()}
        return self.part_of(said, batch.num_rows, first)

    def part_of(self, said: dict[str, pa.Array], count: int, first: int) -> LogBatch:
        """`said`: field → what so many rows say of it. `first`: the first one's number."""
        passed = np.ones(count, np.bool_)
        columns = []
        for field, name in zip(NAMES, REQUESTS.names, strict=True):
            kind = REQUESTS.field(name).type
            column = said.get(field)
            if column is None or pa.types.is_null(column.type):
                made = pa.nulls(count, kind)
            else:
                made, good = self._checked(field, column)
                passed &= good
            constant = self._constants.get(name)
            if constant is not None and made.null_count:
                made = made.fill_null(constant)
            columns.append(made)
        passed &= _there(columns[NAMES.index("at")])
        passed &= np.logical_or.reduce([_there(columns[NAMES.index(who)]) for who in WHO])
        schema = pa.schema([field.with_nullable(True) for field in REQUESTS])
        requests = pa.RecordBatch.from_arrays(columns, schema=schema)
        if passed.all():
            lines = np.arange(first, first + count)
            return LogBatch(self._rows.source, lines, requests.cast(REQUESTS), [])
        rows = np.flatnonzero(passed)
        strict = [self._strictly(said, int(row), first) for row in np.flatnonzero(~passed)]
        return merge_rows(self._rows.source, rows + first, requests.take(pa.array(rows)).cast(REQUESTS), strict)

    @staticmethod
    def _column(batch: pa.RecordBatch, path: tuple[str, ...]) -> pa.Array:
        column = batch.column(path[0])
        for name in path[1:]:
            # With the nulls of the groups above it.
            column = pc.struct_field(column, name)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        return column

    def _checked(self, field: str, column: pa.Array) -> tuple[pa.Array, Any]:
        """The column as REQUESTS has it, and which rows are right for certain; null where they are not."""
        field_type = FIELDS[field]
        if field_type == "flag":
            return column, np.ones(len(column), np.bool_)
        if field_type == "position":
            return _positions(column)
        if field_type == "time":
            if pa.types.is_timestamp(column.type):
                return self._instants(column)
            return self._times(column)
        return _texts(field, column)

    def _times(self, column: pa.Array) -> tuple[pa.Array, Any]:
        """Of texts; what is not written the ordinary way is for the strict reader."""
        there = _there(column)
        if not worth_compiling(len(column)):
            return pa.nulls(len(column), INSTANT), ~there
        offsets, data = _bytes(_as_text(column))
        # With room behind: a text that ends within its offset is looked at a little further.
        data = np.concatenate([data, np.zeros(8, np.uint8)])
        values, kinds = np.zeros((2, len(column)), np.int64), np.zeros(len(column), np.int8)
        scanning.times(sealed(data), sealed(offsets), sealed(there), values, kinds)
        micros, good = values[scanning.AT], kinds == 1
        local, zone = np.flatnonzero(kinds == 2), self._rows.mapping.timezone
        if zone is not None and len(local):
            micros[local], good[local] = to_utc(micros[local], zone)
        return pa.array(micros, INSTANT, mask=~good), good | ~there

    def _instants(self, column: pa.Array) -> tuple[pa.Array, Any]:
        there = _there(column)
        ticks = np.where(there, _filled(column.view(pa.int64())), 0)
        per_second = _PER_SECOND[column.type.unit]
        if per_second > 1_000_000:
            micros, good = ticks // (per_second // 1_000_000), np.ones(len(ticks), np.bool_)
        else:
            scale = 1_000_000 // per_second
            good = np.abs(ticks) < 2**62 // scale
            micros = np.where(good, ticks, 0) * scale
        if column.type.tz is None:
            zone = self._rows.mapping.timezone
            if zone is None:
                return pa.nulls(len(column), INSTANT), ~there
            micros, said = to_utc(micros, zone)
            good &= said
        else:
            good &= (micros >= BEGINNING) & (micros < END)
        return pa.array(micros, INSTANT, mask=~(there & good)), good | ~there

    def _strictly(self, said: dict[str, pa.Array], row: int, first: int) -> LogRow:
        """The row as a line of JSON would be read that says the same."""
        number = first + row
        found: dict[str, Any] = {}
        for field, column in said.items():
            try:
                found[field] = _value(column, row)
            except UnicodeDecodeError:
                return LogRow(self._rows.source, number, None, f"/{field.replace('.', '/')}: the text is not UTF-8")
            except OverflowError:
                fault = "/at: the time lies outside the years 0001 to 9999 in UTC"
                return LogRow(self._rows.source, number, None, fault)
        return self._rows.of_fields(number, found)


def _there(column: pa.Array) -> Any:
    return column.is_valid().to_numpy(zero_copy_only=False)


def _filled(column: pa.Array) -> Any:
    return (column.fill_null(0) if column.null_count else column).to_numpy(zero_copy_only=False)


def _positions(column: pa.Array) -> tuple[pa.Array, Any]:
    numbers, there = _filled(column), _there(column)
    good = (numbers >= 0) & (numbers <= 2**63 - 1)
    return pa.array(np.where(good, numbers, 0).astype(np.int64), mask=~(there & good)), good | ~there


def _texts(field: str, column: pa.Array) -> tuple[pa.Array, Any]:
    there = _there(column)
    column = column.cast(pa.string()) if pa.types.is_integer(column.type) else _as_text(column)
    offsets, data = _bytes(column)
    lengths = np.diff(offsets)
    good = (lengths >= 1) & (lengths <= TEXT_MAX)
    if field in _IDS:
        if not _IN_AN_ID[data].all():
            good &= ~_holds(~_IN_AN_ID[data], offsets)
    elif field == "handling.network":
        known = pc.is_in(column.view(pa.binary()), pa.array([b"public", b"private"]))
        good &= known.to_numpy(zero_copy_only=False)
    elif len(data) and data.max() >= 0x80:
        # Whether it is UTF-8, and how many characters, is looked at row by row.
        good &= ~_holds(data >= 0x80, offsets)
    if not (good | ~there).all():
        column = pc.if_else(pa.array(good & there), column, pa.scalar(None, pa.string()))
    return column, good | ~there


def _as_text(column: pa.Array) -> pa.Array:
    """Without a look at what the bytes are: that comes then."""
    if column.type == pa.string():
        return column
    column = column.cast(pa.binary(), safe=False) if pa.types.is_string_view(column.type) else column
    return column.cast(pa.binary()).view(pa.string())


def _bytes(column: pa.Array) -> tuple[Any, Any]:
    """Offsets from 0 on, and the bytes that they are of."""
    _, offsets, data = column.buffers()
    if offsets is None or data is None:
        return np.zeros(len(column) + 1, np.int32), np.zeros(0, np.uint8)
    found = np.frombuffer(offsets, np.int32, len(column) + 1, column.offset * 4)
    return found - found[0], np.frombuffer(data, np.uint8)[found[0] : found[-1]]


def _holds(marked: Any, offsets: Any) -> Any:
    """Of each span, whether any of its bytes is marked."""
    counts = np.concatenate([[0], np.cumsum(marked)])
    return counts[offsets[1:]] > counts[offsets[:-1]]


def _value(column: pa.Array, row: int) -> Any:
    """As JSON would say it."""
    cell = column[row]
    if not cell.is_valid:
        return None
    kind = column.type
    if pa.types.is_timestamp(kind):
        micros = cell.value * 1_000_000 // _PER_SECOND[kind.unit]
        if not BEGINNING <= micros < END:
            raise OverflowError
        return format_time(micros) if kind.tz is not None else local_text(micros)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return cell.as_py()
    return cell.as_buffer().to_pybytes().decode("utf-8")
