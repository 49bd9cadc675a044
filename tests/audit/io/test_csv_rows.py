"""Where rows of CSV end: compared with a reader that looks at every byte, and with Python's own."""

import csv
import random

import pytest

from projections.audit.reading.csv_rows import DELIMITERS, RowSkipper, cells_of, is_blank, row_end
from projections.audit.reading.log_times import UnreadableValue
from tests.audit.io.reading import csv_rows

SIGNS = ['"', '""', ",", ";", "\t", "|", "\n", "\n", "a", "bc", "\r", " ", "é"]


@pytest.mark.parametrize("delimiter", DELIMITERS)
def test_a_row_ends_at_the_first_newline_outside_of_quotes(delimiter: str) -> None:
    chance = random.Random(4180)
    for _ in range(3000):
        text = ("".join(chance.choices(SIGNS, k=chance.randrange(25))) + "\n").encode()
        rows, start = [], 0
        while start < len(text):
            end = row_end(text, start, len(text), delimiter)
            if end is None or not is_blank(text[start:end], delimiter):
                rows.append((text[start:end], end is not None))
            start = len(text) if end is None else end + 1
        assert rows == [(row, closed) for _, row, closed in csv_rows(text, delimiter.encode())], text


def test_rows_that_python_writes_are_read_back_cell_by_cell() -> None:
    chance = random.Random(7)
    for _ in range(500):
        # A writer of lines that end in \n alone leaves a carriage return without quotes.
        ending = chance.choice(["\n", "\r\n"])
        signs = [sign for sign in SIGNS if sign != "\r" or ending == "\r\n"]
        cells = [["".join(chance.choices(signs, k=chance.randrange(6))) for _ in range(3)] for _ in range(4)]
        lines: list[str] = []

        class Lines:
            def write(self, line: str, into: list[str] = lines) -> None:
                into.append(line)

        delimiter = chance.choice(DELIMITERS)
        csv.writer(Lines(), delimiter=delimiter, lineterminator=ending).writerows(cells)
        text = "".join(lines).encode()
        start, rows = 0, []
        while start < len(text):
            end = row_end(text, start, len(text), delimiter)
            assert end is not None
            rows.append(cells_of(text[start:end], delimiter))
            start = end + 1
        assert rows == cells


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_row_is_skipped_to_its_end_however_its_bytes_are_cut(size: int) -> None:
    chance = random.Random(size)
    for _ in range(2000):
        text = ("".join(chance.choices(SIGNS, k=chance.randrange(40))) + "\n").encode()
        skipper, end = RowSkipper(","), None
        for at in range(0, len(text), size):
            piece = text[at : at + size]
            skipped = skipper.skip(piece, len(piece))
            if skipped is not None:
                end = at + skipped - 1
                break
        assert end == row_end(text, 0, len(text), ","), text


@pytest.mark.parametrize("delimiter", DELIMITERS)
@pytest.mark.parametrize(
    ("blank", "rows"),
    [
        (True, ["", " ", ",", ",,,", " , ,", '""', '"",""', ',"",', ",\r", '"","",\r\r', "\t\x0b\x0c"]),
        (False, ['"', '""""', '"" ', ' ""', '" "', ",a", '"",x', '""x', '"""",', '"",,"', "0", ",\xa0,"]),
    ],
)
def test_a_row_whose_cells_are_all_empty_is_blank(rows: list[str], blank: bool, delimiter: str) -> None:
    for row in rows:
        assert is_blank(row.replace(",", delimiter).encode(), delimiter) is blank, row


@pytest.mark.parametrize("row", [b"a\rb,c", b"a,\r\rb", b"\ra"])
def test_a_carriage_return_in_a_row_is_a_fault_and_cuts_nothing(row: bytes) -> None:
    with pytest.raises(UnreadableValue, match="a carriage return"):
        cells_of(row, ",")


def test_carriage_returns_at_the_end_of_a_row_are_white_space_and_others_in_quotes_are_kept() -> None:
    assert cells_of(b'a,"b\r\r\nc"\r\r', ",") == ["a", "b\r\r\nc"]


def test_a_cell_may_have_any_size() -> None:
    assert len(cells_of(b'"' + b"x" * 1_000_000 + b'",y', ",")[0]) == 1_000_000
