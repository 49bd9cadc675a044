"""The way that a cluster takes to the rows of a file, told by its first bytes. Needs no cluster."""

import gzip
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ledger.errors import BadRecord
from projections.audit.reading.fields import ColumnMapping
from projections.audit.reading.shape import LogShape
from projections.audit.spark import inputs
from projections.audit.spark.hadoop import Hadoop
from tests.audit.io.reading import NOON

ROW = json.dumps({"at": NOON, "org_id": "a"})
TABLE = f"at,org_id\n{NOON},a\n"


class LocalFiles:
    """The part of `Hadoop` that tells a file's form, over the files of this machine."""

    def exists(self, path: str) -> bool:
        return Path(path.removeprefix("file:")).exists()

    @contextmanager
    def reading(self, path: str) -> Iterator[BinaryIO]:
        with Path(path.removeprefix("file:")).open("rb") as file:
            yield file


def parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"at": [NOON], "org_id": ["a"]}), file)
    return file.getvalue()


def way(folder: Path, body: bytes, shape: LogShape) -> str:
    log = folder / "log.gz"
    log.write_bytes(gzip.compress(body))
    (one,) = inputs.find_inputs(cast(Hadoop, LocalFiles()), [str(log)], ColumnMapping(), shape)
    return one.way


@pytest.mark.parametrize(
    ("body", "shape", "has_lines"),
    [
        (f"{ROW}\n{ROW}\n".encode(), LogShape(), True),
        (f"\ufeff{ROW}\n{ROW}\n".encode(), LogShape(), True),
        (TABLE.encode(), LogShape(), True),
        (TABLE.replace(",", ";").encode(), LogShape(), False),
        (TABLE.encode("utf-16"), LogShape(), False),
        (f"[{ROW},\n{ROW}]\n".encode(), LogShape(), False),
        (f'{{"records":[{ROW}]}}\n'.encode(), LogShape(rows="records"), False),
        (parquet(), LogShape(), False),
    ],
)
def test_a_large_gzip_file_is_cut_into_lines_only_if_rows_are_lines(
    body: bytes, shape: Any, has_lines: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert way(tmp_path, body, shape) == "whole"
    monkeypatch.setattr(inputs, "WHOLE_BYTES_MAX", 10)
    if has_lines:
        assert way(tmp_path, body, shape) == "lines"
    else:
        with pytest.raises(BadRecord, match="of more than 10 bytes only if it holds JSON Lines or CSV with") as refused:
            way(tmp_path, body, shape)
        assert refused.value.detail.endswith("; unpack it, or audit it without --engine spark")
        assert "\n" not in refused.value.detail
