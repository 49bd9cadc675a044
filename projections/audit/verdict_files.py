"""VERDICTS batches, with where each row came from, as Parquet, CSV or NDJSON: the same rows, the same bytes.

However the rows came in batches, they are written in groups of a fixed size, by one thread, in their order; texts are
laid down anew for each group, not by the codes that they had. What they rest on stands in the key-value metadata of a
Parquet file (key `inforce`), and beside a CSV or NDJSON file in a file of its own: `FILE.pin.json`.
Proved by tests/audit/io/test_verdict_files.py.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, Final, Literal, Protocol

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from projections.audit.schemas import VERDICTS

OutFormat = Literal["parquet", "csv", "ndjson"]

GROUP_ROWS: Final = 1 << 17
METADATA_KEY: Final = "inforce"
_SOURCE: Final = pa.field("source", pa.string(), nullable=False)
_LINE: Final = pa.field("line", pa.int64(), nullable=False)


def output_schema(schema: pa.Schema) -> pa.Schema:
    """The schema in plain types, behind where the row came from."""
    return pa.schema([_SOURCE, _LINE, *(field.with_type(_plain_type(field.type)) for field in schema)])


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind):
        return pa.list_(_plain_type(kind.value_type))
    return pa.string() if pa.types.is_dictionary(kind) else kind


OUTPUT_SCHEMA: Final = output_schema(VERDICTS)
"""What is written of an audit."""

_WORDS: Final = ("source", "verdict", "data_policy", "hindsight", "provider", "policy_url")
_FEW: Final = (*_WORDS, "reasons.list.element", "allowed_regions.list.element")
_POSITIONS: Final = "deciding_positions.list.element"
_SIDES: Final = ("before_", "after_")
"""Of columns that stand twice beside each other (`what_if.comparison`). A name that is no column's is passed over."""


def format_of(name: str) -> OutFormat:
    if name.endswith(".parquet"):
        return "parquet"
    return "csv" if name.endswith(".csv") else "ndjson"


class ByteSink(Protocol):
    """What bytes are written to: a file, or what does more with them."""

    def write(self, data: bytes | memoryview, /) -> int: ...


class _Form(Protocol):
    def write(self, table: pa.Table) -> None: ...

    def finish(self, rests_on: dict[str, Any]) -> None: ...

    def abandon(self) -> None: ...


class VerdictWriter:
    """Writes to `file`, which stays the caller's to close. `take` every batch, then `finish`."""

    def __init__(
        self, file: ByteSink, form: OutFormat, group_rows: int = GROUP_ROWS, schema: pa.Schema = OUTPUT_SCHEMA
    ) -> None:
        """`schema`: a `output_schema`."""
        self._group_rows = group_rows
        self._schema = schema
        self._waiting: list[pa.Table] = []
        self._rows = 0
        self._form: _Form = _Parquet(file, schema) if form == "parquet" else _Lines(file, form == "csv", schema)

    def take(self, source: str, lines: Any, verdicts: pa.RecordBatch) -> None:
        """`lines`: of each row of `verdicts`, int64."""
        start = 0
        while start < len(lines):
            count = min(self._group_rows - self._rows, len(lines) - start)
            self._waiting.append(
                _plain(source, lines[start : start + count], verdicts.slice(start, count), self._schema)
            )
            self._rows += count
            start += count
            if self._rows == self._group_rows:
                self._flush()

    def finish(self, rests_on: dict[str, Any]) -> None:
        """`rests_on`: JSON values, for the metadata."""
        if self._rows:
            self._flush()
        self._form.finish(rests_on)

    def abandon(self) -> None:
        """Instead of `finish`, before the file is closed: what was written is thrown away."""
        self._form.abandon()

    def _flush(self) -> None:
        self._form.write(pa.concat_tables(self._waiting).combine_chunks())
        self._waiting, self._rows = [], 0


def _plain(source: str, lines: Any, verdicts: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    columns = [pa.repeat(pa.scalar(source), len(lines)), pa.array(lines, pa.int64())]
    for field in list(schema)[len(columns) :]:
        column = verdicts.column(field.name)
        columns.append(column if column.type == field.type else column.cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def parquet_writer(file: ByteSink, schema: pa.Schema) -> pq.ParquetWriter:
    """As verdicts are written: texts that are few by their places in a list, numbers that ascend, or are all of one
    size, by their distances. Who governs may be as many as there are rows: then a list of them is twice as dear."""
    return pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=[*_FEW, *(side + name for side in _SIDES for name in _FEW)],
        column_encoding=dict.fromkeys(
            ("line", "at", _POSITIONS, *(side + _POSITIONS for side in _SIDES)), "DELTA_BINARY_PACKED"
        ),
        write_statistics=["at", "line"],
        version="2.6",
    )


class _Parquet:
    def __init__(self, file: ByteSink, schema: pa.Schema) -> None:
        self._writer = parquet_writer(file, schema)

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table, row_group_size=table.num_rows)

    def finish(self, rests_on: dict[str, Any]) -> None:
        self._writer.add_key_value_metadata({METADATA_KEY: json.dumps(rests_on, ensure_ascii=False)})
        self._writer.close()

    def abandon(self) -> None:
        # Otherwise it writes its end when it is collected, into a file that is closed.
        with suppress(OSError, ValueError):
            self._writer.close()


class _Lines:
    """Put together column by column; only a text that needs it is quoted for itself."""

    def __init__(self, file: ByteSink, as_csv: bool, schema: pa.Schema) -> None:
        self._file = file
        self._as_csv = as_csv
        self._names = schema.names
        if as_csv:
            file.write(",".join(schema.names).encode() + b"\n")

    def write(self, table: pa.Table) -> None:
        batch = table.to_batches()[0]
        cells: list[Any] = []
        for number, name in enumerate(self._names):
            said = _json(batch.column(number))
            if self._as_csv:
                cells.append(_csv(batch.column(number), said))
            else:
                lead = ("{" if number == 0 else ",") + f'"{name}":'
                cells += [lead, said.fill_null("null")]
        if self._as_csv:
            lines = pc.binary_join_element_wise(pc.binary_join_element_wise(*cells, ","), "\n", "")
        else:
            lines = pc.binary_join_element_wise(*cells, "}\n", "")
        self._file.write(_joined(lines))

    def finish(self, rests_on: dict[str, Any]) -> None:
        """It is said in the file beside."""

    def abandon(self) -> None:
        """Nothing is waiting."""


def _json(column: pa.Array) -> pa.Array:
    """Each value as JSON, null where it is null."""
    kind = column.type
    if pa.types.is_list(kind):
        ends = np.cumsum(pc.list_value_length(column).fill_null(0).to_numpy())
        offsets = pa.array(np.concatenate([[0], ends]).astype(np.int32))
        # Laid down anew: a slice has no offsets of its own.
        lists = pa.ListArray.from_arrays(offsets, _json(column.flatten()), mask=column.is_null())
        return pc.binary_join_element_wise("[", pc.binary_join(lists, ","), "]", "")
    if pa.types.is_timestamp(kind):
        return pc.binary_join_element_wise('"', pc.strftime(column, format="%Y-%m-%dT%H:%M:%SZ"), '"', "")
    if not pa.types.is_string(kind):
        return column.cast(pa.string())
    words = column.dictionary_encode()
    if len(words.dictionary) * 4 < len(column):
        return _quoted(words.dictionary).take(words.indices)
    return _quoted(column)


def _quoted(column: pa.Array) -> pa.Array:
    quoted = pc.binary_join_element_wise('"', column, '"', "")
    strange = pc.match_substring_regex(column, r'["\\\x00-\x1f]').fill_null(False)
    if not pc.any(strange).as_py():
        return quoted
    texts = [msgspec.json.encode(text).decode() for text in column.filter(strange).to_pylist()]
    return pc.replace_with_mask(quoted, strange, pa.array(texts, pa.string()))


def _csv(column: pa.Array, said: pa.Array) -> pa.Array:
    """Texts and instants as they are, any other value as its JSON; null is empty."""
    if pa.types.is_timestamp(column.type):
        return pc.utf8_slice_codeunits(said, 1, -1).fill_null("")
    if pa.types.is_string(column.type):
        said = column
    if not pa.types.is_string(column.type) and not pa.types.is_list(column.type):
        return said.fill_null("")
    words = said.dictionary_encode()
    if len(words.dictionary) * 4 < len(said):
        return _cells(words.dictionary).take(words.indices).fill_null("")
    return _cells(said).fill_null("")


def _cells(texts: pa.Array) -> pa.Array:
    strange = pc.match_substring_regex(texts, '[",\r\n]').fill_null(False)
    if not pc.any(strange).as_py():
        return texts
    return pc.replace_with_mask(texts, strange, pa.array(map(_cell, texts.filter(strange).to_pylist()), pa.string()))


def _cell(text: str) -> str:
    # By hand: before Python 3.12 csv.writer leaves a newline unquoted where it is not what ends its lines.
    quoted = text.replace('"', '""')
    return f'"{quoted}"'


def _joined(lines: pa.Array) -> memoryview:
    _, offsets, data = lines.buffers()
    ends = np.frombuffer(offsets, np.int32, len(lines) + 1, lines.offset * 4)
    return memoryview(data)[int(ends[0]) : int(ends[-1])]
