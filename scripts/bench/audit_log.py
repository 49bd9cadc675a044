"""Generates large request logs over the subjects of a generated ledger, as Parquet or JSON Lines.

The same seed and count give the same requests in both formats. Of 20 requests, 14 name a key, 3 an account, 2 an
organization and 1 a project; the ledger does not know a few of them. 9 of 10 observe a handling, and some name the
position that the gateway enforced. They are in the order of their times, as in real logs, within the ledger's last
year.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from projections.audit.schemas import REQUESTS
from projections.decisions.model import AS_SERVED
from scripts.bench.population import MODELS, Population
from scripts.bench.requests import YEAR
from scripts.cli.files import progress

_BATCH_ROWS: Final = 250_000
_REGIONS: Final = ("eu-west", "us-east", "us-west", "ap-south")
_UNKNOWN: Final = 0.002
HANDLING: Final = ("stored", "cached", "trained", "forwarded_to", "region", "network")
LOGGED: Final = pa.schema([field for field in REQUESTS if field.name not in AS_SERVED])
"""The columns of a log that does not say how models were served."""


def write_log(path: Path, count: int, population: Population) -> None:
    """Writes `count` requests in the format of the file's ending: .parquet or .jsonl."""
    schema = pa.schema([field.with_name(_field_name(field.name)) for field in LOGGED])
    with progress(f"generating {path.name}", count) as tell, path.open("wb") as file:
        writer = pq.ParquetWriter(file, schema, compression="zstd") if path.suffix == ".parquet" else None
        written = 0
        for batch in _batches(count, population):
            if writer is None:
                file.write(_bytes(_json_lines(batch)))
            else:
                writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
            written += batch.num_rows
            tell(written, "")
        if writer is not None:
            writer.close()


def _field_name(name: str) -> str:
    return f"handling.{name}" if name in HANDLING else name


def _batches(count: int, population: Population) -> Iterator[pa.RecordBatch]:
    rng = np.random.default_rng(1)
    begin, end = YEAR
    for first in range(0, count, _BATCH_ROWS):
        rows = min(_BATCH_ROWS, count - first)
        # Each batch has its own part of the year, in order.
        low, high = (begin + (end - begin) * row // count for row in (first, first + rows))
        yield _batch(rng, first, np.sort(rng.integers(low, high, rows)), population)


def _batch(rng: np.random.Generator, first: int, at: np.ndarray[Any, Any], population: Population) -> pa.RecordBatch:
    rows = len(at)
    subject = rng.integers(0, 20, rows)
    observed = rng.random(rows) < 0.9
    families = population.families
    ids = {
        "key_id": (subject < 14, "k", families),
        "account_id": ((subject >= 14) & (subject < 17), "u", 6 * families),
        "org_id": ((subject >= 17) & (subject < 19), "o", 2 * families),
        "project_id": (subject == 19, "p", families),
        "model_id": (rng.random(rows) < 0.97, "m", MODELS),
    }
    columns: dict[str, pa.Array] = {
        "request_id": _ids("req-", np.arange(first, first + rows), np.ones(rows, bool)),
        "at": pa.array(at, pa.timestamp("us", tz="UTC")),
    }
    for name, (present, prefix, known) in ids.items():
        numbers = rng.integers(0, known, rows)
        numbers[rng.random(rows) < _UNKNOWN] += known
        columns[name] = _ids(prefix, numbers, present)
    enforced = rng.random(rows) < 0.05
    columns["enforced_position"] = pa.array(rng.integers(0, population.events + 1, rows), mask=~enforced)
    for name, share in (("stored", 0.3), ("cached", 0.5), ("trained", 0.05)):
        columns[name] = pa.array(rng.random(rows) < share, mask=~observed)
    receivers = pa.array([f"provider-{number}" for number in range(7)])
    columns["forwarded_to"] = _choose(receivers, rng.integers(0, 7, rows), observed & (rng.random(rows) < 0.1))
    columns["region"] = _choose(pa.array(_REGIONS), rng.integers(0, len(_REGIONS), rows), observed)
    networks = (rng.random(rows) < 0.1).astype(np.int64)
    columns["network"] = _choose(pa.array(["public", "private"]), networks, observed)
    return pa.RecordBatch.from_pydict(columns, schema=LOGGED)


def _ids(prefix: str, numbers: np.ndarray[Any, Any], present: np.ndarray[Any, Any]) -> pa.Array:
    texts = pc.binary_join_element_wise(prefix, pc.cast(pa.array(numbers), pa.string()), "")
    return pc.if_else(pa.array(present), texts, pa.scalar(None, pa.string()))


def _choose(values: pa.Array, indices: np.ndarray[Any, Any], present: np.ndarray[Any, Any]) -> pa.Array:
    return values.take(pa.array(indices, mask=~present))


def _json_lines(batch: pa.RecordBatch) -> pa.Array:
    handling = _members(batch, HANDLING)
    inner = pc.if_else(pc.equal(handling, ""), "", pc.binary_join_element_wise(',"handling":{', handling, "}", ""))
    top = _members(batch, [name for name in LOGGED.names if name not in HANDLING])
    return pc.binary_join_element_wise("{", top, inner, "}\n", "")


def _members(batch: pa.RecordBatch, names: Sequence[str]) -> pa.Array:
    # The empty first member: with null_handling="skip" Arrow drops rows in which all members are null.
    members = [_member(batch, name) for name in names]
    return pc.utf8_ltrim(pc.binary_join_element_wise("", *members, ",", null_handling="skip"), ",")


def _member(batch: pa.RecordBatch, name: str) -> pa.Array:
    column = batch.column(name)
    if pa.types.is_timestamp(column.type):
        text = pc.strftime(column, format="%Y-%m-%dT%H:%M:%SZ")
    else:
        text = column.cast(pa.string())
    quote = "" if pa.types.is_boolean(column.type) or pa.types.is_integer(column.type) else '"'
    return pc.binary_join_element_wise(f'"{name}":{quote}', text, quote, "")


def _bytes(lines: pa.Array) -> bytes:
    offsets = np.frombuffer(lines.buffers()[1], np.int32, len(lines) + 1, lines.offset * 4)
    return bytes(memoryview(lines.buffers()[2])[offsets[0] : offsets[-1]])
