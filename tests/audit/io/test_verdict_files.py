"""Files hold all verdicts and the metadata, and the same bytes however the rows were batched."""

import csv
import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from projections.audit.schemas import VERDICTS
from projections.audit.verdict_files import METADATA_KEY, OUTPUT_SCHEMA, OutFormat, VerdictWriter

METADATA = {"pin": {"position": 19}}
STRANGE = ["plain", 'a "quote"', "a,b\nc", "two\nlines", "a\rreturn", "back\\slash", "naïve 😀", "nul\x01", None]


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "request_id": STRANGE[n % len(STRANGE)],
            "at": 1_772_366_400_000_000 + n,
            "verdict": ("violation", "compliant")[n % 2],
            "reasons": [[], ["left_platform", "public_network"]][n % 2],
            "governed_by": f"org:o{n % 5}" if n % 3 else None,
            "subject_known": n % 4 != 0,
            "may_store": n % 2 == 0,
            "may_cache": True,
            "may_train": False,
            "may_leave_platform": False,
            "allowed_regions": [None, [], ["eu", "us,x"]][n % 3],
            "private_network_required": False,
            "data_policy": "platform",
            "provider": STRANGE[n % len(STRANGE)],
            "policy_url": None,
            "provider_subject": (None, "provider:deep")[n % 2],
            "provider_policy_sha256": None,
            "provider_trains": (None, True, False)[n % 3],
            "provider_stores": None,
            "provider_retention_days": (None, n)[n % 2],
            "provider_regions": [None, [], ["eu", "us,x"]][n % 3],
            "deciding_positions": list(range(n % 4)),
            "hindsight": None if n % 5 else "denied",
            "enforcement_lag_us": None if n % 6 else -n,
            "lag_position": None if n % 6 else n,
        }
        for n in range(count)
    ]


def write(form: OutFormat, sizes: list[int], group_rows: int = 64) -> bytes:
    file = io.BytesIO()
    writer = VerdictWriter(file, form, group_rows)
    batch = pa.RecordBatch.from_pylist(rows(sum(sizes)), schema=VERDICTS)
    start = 0
    for size in sizes:
        writer.take("a.log", np.arange(start + 1, start + size + 1), batch.slice(start, size))
        start += size
    writer.finish(METADATA)
    return file.getvalue()


@pytest.mark.parametrize("form", ["parquet", "csv", "ndjson"])
def test_the_bytes_do_not_depend_on_the_batches(form: OutFormat) -> None:
    once = write(form, [200])
    assert write(form, [200]) == once
    assert write(form, [1] * 200) == once
    assert write(form, [63, 2, 0, 135]) == once
    assert write(form, [199]) != once


def expected(count: int) -> list[dict[str, Any]]:
    return [{"source": "a.log", "line": n + 1} | row for n, row in enumerate(rows(count))]


def test_parquet_holds_every_column_and_the_metadata() -> None:
    file = pq.ParquetFile(io.BytesIO(write("parquet", [200])))
    assert file.schema_arrow.equals(OUTPUT_SCHEMA)
    assert json.loads(file.metadata.metadata[METADATA_KEY.encode()]) == METADATA
    rows_read = file.read()
    at = rows_read.column("at").cast(pa.int64()).to_pylist()
    assert [row | {"at": instant} for row, instant in zip(rows_read.to_pylist(), at, strict=True)] == expected(200)


def test_ndjson_has_json_on_every_line() -> None:
    rows_read = [json.loads(line) for line in write("ndjson", [200]).split(b"\n")[:-1]]
    assert rows_read[3]["at"] == "2026-03-01T12:00:00.000003Z"
    at = 1_772_366_400_000_000
    assert [row | {"at": at + n} for n, row in enumerate(rows_read)] == expected(200)


def test_csv_reads_back_unchanged() -> None:
    rows_read = list(csv.DictReader(io.StringIO(write("csv", [200]).decode(), newline="")))
    assert rows_read[0].keys() == set(OUTPUT_SCHEMA.names)
    for row, verdict in zip(rows_read, expected(200), strict=True):
        assert row.pop("at").endswith("Z")
        verdict.pop("at")
        for name, value in verdict.items():
            as_json = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            assert row[name] == ("" if value is None else value if isinstance(value, str) else as_json), name


@pytest.mark.parametrize("form", ["parquet", "csv", "ndjson"])
def test_a_file_without_rows_is_readable(form: OutFormat) -> None:
    body = write(form, [])
    if form == "parquet":
        assert pq.read_table(io.BytesIO(body)).num_rows == 0
    else:
        assert body == (b",".join(name.encode() for name in OUTPUT_SCHEMA.names) + b"\n" if form == "csv" else b"")
