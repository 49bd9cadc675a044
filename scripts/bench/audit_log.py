"""Large request logs over a made ledger's people (see `population`), as Parquet, JSON Lines or CSV.

All of it follows from the seed: the same seed and count are the same requests in every format. Of 20 requests 14 name a
key, 3 an account, 2 an organization and 1 a project; a few are unknown to the ledger. Most were handled, some only
asked, some say which position the gateway enforced. They come in the order of their times, as logs do, in the last year
of the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from projections.audit.schemas import REQUESTS
from scripts.bench.requests import YEAR

Kind = str
BATCH_ROWS: Final = 250_000
_REGIONS: Final = ("eu-west", "us-east", "us-west", "ap-south")
_UNKNOWN: Final = 0.002


class People(NamedTuple):
    """How many of each kind the ledger has: `key:k0` … `org:o0` … `project:p0` … `account:u0` … `model:m0` …"""

    keys: int
    accounts: int
    orgs: int
    projects: int
    models: int
    events: int


def people(families: int, models: int, events: int) -> People:
    """The people of a made ledger of so many families of ten."""
    return People(families, 6 * families, 2 * families, families, models, events)


def batches(count: int, whom: People, seed: int = 1) -> Iterator[pa.RecordBatch]:
    """`count` requests as REQUESTS batches."""
    rng = np.random.default_rng(seed)
    begin, end = YEAR
    for first in range(0, count, BATCH_ROWS):
        rows = min(BATCH_ROWS, count - first)
        # Each batch has its own stretch of the year, in order.
        low, high = (begin + (end - begin) * place // count for place in (first, first + rows))
        yield _batch(rng, first, np.sort(rng.integers(low, high, rows)), whom)


def _batch(rng: np.random.Generator, first: int, at: np.ndarray[Any, Any], whom: People) -> pa.RecordBatch:
    rows = len(at)
    asked_by = rng.integers(0, 20, rows)
    observed = rng.random(rows) < 0.9
    ids = {
        "key_id": (asked_by < 14, "k", whom.keys),
        "account_id": ((asked_by >= 14) & (asked_by < 17), "u", whom.accounts),
        "org_id": ((asked_by >= 17) & (asked_by < 19), "o", whom.orgs),
        "project_id": (asked_by == 19, "p", whom.projects),
        "model_id": (rng.random(rows) < 0.97, "m", whom.models),
    }
    columns: dict[str, pa.Array] = {
        "request_id": _named("req-", np.arange(first, first + rows), np.ones(rows, bool)),
        "at": pa.array(at, pa.timestamp("us", tz="UTC")),
    }
    for name, (there, prefix, count) in ids.items():
        numbers = rng.integers(0, count, rows)
        numbers[rng.random(rows) < _UNKNOWN] += count
        columns[name] = _named(prefix, numbers, there)
    enforced = rng.random(rows) < 0.05
    columns["enforced_position"] = pa.array(rng.integers(0, whom.events + 1, rows), mask=~enforced)
    for name, share in (("stored", 0.3), ("cached", 0.5), ("trained", 0.05)):
        columns[name] = pa.array(rng.random(rows) < share, mask=~observed)
    receivers = pa.array([f"provider-{number}" for number in range(7)])
    columns["forwarded_to"] = _taken(receivers, rng.integers(0, 7, rows), observed & (rng.random(rows) < 0.1))
    columns["region"] = _taken(pa.array(_REGIONS), rng.integers(0, len(_REGIONS), rows), observed)
    networks = (rng.random(rows) < 0.1).astype(np.int64)
    columns["network"] = _taken(pa.array(["public", "private"]), networks, observed)
    return pa.RecordBatch.from_pydict(columns, schema=REQUESTS)


def _named(prefix: str, numbers: np.ndarray[Any, Any], there: np.ndarray[Any, Any]) -> pa.Array:
    texts = pc.binary_join_element_wise(prefix, pc.cast(pa.array(numbers), pa.string()), "")
    return pc.if_else(pa.array(there), texts, pa.scalar(None, pa.string()))


def _taken(values: pa.Array, places: np.ndarray[Any, Any], there: np.ndarray[Any, Any]) -> pa.Array:
    return values.take(pa.array(places, mask=~there))


def write(path: Path, count: int, whom: People, seed: int = 1, tell: Callable[[int], None] | None = None) -> None:
    """A log in the format that the name ends in: .parquet, .jsonl or .csv."""
    made = 0
    if path.suffix == ".parquet":
        names = [_field(name) for name in REQUESTS.names]
        schema = pa.schema([REQUESTS.field(at).with_name(name) for at, name in enumerate(names)])
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for batch in batches(count, whom, seed):
                writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
                made += batch.num_rows
                if tell is not None:
                    tell(made)
        return
    line = _json_lines if path.suffix == ".jsonl" else _csv_lines
    with path.open("wb") as file:
        if path.suffix == ".csv":
            file.write(",".join(map(_field, REQUESTS.names)).encode() + b"\n")
        for batch in batches(count, whom, seed):
            file.write(_joined(line(batch)))
            made += batch.num_rows
            if tell is not None:
                tell(made)


_HANDLING: Final = ("stored", "cached", "trained", "forwarded_to", "region", "network")


def _field(name: str) -> str:
    return f"handling.{name}" if name in _HANDLING else name


def _text(column: pa.Array) -> pa.Array:
    if pa.types.is_timestamp(column.type):
        return pc.strftime(column, format="%Y-%m-%dT%H:%M:%SZ")
    return column.cast(pa.string())


def _json_lines(batch: pa.RecordBatch) -> pa.Array:
    handling = _members(batch, _HANDLING)
    inner = pc.if_else(pc.equal(handling, ""), "", pc.binary_join_element_wise(',"handling":{', handling, "}", ""))
    top = _members(batch, [name for name in REQUESTS.names if name not in _HANDLING])
    return pc.binary_join_element_wise("{", top, inner, "}\n", "")


def _members(batch: pa.RecordBatch, names: Sequence[str]) -> pa.Array:
    # The empty first one: with null_handling="skip" Arrow leaves out rows in which everything is null.
    members = [_member(batch, name) for name in names]
    return pc.utf8_ltrim(pc.binary_join_element_wise("", *members, ",", null_handling="skip"), ",")


def _member(batch: pa.RecordBatch, name: str) -> pa.Array:
    column = batch.column(name)
    quote = "" if pa.types.is_boolean(column.type) or pa.types.is_integer(column.type) else '"'
    return pc.binary_join_element_wise(f'"{name}":{quote}', _text(column), quote, "")


def _csv_lines(batch: pa.RecordBatch) -> pa.Array:
    cells = [_text(column) for column in batch.columns]
    return pc.binary_join_element_wise(
        pc.binary_join_element_wise(*cells, ",", null_handling="replace", null_replacement=""), "\n", ""
    )


def _joined(lines: pa.Array) -> bytes:
    offsets = np.frombuffer(lines.buffers()[1], np.int32, len(lines) + 1, lines.offset * 4)
    return bytes(memoryview(lines.buffers()[2])[offsets[0] : offsets[-1]])
