"""Columns of every type that holds texts are read as the texts that they show."""

import io
import uuid
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ledger.errors import BadRecord
from projections.audit.reading.fields import ColumnMapping
from projections.audit.reading.parquet import read_batches
from projections.audit.reading.plain_columns import plain_column, plain_type
from projections.audit.reading.strict import RowParser
from tests.audit.io.reading import NOON, rows_of

IDS = [uuid.UUID(int=number * 0x1234_5678_9ABC_DEF0_1357) for number in range(5)]


def read(column: pa.Array, field: str = "org_id", **options: Any) -> list[Any]:
    file = io.BytesIO()
    columns = {"at": [NOON] * len(column), "project_id": ["p"] * len(column), field: column}
    pq.write_table(pa.table(columns), file, **options)
    file.seek(0)
    rows = rows_of(list(read_batches(file, RowParser("a", ColumnMapping()))))
    return [fault if record is None else getattr(record, field) for _, record, fault in rows]


@pytest.mark.parametrize("store_schema", [True, False])
def test_a_uuid_is_its_text(store_schema: bool) -> None:
    values = [IDS[0].bytes, None, *(one.bytes for one in IDS[1:])]
    expected = [str(IDS[0]), None, *map(str, IDS[1:])]
    column = pa.array(values, pa.uuid())
    assert read(column, store_schema=store_schema) == expected
    assert plain_column(column.slice(2, 3)).to_pylist() == expected[2:5]


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
        pa.binary(4),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int32(), pa.large_binary()),
    ],
)
def test_texts_and_bytes_of_every_kind_are_texts(kind: pa.DataType) -> None:
    texts = [b"acme", None, b"beta"]
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_text = pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value)
    column = pa.array([text.decode() if text and is_text else text for text in texts], value)
    column = column.dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else column
    assert read(column) == ["acme", None, "beta"]
    assert plain_column(column).type == plain_type(kind)


def test_bytes_of_a_fixed_size_that_are_no_text_are_a_reject() -> None:
    first, second = read(pa.array([b"acme", b"\xff\xfe\x00\x01"], pa.binary(4)))
    assert (first, second) == ("acme", "/org_id: the text is not UTF-8")


def test_json_is_its_text() -> None:
    assert read(pa.array(['{"a":1}', None], pa.json_()), "request_id") == ['{"a":1}', None]


def test_a_column_of_json_is_followed_where_its_path_is_named() -> None:
    texts = [
        '{"org":{"id":"acme"},"hit":true}',
        '{"org":{"id":17}}',
        '{"org":"acme"}',
        "no json",
        None,
        '{"hit":false}',
    ]
    for kind in (pa.string(), pa.json_(), pa.binary()):
        file = io.BytesIO()
        values = [text.encode() if text and pa.types.is_binary(kind) else text for text in texts]
        columns = {"at": [NOON] * 6, "project_id": ["p"] * 6, "meta": pa.array(values, kind)}
        pq.write_table(pa.table(columns), file)
        file.seek(0)
        mapping = ColumnMapping({"org_id": "meta:org.id", "handling.cached": "meta:hit"})
        rows = rows_of(list(read_batches(file, RowParser("a", mapping), batch_rows=4)))
        read_rows = [None if one is None else (one.org_id, one.handling and one.handling.cached) for _, one, _ in rows]
        assert read_rows == [("acme", True), ("17", None), None, None, (None, None), (None, False)]
        assert [(fault or "")[:8] for _, _, fault in rows[2:4]] == ["/org_id:", "/org_id:"]


def test_a_path_into_a_column_that_holds_no_texts_is_refused() -> None:
    file = io.BytesIO()
    pq.write_table(pa.table({"at": [NOON], "meta": [1]}), file)
    file.seek(0)
    with pytest.raises(BadRecord, match="column meta:org is int64, and has to be texts of JSON"):
        list(read_batches(file, RowParser("a", ColumnMapping({"org_id": "meta:org"}))))
