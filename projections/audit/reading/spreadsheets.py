"""Reads a sheet of an .xlsx file. Its first row that is not empty is the header, and a row's number is the sheet's own.

A cell means its text: a number without a fraction is a whole number, a date is a time without an offset. calamine
holds a whole sheet in memory, with room for all cells between the first and the last, so both are bounded before it
reads. Proved by tests/audit/io/test_spreadsheets.py.
"""

from __future__ import annotations

import errno
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any, BinaryIO, Final

from python_calamine import CalamineError, CalamineWorkbook, SheetTypeEnum

from ledger.errors import BadRecord
from projections.audit.reading.columns import shown
from projections.audit.reading.strict import CsvColumns, LogRow, RowParser

MAGIC: Final = b"PK\x03\x04"
BYTES_MAX: Final = 1 << 30
"""The most bytes of a file's parts, unpacked."""
CELLS_MAX: Final = 1 << 25
"""The most cells between a sheet's first and last: 33 million, of some 32 bytes each."""
_CHUNK: Final = 1 << 20
_REFERENCE: Final = re.compile(rb'\br="([A-Z]{1,3})([0-9]{1,7})"')
_OVERLAP: Final = 20
_ADVICE: Final = "save the sheet as CSV"
_DAMAGED: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
    OSError,
)
"""The errors of `zipfile` for damaged files. One that points before its own beginning is a ValueError in memory, and an
OSError with EINVAL on a disk."""


def read_rows(file: BinaryIO, parser: RowParser) -> Iterator[LogRow]:
    """The rows of a sheet, in order.

    Raises `BadRecord` for a damaged file, one that is no spreadsheet or too large, and a bad header.
    """
    _check_parts(file, parser.source)
    file.seek(0)
    try:
        workbook = CalamineWorkbook.from_filelike(file)
        sheets = [sheet.name for sheet in workbook.sheets_metadata if sheet.typ == SheetTypeEnum.WorkSheet]
        name = parser.shape.sheet if parser.shape.sheet is not None else next(iter(sheets), None)
        if name is None or name not in sheets:
            raise BadRecord(f"{parser.source}: there is no sheet {name}; the sheets are {shown(sheets)}")
        cells = workbook.get_sheet_by_name(name).to_python(skip_empty_area=False)
    except CalamineError:
        raise BadRecord(f"{parser.source}: the spreadsheet is damaged, or protected by a password") from None
    columns: CsvColumns | None = None
    for number, row in enumerate(cells, 1):
        texts = [_text(cell) for cell in row]
        if not any(texts):
            continue
        if columns is None:
            columns = parser.named_columns(f"{parser.source} row {number}", texts)
        else:
            yield parser.parse_cells(number, texts, columns)


def _check_parts(file: BinaryIO, source: str) -> None:
    """Reads all parts once. Raises `BadRecord`."""
    size = 0
    try:
        with zipfile.ZipFile(file) as parts:
            names = parts.namelist()
            if "xl/workbook.xml" not in names:
                raise BadRecord(f"{source}: this is a zip file and no .xlsx spreadsheet; unpack it first")
            for name in names:
                columns = rows = 0
                with parts.open(name) as part:
                    before = b""
                    while chunk := part.read(_CHUNK):
                        size += len(chunk)
                        if size > BYTES_MAX:
                            raise BadRecord(f"{source}: the spreadsheet has more than {BYTES_MAX} bytes; {_ADVICE}")
                        if name.startswith("xl/worksheets/"):
                            for letters, row in _REFERENCE.findall(before + chunk):
                                columns, rows = max(columns, _column(letters)), max(rows, int(row))
                            before = chunk[-_OVERLAP:]
                if columns * rows > CELLS_MAX:
                    raise BadRecord(
                        f"{source}: a sheet's cells lie in {rows} rows and {columns} columns, together more than "
                        f"{CELLS_MAX}; delete what lies far off, or {_ADVICE}"
                    )
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise BadRecord(f"{source}: the spreadsheet is damaged or cut off, or protected by a password") from None


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - 64
    return number


def _text(cell: Any) -> str:
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime):
        return cell.isoformat(" ")
    if isinstance(cell, date):
        return f"{cell.isoformat()} 00:00:00"
    if isinstance(cell, time | timedelta):
        return str(cell)
    return str(cell)
