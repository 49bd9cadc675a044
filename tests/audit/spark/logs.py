"""Rows of REQUESTS as the rows of a log, and logs in every form."""

import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ledger.times import format_time
from projections.audit.reading.layout import Forms, make_layout
from projections.audit.reading.shape import ANY_SHAPE
from projections.audit.schemas import OBSERVED
from tests.audit.strategies import batch_of

NO_LAYOUT = make_layout({}, {}, Forms(), ANY_SHAPE)


def log_table(batch: pa.RecordBatch) -> pa.Table:
    """The batch with the column names of a log."""
    names = [f"handling.{name}" if name in OBSERVED else name for name in batch.schema.names]
    return pa.table(batch.columns, names=names)


def log_line(row: dict[str, Any]) -> dict[str, Any]:
    """The row as the value of a JSON line."""
    handling = {name: value for name, value in row.items() if name in OBSERVED and value is not None}
    rest = {name: value for name, value in row.items() if name not in OBSERVED}
    return rest | {"at": format_time(row["at"])} | ({"handling": handling} if handling else {})


def write_mixed_logs(folder: Path, drawn: list[dict[str, Any]]) -> None:
    """Writes `drawn`, and what no reader may stumble on, in every form: Parquet in small groups and with every unit of
    time, JSON Lines with unreadable lines, packed with and without the suffix, and CSV with cells of several lines."""
    table = log_table(batch_of(drawn))
    pq.write_table(table, folder / "a.parquet", row_group_size=150)
    few = table.slice(0, 40)
    at = few.schema.get_field_index("at")
    position = few.schema.get_field_index("enforced_position")
    unsigned = few.column(position).cast(pa.uint64())
    for unit in ("ms", "us", "ns"):
        kind = pa.timestamp(unit, "UTC")
        other = few.set_column(at, "at", few.column("at").cast(kind, safe=False))
        pq.write_table(other.set_column(position, "enforced_position", unsigned), folder / f"{unit}.parquet")
    local = few.set_column(at, "at", few.column("at").cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us")))
    pq.write_table(local, folder / "local.parquet")
    pq.write_table(local, folder / "int96.parquet", use_deprecated_int96_timestamps=True)
    texts = few.set_column(at, "at", pa.array([format_time(row["at"]) for row in drawn[:40]]))
    pq.write_table(texts.append_column("project_id2", pa.nulls(40)).drop(["project_id2"]), folder / "texts.parquet")
    handling = few.select(["at", "org_id", "account_id"])
    done = [{"stored": row.get("stored")} if number % 3 else None for number, row in enumerate(drawn[:40])]
    pq.write_table(handling.append_column("handling", pa.array(done)), folder / "groups.parquet")
    lines = [json.dumps(log_line(row)).encode() for row in drawn[::7]]
    lines[3:3] = [b"", b"nonsense", b"\xff\xfe", b'{"at": "2026-03-01T12:00:00", "org_id": "acme"}\r']
    (folder / "b.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines))
    # Few long lines rather than many: in batches of one row, each line costs some ms.
    (folder / "long.jsonl").write_bytes(b"\n".join(line + b" " * 300 for line in lines * 2))
    packed = gzip.compress(b"\n".join(lines) + b"\n")
    # Some writers pad the last block.
    (folder / "c.jsonl.gz").write_bytes(packed + bytes(100))
    (folder / "no suffix.jsonl").write_bytes(packed)
    (folder / "plain.jsonl.gz").write_bytes(b"\n".join(lines))
    (folder / "z.jsonl.zst").write_bytes(pa.compress(b"\n".join(lines), "zstd", asbytes=True))
    cells = '2026-03-01T12:00:01Z,acme,"e\nu"\n2026-03-01T12:00:01Z,,eu\n'
    (folder / "d.csv").write_text(f"at,org_id,handling.region\n{cells}")
    (folder / "e.csv").write_text("\nat,org_id\n2026-03-01T12:00:01Z,beta\nx,acme\n")
    name = "n" * 250
    (folder / "long.csv").write_text(
        "at,org_id,request_id\n" + f"2026-03-01T12:00:01Z,beta,{name}\nx,acme,{name}\n" * 90
    )
    # A quote amid a cell is a letter, and the one after it opens a cell that goes on in the next line.
    (folder / "open.csv").write_text(
        "at,org_id,request_id,handling.revision\n"
        + f'2026-03-01T12:00:01Z,beta,{name}","open\n2026-03-01T12:00:01Z,no,row,x"\n' * 90
    )
    (folder / "signs.csv").write_text('at;org_id\n2026-03-01T12:00:01Z;beta\n2026-03-01T12:00:01Z;"a,b"\n')
    objects = [json.loads(line) for line in lines[:2]]
    (folder / "list.json").write_text(json.dumps(objects, indent=1))
    (folder / "objects.json").write_text("\n".join(json.dumps(one, indent=1) for one in objects))
    (folder / "p.jsonl.bz2").write_bytes(bz2.compress(b"\n".join(lines)))
    (folder / "wide.csv").write_bytes("at,org_id\n2026-03-01T12:00:01Z,beta\n".encode("utf-16"))
    below = folder / "org_id=acme"
    below.mkdir()
    (below / "f.csv").write_text("at\n2026-03-01T12:00:01Z\n")
