"""Rows of a sheet, from files as small as a writer may make them."""

import gzip
import io
import random
import zipfile
from contextlib import suppress
from datetime import UTC
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest

from ledger.errors import BadRecord
from ledger.times import parse_time
from projections.audit.reading import spreadsheets
from projections.audit.reading.fields import ColumnMapping
from projections.audit.reading.files import log_files
from projections.audit.reading.logs import LogReader
from projections.audit.reading.shape import ANY_SHAPE, LogShape
from projections.audit.reading.spreadsheets import read_rows
from projections.audit.reading.strict import RowParser
from tests.audit.io.reading import NOON

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def cell(place: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return f'<c r="{place}" t="b"><v>{int(value)}</v></c>'
    if isinstance(value, str):
        return f'<c r="{place}" t="inlineStr"><is><t>{escape(value)}</t></is></c>'
    style = ' s="1"' if isinstance(value, float) else ""
    return f'<c r="{place}"{style}><v>{value}</v></c>'


def workbook(sheets: dict[str, list[list[Any]]]) -> io.BytesIO:
    """Numbers of type float have the format of dates."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as parts:
        numbered = list(enumerate(sheets.items(), 1))
        parts.writestr(
            "[Content_Types].xml", '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>'
        )
        parts.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{RELATIONS}"><Relationship Id="r" Type="{OFFICE}/officeDocument" '
            'Target="xl/workbook.xml"/></Relationships>',
        )
        names = "".join(f'<sheet name="{name}" sheetId="{n}" r:id="s{n}"/>' for n, (name, _) in numbered)
        parts.writestr(
            "xl/workbook.xml", f'<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}"><sheets>{names}</sheets></workbook>'
        )
        targets = "".join(
            f'<Relationship Id="s{n}" Type="{OFFICE}/worksheet" Target="worksheets/sheet{n}.xml"/>' for n, _ in numbered
        )
        styles = f'<Relationship Id="st" Type="{OFFICE}/styles" Target="styles.xml"/>'
        parts.writestr(
            "xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{RELATIONS}">{targets}{styles}</Relationships>'
        )
        parts.writestr(
            "xl/styles.xml",
            f'<styleSheet xmlns="{MAIN}"><cellXfs><xf numFmtId="0"/><xf numFmtId="22"/></cellXfs></styleSheet>',
        )
        for n, (_, rows) in numbered:
            lines = [
                f'<row r="{r}">' + "".join(cell(f"{chr(65 + c)}{r}", value) for c, value in enumerate(row)) + "</row>"
                for r, row in enumerate(rows, 1)
            ]
            parts.writestr(
                f"xl/worksheets/sheet{n}.xml",
                f'<worksheet xmlns="{MAIN}"><sheetData>{"".join(lines)}</sheetData></worksheet>',
            )
    return file


HEADER = ["at", "org_id", "handling.stored", "account_id", "notes"]
ROWS: list[list[Any]] = [
    [],
    HEADER,
    ["2026-03-01T12:00:00Z", "acme", True, 17, "x"],
    [],
    [46082.5, "beta", None, None, None],
    ["nonsense", "acme", None, None, None],
]


def read(file: io.BytesIO, shape: LogShape = ANY_SHAPE) -> list[tuple[int, Any, str | None]]:
    parser = RowParser("a.xlsx", ColumnMapping(timezone=UTC), shape)
    return [(row.line, row.record, row.fault) for row in read_rows(file, parser)]


def test_a_row_of_a_sheet_is_a_record_and_its_number_is_the_sheets_own() -> None:
    first, second, third = read(workbook({"June": ROWS, "July": [HEADER]}))
    assert (first[0], first[1].org_id, first[1].account_id, first[1].handling.stored) == (3, "acme", "17", True)
    assert first[1].at == second[1].at == parse_time("2026-03-01T12:00:00Z")
    assert (second[0], second[1].org_id, second[1].handling) == (5, "beta", None)
    assert (third[0], third[1]) == (6, None)


def test_a_sheet_is_named_or_the_first() -> None:
    book = {"Notes": [["nothing"]], "June": ROWS}
    assert len(read(workbook(book), LogShape(sheet="June"))) == 3
    with pytest.raises(BadRecord, match="no column names a subject"):
        read(workbook(book))
    with pytest.raises(BadRecord, match="there is no sheet May; the sheets are Notes, June"):
        read(workbook(book), LogShape(sheet="May"))


def test_a_file_that_is_no_spreadsheet_or_damaged_is_an_error() -> None:
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as parts:
        parts.writestr("a.csv", "at,org_id\n")
    with pytest.raises(BadRecord, match=r"a zip file and no \.xlsx"):
        read(other)
    whole = workbook({"June": ROWS}).getvalue()
    for cut in (50, len(whole) // 2, len(whole) - 10):
        with pytest.raises(BadRecord, match="damaged or cut off"):
            read(io.BytesIO(whole[:cut]))
    flipped = bytearray(whole)
    flipped[whole.index(b"xl/worksheets/sheet1.xml") + 60] ^= 1
    with pytest.raises(BadRecord, match="damaged"):
        read(io.BytesIO(bytes(flipped)))


def test_a_sheet_that_would_not_fit_into_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    far = [*ROWS[:3], *[[]] * 100, [None] * 20 + ["far off"]]
    monkeypatch.setattr(spreadsheets, "CELLS_MAX", 1000)
    with pytest.raises(BadRecord, match="lie in 104 rows and 21 columns"):
        read(workbook({"June": far}))
    monkeypatch.setattr(spreadsheets, "BYTES_MAX", 1000)
    with pytest.raises(BadRecord, match="has more than 1000 bytes; save the sheet as CSV"):
        read(workbook({"June": ROWS}))


def test_sheets_are_logs_of_a_folder_packed_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    body = workbook({"June": ROWS}).getvalue()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/a.xlsx").write_bytes(body)
    (tmp_path / "logs/b.xlsx.gz").write_bytes(gzip.compress(body))
    logs = LogReader(log_files(["logs"], ColumnMapping(timezone=UTC)))
    batches = list(logs)
    assert [(batch.source, batch.lines.tolist(), len(batch.faults)) for batch in batches] == [
        ("logs/a.xlsx", [3, 5], 1),
        ("logs/b.xlsx.gz", [3, 5], 1),
    ]
    assert logs.bytes_read == logs.size


def test_a_sheet_with_damaged_bytes_is_refused_or_read_whole(tmp_path: Path) -> None:
    chance = random.Random(18)
    whole = workbook({"a": [["at", "org_id"], *([NOON, f"o{number}"] for number in range(20))]}).getvalue()
    log = tmp_path / "a.xlsx"
    for seed in range(400):
        damaged = bytearray(whole)
        # Half of the time within the table of contents at the end, where places in the file stand.
        first = len(whole) - 300 if seed % 2 else 4
        for _ in range(chance.randrange(1, 4)):
            damaged[chance.randrange(first, len(whole))] = chance.randrange(256)
        log.write_bytes(damaged)
        rows = 20
        for opened in (io.BytesIO(damaged), log.open("rb")):
            with suppress(BadRecord), opened as file:
                rows = len(list(read_rows(file, RowParser("a.xlsx", ColumnMapping()))))
            assert rows == 20, seed
