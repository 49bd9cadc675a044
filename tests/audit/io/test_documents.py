"""Rows of JSON documents are the rows that Python's own reader finds in the whole text."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from ledger.errors import BadRecord
from projections.audit.reading import documents
from projections.audit.reading.fields import ColumnMapping
from projections.audit.reading.files import log_files
from projections.audit.reading.logs import LogReader
from projections.audit.reading.shape import LogShape
from tests.audit.io.reading import NOON, read_fast

NO_MAPPING = ColumnMapping()
ROW = {"at": NOON, "org_id": "a"}


def read(body: str, shape: LogShape = LogShape(), block_bytes: int = 1 << 16) -> list[tuple[int, Any, Any]]:  # noqa: B008
    rows, _ = read_fast(body.encode(), NO_MAPPING, block_bytes, shape=shape)
    return [(number, record and record.org_id, fault) for number, record, fault in rows]


def random_row(chance: random.Random, number: int) -> dict[str, Any]:
    row: dict[str, Any] = {"at": NOON, "org_id": f"o{number}"}
    for name in chance.sample(["prompt", "usage", "tags"], chance.randrange(4)):
        row[name] = chance.choice(
            [None, 1.5, 'a "quoted" \\ {text} [with], brackets\n', {"a": [{"b": {}}, []]}, ["x", ["]"]], "é" * 50, {}]
        )
    return row


@pytest.mark.parametrize("indent", [None, 0, 1])
@pytest.mark.parametrize("form", ["list", "objects", "envelope", "deep envelope", "lines of envelopes"])
def test_every_row_of_a_document_is_read_once_and_in_order(form: str, indent: int | None) -> None:
    for seed in range(6):
        chance = random.Random(seed)
        rows = [random_row(chance, number) for number in range(chance.choice([0, 1, 2, 40]))]
        shape = LogShape()
        if form == "list":
            body = json.dumps(rows, indent=indent)
        elif form == "objects":
            body = "\n".join(json.dumps(row, indent=indent) for row in rows)
        elif form == "envelope":
            body = json.dumps({"next": [{"x": 1}], "records": rows, "more": {"records": 1}}, indent=indent)
            shape = LogShape(rows="records")
        elif form == "deep envelope":
            body = json.dumps({"data": {"a": "}", "rows": rows}, "z": [[]]}, indent=indent, ensure_ascii=False)
            shape = LogShape(rows="data.rows")
        else:
            body = "\n".join(json.dumps({"records": [row]}, indent=indent) for row in rows)
            shape = LogShape(rows="records")
        for block_bytes in (16, 77, 1 << 16):
            expected = [(number, f"o{number - 1}", None) for number in range(1, len(rows) + 1)]
            assert read(body, shape, block_bytes) == expected, (form, indent, seed)


def test_a_broken_row_costs_no_other_row() -> None:
    good = json.dumps(ROW)
    body = f'[{good},\n {{"at": NaN}}, 7, "text", {{"at"}},\n{good}, {{"a":"broken\n}}, {good}]'
    rows = read(body)
    assert [number for number, _, fault in rows if fault is None] == [1, 6, 8]
    assert [number for number, _, _ in rows] == list(range(1, 9))
    assert rows[4][2].endswith("the row begins in line 2")
    assert "at line 2 column" in rows[4][2]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (f"[{json.dumps(ROW)},", "has a comma at its end, or does not end, in line"),
        (f"[{json.dumps(ROW)}", "the list of rows does not end"),
        (f'[{json.dumps(ROW)},\n{{"at":', "which begins in line 2, does not end: the log was cut off"),
        (f"[{json.dumps(ROW)} {json.dumps(ROW)}]", "a comma between two rows is missing"),
        (f"[{json.dumps(ROW)},]", "has a comma at its end"),
    ],
)
def test_a_list_that_is_cut_off_or_no_list_is_a_fault_and_keeps_its_rows(body: str, fault: str) -> None:
    rows = read(body)
    assert rows[0] == (1, "a", None)
    assert fault in next(row[2] for row in rows if row[2] is not None)


def test_an_envelope_without_its_list_is_a_fault() -> None:
    shape = LogShape(rows="records")
    for body in ('{"records":{}}', '{"records":7,"records":[]}', '{"x":1}\n{"records":[]}'):
        assert [fault is not None for _, _, fault in read(body, shape)][:1] == [True], body


@pytest.mark.parametrize("path", ["records", "data.rows"])
@pytest.mark.parametrize("block_bytes", [3, 1 << 16])
def test_a_path_that_nothing_in_the_log_has_is_an_error_and_no_fault_a_row(path: str, block_bytes: int) -> None:
    lines = "\n".join([json.dumps(ROW)] * 40)
    for body in ('{"rows":[]}', "[1]", '{"records', lines, '{"at":"broken\n' + lines, '{"at":\n' + lines):
        with pytest.raises(BadRecord, match=rf"a.log: no object of the log has the list of rows {path}, which --rows"):
            read(body, LogShape(rows=path), block_bytes)
    assert read("", LogShape(rows=path)) == read(" \n", LogShape(rows=path)) == []


@pytest.mark.parametrize("block_bytes", [3, 50, 1 << 16])
@pytest.mark.parametrize(
    "broken",
    [
        '{"records',
        '{"records"',
        '{"data',
        '{"data"',
        '{"x":1,nonsense:2}',
        '{"at":"o',
        '{"x":1',
        "{",
        '{"x',
    ],
)
def test_an_envelope_that_is_no_json_costs_one_fault_and_no_row_of_the_next_line(broken: str, block_bytes: int) -> None:
    row = json.dumps(ROW)
    envelopes = {"records": f'{{"records":[{row},{row}]}}', "data.rows": f'{{"data":{{"rows":[{row},{row}]}}}}'}
    for path, envelope in envelopes.items():
        read_rows = read(f"{envelope}\n{broken}\n{envelope}\n{envelope}", LogShape(rows=path), block_bytes)
        assert [org for _, org, _ in read_rows] == ["a", "a", None, "a", "a", "a", "a"], path
        assert "in line 2" in str(read_rows[2][2])


@pytest.mark.parametrize("big", ["x" * 5000, [[1]] * 2000, {"a": "y" * 5000}])
def test_a_row_that_is_too_large_is_one_reject(big: Any) -> None:
    body = json.dumps([ROW, ROW | {"prompt": big}, ROW])
    for block_bytes in (16, 300, 1 << 16):
        rows = read(body, LogShape(row_bytes_max=1000), block_bytes)
        assert [(number, fault is None) for number, _, fault in rows] == [(1, True), (2, False), (3, True)]


def test_a_broken_first_line_does_not_make_json_lines_a_document() -> None:
    good = json.dumps(ROW)
    for first in ('{"at":"broken', '{"at":"x",', '{"a":{"b":1}', "{"):
        rows = read(f"{first}\n{good}\n{good}\n")
        assert [(number, org) for number, org, _ in rows] == [(1, None), (2, "a"), (3, "a")], first


def test_an_envelope_that_is_cut_off_is_one_fault_and_keeps_its_rows() -> None:
    row = json.dumps(ROW)
    for rows, body in (
        ("records", f'{{"records":[{row}]'),
        ("records", f'{{"records":[{row}],"next":1,'),
        ("data.records", f'{{"data":{{"records":[{row}]'),
        ("data.records", f'{{"data":{{"records":[{row}'),
    ):
        read_rows = read(body, LogShape(rows=rows))
        assert read_rows[0] == (1, "a", None), body
        assert [fault is not None for _, _, fault in read_rows] == [False, True], body
        assert "does not end" in read_rows[1][2]


def test_newlines_are_counted_once_however_many_rows_a_block_has(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = 0

    class Counting(bytes):
        def count(self, *arguments: Any) -> int:
            nonlocal counted
            _, start, end = arguments
            counted += end - start
            return super().count(*arguments)

    class Cursor(documents._Cursor):
        def _more(self) -> bool:
            is_more = super()._more()
            self._data = Counting(self._data)
            return is_more

    monkeypatch.setattr(documents, "_Cursor", Cursor)
    body = json.dumps([ROW] * 500, indent=1) + "x"
    rows = read(body)
    assert len(rows) == 501
    assert rows[-1][2].endswith(f"the row begins in line {body.count(chr(10)) + 1}")
    assert counted <= len(body) + 1


def test_the_columns_of_a_document_are_noted_as_those_of_lines_are(tmp_path: Path) -> None:
    rows = [{"at": NOON, "key_id": "k", "OrgId": "a"}, {"at": NOON, "org_id": "a"}]
    mapped = ColumnMapping(columns={"account_id": "nowhere"})
    for body, shape in (
        ("\n".join(map(json.dumps, [*rows, rows[0]])) + "\n", LogShape()),
        (json.dumps(rows), LogShape()),
        ("\n".join(json.dumps(row, indent=1) for row in rows), LogShape()),
        (json.dumps({"records": rows}), LogShape(rows="records")),
    ):
        log = tmp_path / "log.json"
        log.write_text(body)
        reader = LogReader(log_files([str(log)], NO_MAPPING), shape)
        list(reader)
        assert reader.warnings == [f"{log}: 1 column was ignored: OrgId"], body
        with pytest.raises(BadRecord, match="no row has nowhere, which was named for account_id"):
            list(LogReader(log_files([str(log)], mapped), shape))


@pytest.mark.parametrize("row", [{"timestamp": NOON, "org": "a"}, {"source": "x", "line": 1, "verdict": "denied"}])
def test_a_list_that_is_no_log_is_refused(row: dict[str, Any], tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    log.write_text(json.dumps([row]))
    with pytest.raises(BadRecord, match=r"perhaps with --map at=timestamp --map org_id=org|verdicts of an earlier"):
        list(LogReader(log_files([str(log)], NO_MAPPING)))
