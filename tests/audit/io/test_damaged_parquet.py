"""A damaged Parquet file is an error in one line, or reads as the rows that were written: never as fewer rows."""

import io
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ledger.errors import BadRecord
from ledger.times import parse_time
from projections.audit.reading.batches import LogBatch
from projections.audit.reading.fields import ColumnMapping
from projections.audit.reading.files import LogFile
from projections.audit.reading.logs import LogReader
from projections.audit.reading.parquet import read_batches
from projections.audit.reading.strict import RowParser
from tests.audit.io.reading import rows_of

ROWS = 300
AT = parse_time("2026-03-01T12:00:00Z")
TABLE = pa.table(
    {
        "at": pa.array(range(AT, AT + ROWS), pa.timestamp("us", "UTC")),
        "org_id": [f"acme{number % 7}" for number in range(ROWS)],
        "handling.stored": [number % 3 == 0 for number in range(ROWS)],
    }
)


def written(table: pa.Table = TABLE, *, checksums: bool = True) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, write_page_checksum=checksums, row_group_size=128, compression="none")
    return file.getvalue()


def read(body: bytes) -> list[LogBatch]:
    return list(read_batches(io.BytesIO(body), RowParser("a.parquet", ColumnMapping())))


def test_a_flipped_bit_costs_no_row_in_silence() -> None:
    body, good = written(), rows_of(read(written()))
    begin_of_footer = len(body) - 8 - int.from_bytes(body[-8:-4], "little")
    chosen = random.Random(18)
    flips = [(place, bit) for place in range(len(body)) for bit in range(8)]
    wrong = []
    for place, bit in chosen.sample(flips, 4000):
        flipped = bytearray(body)
        flipped[place] ^= 1 << bit
        try:
            rows = rows_of(read(bytes(flipped)))
        except BadRecord:
            continue
        # The footer has no checksum, so a flip there may give other values, or other names.
        if len(rows) != ROWS or (place < begin_of_footer and rows != good):
            wrong.append((place, bit, len(rows)))
    assert not wrong


def test_rows_are_compared_with_the_footer() -> None:
    """The footer's own count of 300 rows, in a file of one row group, becomes another."""
    file = io.BytesIO()
    pq.write_table(TABLE, file, compression="none")
    body = file.getvalue()
    footer = len(body) - 8 - int.from_bytes(body[-8:-4], "little")
    # 300 as a Thrift varint in zigzag.
    count = bytes([0x16, 0xD8, 0x04])
    places = [place for place in range(footer, len(body)) if body[place : place + 3] == count]
    assert len(places) >= 2
    refused = 0
    for place in places:
        try:
            rows = rows_of(read(body[:place] + bytes([0x16, 0x00]) + body[place + 3 : -8] + _tail(body, -1)))
        except BadRecord:
            refused += 1
        else:
            assert len(rows) == ROWS
    assert refused >= 2


def _tail(body: bytes, more: int) -> bytes:
    return (int.from_bytes(body[-8:-4], "little") + more).to_bytes(4, "little") + body[-4:]


def test_page_checksums_are_verified() -> None:
    body = bytearray(written())
    place = body.index(b"acme3")
    body[place + 4 : place + 5] = b"9"
    with pytest.raises(BadRecord, match="damaged"):
        read(bytes(body))


def test_a_column_name_that_is_not_utf8_is_one_line() -> None:
    body = written()
    with pytest.raises(BadRecord, match=r"a\.parquet: the Parquet file is damaged"):
        read(body.replace(b"org_id", b"org_\xff\xff"))


def test_a_file_without_rows_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(written(TABLE.slice(0, 0)))
    reader = LogReader([LogFile(str(path), path.stat().st_size, ColumnMapping())])
    assert sum(batch.rows for batch in reader) == 0


def test_a_group_with_two_members_of_one_name_is_refused() -> None:
    stored = pa.array([True])
    group = pa.StructArray.from_arrays([stored, stored], names=["stored", "stored"])
    table = pa.table({"at": pa.array([AT], pa.timestamp("us", "UTC")), "org_id": ["acme"], "handling": group})
    with pytest.raises(BadRecord, match=r"two members of one name, handling\.stored"):
        read(written(table))
