"""All logs of an audit, one after the other: every byte is in the digest, every row in its place."""

import gzip
import hashlib
import io
import json
import os
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ledger.errors import BadRecord
from projections.audit.reading import text_logs
from projections.audit.reading.fields import NO_MAPPING, ColumnMapping
from projections.audit.reading.files import log_files
from projections.audit.reading.logs import LogReader
from projections.audit.reference import records
from tests.audit.io.reading import NOON


def line(number: int) -> bytes:
    return json.dumps({"at": NOON, "org_id": f"o{number}"}).encode() + b"\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def mixed(folder: Path) -> list[str]:
    (folder / "a.jsonl").write_bytes(b"".join(map(line, range(50))) + b"nonsense\n")
    (folder / "b.csv.gz").write_bytes(gzip.compress(f"at,org_id\n{NOON},o50\n{NOON},o51\n".encode()))
    pq.write_table(pa.table({"at": [NOON] * 30, "org_id": [f"o{number}" for number in range(52, 82)]}), "c.parquet")
    (folder / "d.jsonl.zst").write_bytes(pa.compress(line(82), "zstd", asbytes=True))
    return ["a.jsonl", "b.csv.gz", "c.parquet", "d.jsonl.zst"]


def orgs(logs: LogReader) -> list[str]:
    return [str(record.org_id) for batch in logs for record in records(batch.requests)]


@pytest.mark.parametrize(("block_bytes", "batch_rows"), [(64, 7), (1 << 23, 65_536)])
def test_rows_are_in_order_and_every_byte_is_in_the_digest(mixed: list[str], block_bytes: int, batch_rows: int) -> None:
    logs = LogReader(log_files(mixed, NO_MAPPING), block_bytes=block_bytes, batch_rows=batch_rows)
    assert orgs(logs) == [f"o{number}" for number in range(83)]
    together = b"".join(Path(name).read_bytes() for name in mixed)
    assert logs.digest == hashlib.sha256(together).hexdigest()
    assert [(source.name, source.bytes) for source in logs.sources] == [(n, Path(n).stat().st_size) for n in mixed]
    assert logs.bytes_read == logs.size == len(together)
    assert logs.warnings == []


def test_faults_name_their_log_and_line(mixed: list[str]) -> None:
    faults = [fault for batch in LogReader(log_files(mixed, NO_MAPPING)) for fault in batch.faults]
    assert [(fault.source, fault.line) for fault in faults] == [("a.jsonl", 51)]


@pytest.mark.parametrize("name", ["a.jsonl", "c.parquet"])
def test_standard_input_is_a_log_like_others(mixed: list[str], name: str) -> None:
    piped, into = os.pipe()

    def send() -> None:
        with open(into, "wb") as writing:
            writing.write(Path(name).read_bytes())

    sending = threading.Thread(target=send)
    sending.start()
    with open(piped, "rb", buffering=0) as stream:
        logs = LogReader(log_files(["-"], NO_MAPPING), stdin=lambda: stream)
        orgs_read = orgs(logs)
        sending.join()
        assert not stream.closed
    assert orgs_read == orgs(LogReader(log_files([name], NO_MAPPING)))
    assert logs.size is None
    assert logs.digest == hashlib.sha256(Path(name).read_bytes()).hexdigest()


class Growing(io.BytesIO):
    """Delivers a few bytes at a time, as a pipe does."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size or 1, 3) if size and size > 0 else 3)

    def readinto(self, buffer: Any) -> int:
        return super().readinto(memoryview(buffer)[:3])

    def seekable(self) -> bool:
        return False


@pytest.mark.parametrize("name", ["a.jsonl", "b.csv.gz", "c.parquet", "d.jsonl.zst"])
def test_it_does_not_matter_how_bytes_arrive(mixed: list[str], name: str) -> None:
    body = Path(name).read_bytes()
    logs = LogReader(log_files(["-"], NO_MAPPING), stdin=lambda: Growing(body))
    assert orgs(logs) == orgs(LogReader(log_files([name], NO_MAPPING)))
    assert logs.digest == hashlib.sha256(body).hexdigest()


def test_a_log_that_changes_while_it_is_read_is_an_error(folder: Path) -> None:
    (folder / "a.jsonl").write_bytes(b"".join(map(line, range(20))))
    reading = iter(LogReader(log_files(["a.jsonl"], NO_MAPPING), block_bytes=64))
    next(reading)
    with (folder / "a.jsonl").open("ab") as more:
        more.write(line(20))
    with pytest.raises(BadRecord, match="was changed while it was read"):
        list(reading)


@pytest.mark.parametrize("strict_bytes", [0, 1 << 20])
def test_a_mapped_column_on_no_row_is_an_error_and_one_that_a_log_lacks_a_warning(
    folder: Path, strict_bytes: int
) -> None:
    mapping = ColumnMapping({"model_id": "engine", "handling.cached": "hit"})
    (folder / "a.jsonl").write_bytes(line(1))
    logs = LogReader(log_files(["a.jsonl"], mapping), strict_bytes=strict_bytes)
    with pytest.raises(BadRecord, match="no row has engine, which was named for model_id; the columns are at"):
        list(logs)
    (folder / "b.jsonl").write_bytes(line(2)[:-2] + b',"engine":null,"hit":true}\n')
    logs = LogReader(log_files(["a.jsonl", "b.jsonl"], mapping), strict_bytes=strict_bytes)
    list(logs)
    assert logs.warnings == [
        "a.jsonl: no row has 2 columns that were named: engine for model_id, hit for handling.cached"
    ]


@pytest.mark.parametrize(("strict_bytes", "expected"), [(1000, [1000, 460, 0]), (203, [203, 0, 0]), (202, [0, 0, 0])])
def test_only_the_first_bytes_of_all_logs_are_read_strictly_and_none_of_large_ones(
    folder: Path, monkeypatch: pytest.MonkeyPatch, strict_bytes: int, expected: list[int]
) -> None:
    received: list[int] = []
    read = text_logs.read_batches

    def read_batches(blocks: Any, rows: Any, strict: int) -> Any:
        received.append(strict)
        return read(blocks, rows, strict)

    monkeypatch.setattr(text_logs, "read_batches", read_batches)
    names = ["a.jsonl", "b.jsonl", "c.jsonl"]
    for name in names:
        Path(name).write_bytes(line(1) * 10 + b"\n" * (540 - 10 * len(line(1))))
    logs = LogReader(log_files(names, NO_MAPPING), strict_bytes=strict_bytes)
    assert orgs(logs) == ["o1"] * 30
    assert logs.size == 3 * 540
    assert received == expected
