"""The same rows in every shape of a text: signs between cells, encodings, packings, and options that name a shape."""

import bz2
import codecs
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ledger.errors import BadRecord
from projections.audit.reading.fields import ColumnMapping
from projections.audit.reading.files import log_files
from projections.audit.reading.logs import LogReader
from projections.audit.reading.shape import ANY_SHAPE, LogShape
from tests.audit.io.reading import NOON, read_fast, rows_of
from tests.audit.io.test_spreadsheets import workbook

ROWS = [{"at": NOON, "org_id": f"o{n}", "prompt": 'a;b|c\td, "e"\nf'} for n in range(40)]
PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: bytes(pa.compress(data, "zstd", asbytes=True)),
}


def csv_text(sign: str, rows: list[dict[str, Any]] = ROWS, ending: str = "\n") -> str:
    lines = [sign.join(rows[0])]
    lines += [sign.join(f'"{str(cell).replace(chr(34), chr(34) * 2)}"' for cell in row.values()) for row in rows]
    return ending.join(lines) + ending


def orgs(body: bytes, shape: LogShape = ANY_SHAPE, mapping: ColumnMapping = ColumnMapping()) -> list[Any]:  # noqa: B008
    both = [
        [fault or record.org_id for _, record, fault in read_fast(body, mapping, 1 << 16, strict_bytes, shape)[0]]
        for strict_bytes in (0, 1 << 40)
    ]
    assert both[0] == both[1]
    return both[0]


EXPECTED = [f"o{n}" for n in range(40)]


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_a_csv_is_read_with_any_sign_and_encoding(sign: str, ending: str, encoding: str) -> None:
    body = csv_text(sign, ending=ending).encode(encoding)
    assert orgs(codecs.BOM_UTF16_BE + body if encoding == "utf-16-be" else body) == EXPECTED


def test_the_sign_is_the_one_that_gives_the_columns_that_are_read() -> None:
    mapping = ColumnMapping({"org_id": "who, exactly", "at": "when"})
    assert orgs(f"when;who, exactly;x,y,z\n{NOON};acme;1,2,3\n".encode(), mapping=mapping) == ["acme"]
    assert orgs(
        f"when,who;x|y\n{NOON},acme\n".encode(), mapping=ColumnMapping({"org_id": "who;x|y", "at": "when"})
    ) == ["acme"]


def test_the_sign_can_be_named() -> None:
    body = f"at#org_id,x\n{NOON}#acme\n".encode()
    assert orgs(body, LogShape(delimiter="#"), ColumnMapping({"org_id": "org_id,x"})) == ["acme"]
    for bad in ("", "ab", '"', "\n", "é"):
        with pytest.raises(BadRecord, match="one ASCII character"):
            LogShape(delimiter=bad).check()


def test_half_a_surrogate_pair_in_utf16_costs_its_own_row_only() -> None:
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS[:2]) + "\n"
    body = "\ufeff" + text + text.replace("o0", "\ud800")
    assert [row[:2] for row in orgs(body.encode("utf-16-le", "surrogatepass"))] == ["o0", "o1", "th", "o1"]
    with pytest.raises(BadRecord, match="text in UTF-16 data, in line 3, ends too early"):
        orgs(("\ufeff" + text).encode("utf-16-le") + b"x")


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("form", ["jsonl", "csv", "json", "parquet"])
def test_every_form_may_be_packed_in_every_way(
    form: str, packing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), "plain")
        body = Path("plain").read_bytes()
    else:
        texts = {"jsonl": "\n".join(map(json.dumps, ROWS)), "csv": csv_text(";"), "json": json.dumps(ROWS, indent=1)}
        body = texts[form].encode()
    Path("logs").mkdir()
    Path(f"logs/a.{form}{packing}").write_bytes(PACKINGS[packing](body))
    logs = LogReader(log_files(["logs"], ColumnMapping()))
    assert [record.org_id for _, record, _ in rows_of(list(logs))] == EXPECTED


def test_a_first_line_of_any_size_makes_json_lines_no_csv() -> None:
    first = json.dumps({"prompt": "x" * 3_000_000} | ROWS[0])
    assert orgs(f"{first}\n{json.dumps(ROWS[1])}\n".encode()) == ["o0", "o1"]


def test_a_shape_is_named_by_the_options_that_make_it() -> None:
    shape = LogShape("json", 1000, ";", "a.b", "June")
    assert shape.arguments() == [
        "--log-format=json",
        "--max-row-bytes=1000",
        "--delimiter=;",
        "--rows=a.b",
        "--sheet=June",
    ]
    assert ANY_SHAPE.arguments() == []
    with pytest.raises(BadRecord, match="names with dots between them"):
        LogShape(rows="a..b").check()


MEANINGLESS = {
    "--rows": (LogShape(rows="data"), {"csv": "CSV", "parquet": "Parquet", "xlsx": "a spreadsheet"}),
    "--sheet": (LogShape(sheet="a"), {"csv": "CSV", "parquet": "Parquet", "jsonl": "JSON Lines", "json": "JSON"}),
    "--delimiter": (LogShape(delimiter=","), {"parquet": "Parquet", "xlsx": "a spreadsheet", "jsonl": "JSON Lines"}),
}


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """a.csv, a.jsonl, a.json, a.parquet and a.xlsx, of one row each, and their packed copies."""
    monkeypatch.chdir(tmp_path)
    row = {"at": NOON, "org_id": "acme"}
    Path("a.csv").write_text(csv_text(",", [row]))
    Path("a.jsonl").write_text(json.dumps(row))
    Path("a.json").write_text(json.dumps([row]))
    pq.write_table(pa.Table.from_pylist([row]), "a.parquet")
    Path("a.xlsx").write_bytes(workbook({"a": [list(row), list(row.values())]}).getvalue())
    for file in list(tmp_path.iterdir()):
        Path(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    return tmp_path


@pytest.mark.parametrize("packing", ["", ".gz"])
@pytest.mark.parametrize("option", MEANINGLESS)
def test_an_option_that_means_nothing_for_any_log_is_an_error(option: str, packing: str, logs: Path) -> None:
    shape, forms = MEANINGLESS[option]
    for form, words in forms.items():
        name = f"a.{form}{packing}"
        reader = LogReader(log_files([name], ColumnMapping()), shape)
        with pytest.raises(BadRecord, match=f"^{name}: this is {words}, for which {option} means nothing; leave"):
            list(reader)
    reader = LogReader(log_files(["a.csv", "a.csv.gz"], ColumnMapping()), LogShape(sheet="a"))
    with pytest.raises(BadRecord, match=r"^a\.csv and 1 more: this is CSV, for which --sheet"):
        list(reader)


def test_an_option_that_means_something_for_one_log_of_several_is_a_warning_about_the_others(logs: Path) -> None:
    names = ["a.csv", "a.jsonl", "a.parquet", "a.xlsx", "a.xlsx.gz"]
    reader = LogReader(log_files(names, ColumnMapping()), LogShape(sheet="a"))
    assert sum(len(batch.lines) for batch in reader) == 5
    assert reader.warnings == [
        "a.csv: this is CSV, for which --sheet means nothing",
        "a.jsonl: this is JSON Lines, for which --sheet means nothing",
        "a.parquet: this is Parquet, for which --sheet means nothing",
    ]
    Path("empty").write_text("\n")
    assert list(LogReader(log_files(["empty"], ColumnMapping()), LogShape(sheet="a", rows="b", delimiter=","))) == []
