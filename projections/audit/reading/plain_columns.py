"""Columns of Parquet in plain types: texts, bytes, numbers, flags and timestamps, whatever a file stores them as.

A UUID is its text, JSON is its text, bytes of a fixed size are bytes, and views and dictionaries are what they show.
Proved by tests/audit/io/test_parquet_types.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ledger.errors import BadRecord

_DASHES: Final = (4, 6, 8, 10)
"""The bytes of a UUID that a dash precedes."""


def column_path(schema: pa.Schema, column: str, source: str) -> tuple[str, ...] | None:
    """The names from the top-level column down; None: no column has that name. Names may hold dots at any depth, as in
    `member_paths`.

    Raises `BadRecord` if there are two ways to the column: one might hold what the other does not.
    """
    ways = list(
        _ways(schema, column.split("."), f"{source}: a group of the file has two members of one name, {column}")
    )
    if len(ways) > 1:
        raise BadRecord(
            f"{source}: the file has {column} in two ways, as a column with dots in its name and as a member of a "
            "group; rename one of them"
        )
    return ways[0] if ways else None


def _ways(group: pa.Schema | pa.StructType, pieces: Sequence[str], repeated: str) -> Iterator[tuple[str, ...]]:
    for count in range(1, len(pieces) + 1):
        name = ".".join(pieces[:count])
        places = group.get_all_field_indices(name)
        if len(places) > 1:
            raise BadRecord(repeated)
        if not places:
            continue
        kind = group.field(places[0]).type
        if count == len(pieces):
            yield (name,)
        elif pa.types.is_struct(kind):
            yield from ((name, *rest) for rest in _ways(kind, pieces[count:], repeated))


def column_type(schema: pa.Schema, path: Sequence[str]) -> pa.DataType:
    """The type of the column at the path, from its top-level column down."""
    kind = schema.field(path[0]).type
    for name in path[1:]:
        kind = kind.field(name).type
    return kind


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of `plain_column`."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.string() if is_uuid(kind) else plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    return kind


def plain_column(column: pa.Array) -> pa.Array:
    """The column in plain types. Texts are not checked to be UTF-8."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _uuid_texts(column.storage) if is_uuid(kind) else plain_column(column.storage)
    if pa.types.is_dictionary(kind):
        return plain_column(column.dictionary_decode())
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.binary(), safe=False).view(pa.string())
    plain = plain_type(kind)
    return column if kind == plain else column.cast(plain)


def is_uuid(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.uuid"


def _uuid_texts(storage: pa.Array) -> pa.Array:
    """The usual text of each: 8-4-4-4-12 digits, in small letters."""
    octets = np.frombuffer(pc.fill_null(storage, bytes(16)).cast(pa.binary()).buffers()[2], np.uint8)
    octets = octets[: 16 * len(storage)].reshape(-1, 16)
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    texts = np.full((len(storage), 36), ord("-"), np.uint8)
    at = 0
    for place in range(16):
        at += place in _DASHES
        texts[:, at] = digits[octets[:, place] >> 4]
        texts[:, at + 1] = digits[octets[:, place] & 15]
        at += 2
    offsets = np.arange(0, 36 * (len(storage) + 1), 36, dtype=np.int32)
    column = pa.StringArray.from_buffers(len(storage), pa.py_buffer(offsets), pa.py_buffer(texts.tobytes()))
    return pc.if_else(storage.is_valid(), column, pa.scalar(None, pa.string()))
