"""Writes VERDICTS batches with their source lines as Parquet, CSV or NDJSON: the same rows give the same bytes.

Rows are written in order in groups of a fixed size, whatever their batches were, and texts are encoded anew for each
group, not by the codes of their batch. The metadata of the results (pin, log, layout) stands in the key-value metadata
of a Parquet file (key `inforce`), and beside a CSV or NDJSON file in a file of its own, `FILE.pin.json`.
Proved by tests/audit/io/test_verdict_files.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import PurePath
from typing import Any, Final, Literal, Protocol

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ledger.errors import BadInput
from projections.audit.schemas import VERDICTS

OutFormat = Literal["parquet", "csv", "ndjson"]

GROUP_ROWS: Final = 1 << 17
METADATA_KEY: Final = "inforce"
_SOURCE: Final = pa.field("source", pa.string(), nullable=False)
_LINE: Final = pa.field("line", pa.int64(), nullable=False)


def output_schema(schema: pa.Schema) -> pa.Schema:
    """The schema in plain types, after the columns for source and line."""
    return pa.schema([_SOURCE, _LINE, *(field.with_type(_plain_type(field.type)) for field in schema)])


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind):
        return pa.list_(_plain_type(kind.value_type))
    return pa.string() if pa.types.is_dictionary(kind) else kind


OUTPUT_SCHEMA: Final = output_schema(VERDICTS)
"""The schema of an audit's results."""

_WORDS: Final = (
    "source",
    "verdict",
    "data_policy",
    "hindsight",
    "provider",
    "policy_url",
    "provider_subject",
    "provider_policy_sha256",
)
_REPEATED: Final = (
    *_WORDS,
    "reasons.list.element",
    "allowed_regions.list.element",
    "provider_regions.list.element",
)
_POSITIONS: Final = "deciding_positions.list.element"
_SIDES: Final = ("before_", "after_")
"""Prefixes of the columns of `what_if.comparison`. Parquet ignores encodings for names that are no columns."""


_BY_SUFFIX: Final[Mapping[str, OutFormat]] = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    "": "ndjson",
}


def format_of(name: str) -> OutFormat:
    """By the ending of the name; NDJSON for a name without one. Raises `BadInput` for another ending: a file of that
    name would not be what its name says."""
    suffix = PurePath(name).suffix
    form = _BY_SUFFIX.get(suffix.lower())
    if form is None:
        raise BadInput(f"{name}: verdicts are written as .parquet, .csv, .ndjson or .jsonl, and not as {suffix}")
    return form


class ByteSink(Protocol):
    """A file, or anything else that takes bytes."""

    def write(self, data: bytes | memoryview, /) -> int: ...


class VerdictWriter:
    """Writes to `file`, which stays the caller's to close. `take` every batch, then `finish`."""

    def __init__(
        self, file: ByteSink, form: OutFormat, group_rows: int = GROUP_ROWS, schema: pa.Schema = OUTPUT_SCHEMA
    ) -> None:
        """`schema`: made by `output_schema`."""
        self._group_rows = group_rows
        self._schema = schema
        self._waiting: list[pa.Table] = []
        self._rows = 0
        self._encoder: _ParquetEncoder | _TextEncoder = (
            _ParquetEncoder(file, schema) if form == "parquet" else _TextEncoder(file, form == "csv", schema)
        )

    def take(self, source: str, lines: Any, verdicts: pa.RecordBatch) -> None:
        """`lines`: the line of each row of `verdicts`, int64."""
        start = 0
        while start < len(lines):
            count = min(self._group_rows - self._rows, len(lines) - start)
            self._waiting.append(
                _plain_table(source, lines[start : start + count], verdicts.slice(start, count), self._schema)
            )
            self._rows += count
            start += count
            if self._rows == self._group_rows:
                self._flush()

    def finish(self, metadata: dict[str, Any]) -> None:
        """`metadata`: JSON values."""
        if self._rows:
            self._flush()
        self._encoder.finish(metadata)

    def abandon(self) -> None:
        """Instead of `finish`, before the file is closed: the caller discards the file."""
        self._encoder.abandon()

    def _flush(self) -> None:
        self._encoder.write(pa.concat_tables(self._waiting).combine_chunks())
        self._waiting, self._rows = [], 0


def _plain_table(source: str, lines: Any, verdicts: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    columns = [pa.repeat(pa.scalar(source), len(lines)), pa.array(lines, pa.int64())]
    for field in list(schema)[len(columns) :]:
        column = verdicts.column(field.name)
        columns.append(column if column.type == field.type else column.cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def parquet_writer(file: ByteSink, schema: pa.Schema) -> pq.ParquetWriter:
    """Repeated texts are stored in a dictionary, ascending or similar numbers by their differences. Governing subjects
    get no dictionary: there may be as many as rows, and a dictionary would double their size."""
    return pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=[*_REPEATED, *(side + name for side in _SIDES for name in _REPEATED)],
        column_encoding=dict.fromkeys(
            ("line", "at", _POSITIONS, *(side + _POSITIONS for side in _SIDES)), "DELTA_BINARY_PACKED"
        ),
        write_statistics=["at", "line"],
        version="2.6",
    )


class _ParquetEncoder:
    def __init__(self, file: ByteSink, schema: pa.Schema) -> None:
        self._writer = parquet_writer(file, schema)

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table, row_group_size=table.num_rows)

    def finish(self, metadata: dict[str, Any]) -> None:
        self._writer.add_key_value_metadata({METADATA_KEY: json.dumps(metadata, ensure_ascii=False)})
        self._writer.close()

    def abandon(self) -> None:
        # Otherwise the garbage collector makes it write its footer, into a closed file.
        with suppress(OSError, ValueError):
            self._writer.close()


class _TextEncoder:
    """Joins lines column by column, and quotes by themselves only the texts that need it."""

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
            values = _json_values(batch.column(number))
            if self._as_csv:
                cells.append(_csv_cells(batch.column(number), values))
            else:
                lead = ("{" if number == 0 else ",") + f'"{name}":'
                cells += [lead, values.fill_null("null")]
        if self._as_csv:
            lines = pc.binary_join_element_wise(pc.binary_join_element_wise(*cells, ","), "\n", "")
        else:
            lines = pc.binary_join_element_wise(*cells, "}\n", "")
        self._file.write(_bytes(lines))

    def finish(self, metadata: dict[str, Any]) -> None:
        """The caller writes the metadata to a file of its own."""

    def abandon(self) -> None:
        """Every group is written at once, so nothing is left to discard."""


def _json_values(column: pa.Array) -> pa.Array:
    """Each value as JSON text; null stays null."""
    kind = column.type
    if pa.types.is_list(kind):
        ends = np.cumsum(pc.list_value_length(column).fill_null(0).to_numpy())
        offsets = pa.array(np.concatenate([[0], ends]).astype(np.int32))
        # Computed anew, because a slice has the offsets of its parent.
        lists = pa.ListArray.from_arrays(offsets, _json_values(column.flatten()), mask=column.is_null())
        return pc.binary_join_element_wise("[", pc.binary_join(lists, ","), "]", "")
    if pa.types.is_timestamp(kind):
        return pc.binary_join_element_wise('"', pc.strftime(column, format="%Y-%m-%dT%H:%M:%SZ"), '"', "")
    if not pa.types.is_string(kind):
        return column.cast(pa.string())
    return _by_word(column, _json_texts)


def _by_word(texts: pa.Array, encode: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """The encoded texts: each distinct one is encoded once if they repeat."""
    words = texts.dictionary_encode()
    if len(words.dictionary) * 4 < len(texts):
        return encode(words.dictionary).take(words.indices)
    return encode(texts)


def _json_texts(column: pa.Array) -> pa.Array:
    quoted = pc.binary_join_element_wise('"', column, '"', "")
    return _mended(column, r'["\\\x00-\x1f]', quoted, lambda text: msgspec.json.encode(text).decode())


def _csv_cells(column: pa.Array, json_values: pa.Array) -> pa.Array:
    """Texts and instants as they are, any other value as its JSON; null is empty."""
    if pa.types.is_timestamp(column.type):
        return pc.utf8_slice_codeunits(json_values, 1, -1).fill_null("")
    if pa.types.is_string(column.type):
        return _by_word(column, _csv_texts).fill_null("")
    return (_by_word(json_values, _csv_texts) if pa.types.is_list(column.type) else json_values).fill_null("")


def _csv_texts(texts: pa.Array) -> pa.Array:
    # Before Python 3.12 csv.writer leaves a newline unquoted if it is not the line terminator.
    return _mended(texts, '[",\r\n]', texts, lambda text: '"' + text.replace('"', '""') + '"')


def _mended(texts: pa.Array, pattern: str, simple: pa.Array, encode: Callable[[str], str]) -> pa.Array:
    """`simple`, but encoded one by one where the text matches the pattern."""
    matches = pc.match_substring_regex(texts, pattern).fill_null(False)
    if not pc.any(matches).as_py():
        return simple
    return pc.replace_with_mask(simple, matches, pa.array(map(encode, texts.filter(matches).to_pylist()), pa.string()))


def _bytes(lines: pa.Array) -> memoryview:
    """The texts one after the other, without a copy."""
    _, offsets, data = lines.buffers()
    ends = np.frombuffer(offsets, np.int32, len(lines) + 1, lines.offset * 4)
    return memoryview(data)[int(ends[0]) : int(ends[-1])]
