"""Request logs to request records: every line gives one record, or one fault with its number."""

import gzip
import io
from datetime import UTC
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import BadRecord
from ledger.times import parse_time
from projections.audit.reading.blocks import LineBlocks
from projections.audit.reading.fields import ColumnMapping
from projections.audit.reading.shape import ANY_SHAPE, LogShape
from projections.audit.reading.strict import LogRow, RowParser
from projections.audit.reading.text_logs import read_batches
from projections.audit.reference import records
from projections.decisions.model import Observed, RequestRecord

AT = "2026-03-01T12:00:00Z"
AT_US = parse_time(AT)
NOON = '"at":"2026-03-01T12:00:00Z"'


def read(
    text: str | bytes, mapping: ColumnMapping | None = None, shape: LogShape = ANY_SHAPE
) -> tuple[list[LogRow], list[str]]:
    """(rows, mapped fields that no line had), all by the strict reader."""
    body = text.encode() if isinstance(text, str) else text
    parser = RowParser("a.log", mapping or ColumnMapping(), shape)
    blocks = LineBlocks(io.BytesIO(body), "a.log", 1 << 23, shape.row_bytes_max)
    batches = list(read_batches(blocks, parser, strict_bytes=1 << 40))
    rows_read = [row for batch in batches for row in batch.faults]
    for batch in batches:
        rows_read += [
            LogRow(batch.source, line, record, None)
            for line, record in zip(batch.lines.tolist(), records(batch.requests), strict=True)
        ]
    return sorted(rows_read, key=lambda row: row.line), parser.absent_fields


def rows(text: str | bytes, mapping: ColumnMapping | None = None, shape: LogShape = ANY_SHAPE) -> list[LogRow]:
    return read(text, mapping, shape)[0]


def only(text: str | bytes, mapping: ColumnMapping | None = None) -> RequestRecord:
    (row,) = rows(text, mapping)
    assert row.fault is None
    assert row.record is not None
    return row.record


def fault(text: str | bytes, mapping: ColumnMapping | None = None) -> str:
    (row,) = rows(text, mapping)
    assert row.record is None
    assert row.fault is not None
    return row.fault


def test_a_line_of_json_is_a_request_record() -> None:
    line = f'{{{NOON},"request_id":"r1","key_id":"k1","model_id":"m","handling":{{"stored":true,"region":"eu"}}}}'
    assert only(line) == RequestRecord(
        AT_US, key_id="k1", model_id="m", request_id="r1", handling=Observed(stored=True, region="eu")
    )


def test_a_row_of_csv_is_a_request_record_and_an_empty_cell_is_absent() -> None:
    text = (
        "request_id,at,key_id,org_id,enforced_position,handling.stored,handling.cached,handling.trained,"
        f"handling.network\nr1,{AT},k1,,42,TRUE,0,,public\n"
    )
    assert only(text) == RequestRecord(
        AT_US,
        key_id="k1",
        request_id="r1",
        enforced_position=42,
        handling=Observed(stored=True, cached=False, network="public"),
    )


def test_gzip_is_recognised_by_its_first_bytes_and_a_byte_order_mark_is_skipped() -> None:
    plain = f'{{{NOON},"org_id":"acme"}}\n'.encode()
    assert only(gzip.compress(b"\xef\xbb\xbf" + plain)) == only(plain) == RequestRecord(AT_US, org_id="acme")


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
@pytest.mark.parametrize("first", [True, False])
def test_a_row_whose_cells_are_all_empty_is_no_row_whatever_stands_between_them(sign: str, first: bool) -> None:
    empty = (sign * 3, f" {sign} {sign}{sign}\r", sign * 9, sign.join(['""'] * 4), f'""{sign}{sign}')
    some = [sign.join(cells) for cells in (["at", "org_id", "request_id", "x"], [AT, "a", "", ""], ["", "", "", "y"])]
    lines = [*(empty if first else ()), some[0], empty[0], some[1], *empty, some[2], *empty]
    read = rows("\n".join(lines), None)
    numbers = [number for number, line in enumerate(lines, 1) if line in some[1:]]
    assert [(row.line, row.record is not None) for row in read] == list(zip(numbers, (True, False), strict=True))


def test_lines_are_numbered_as_in_editors_and_blank_ones_are_no_rows() -> None:
    text = f'\r\n{{{NOON},"org_id":"a"}}\r\n\r\n  \r\nnonsense\r\n{{{NOON},"org_id":"b"}}'
    assert [(row.line, row.record is not None) for row in rows(text, None)] == [(2, True), (5, False), (6, True)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"org_id":"acme"}', "at is required"),
        (f"{{{NOON}}}", "is required"),
        ('{"at":"2026-03-01T12:00:00","org_id":"acme"}', "no time zone was given"),
        ('{"at":1772366400,"org_id":"acme"}', "must be a text, not a number"),
        (f'{{{NOON},"org_id":17}}', "an id is"),
        (f'{{{NOON},"org_id":"acme","handling":{{"storred":true}}}}', "does not belong here"),
        (f'{{{NOON},"org_id":"acme","org_id":"acme"}}', "twice"),
        (f'{{{NOON},"org_id":"acme","handling":{{"stored":1}}}}', "true or false"),
        (f'{{{NOON},"org_id":"acme","handling":{{"stored":NaN}}}}', "NaN"),
        (f'{{{NOON},"org_id":"acme"', "does not end"),
        ("[17723]", "must be an object"),
    ],
)
def test_a_fault_gives_the_reason_and_repeats_nothing_of_the_line(line: str, message: str) -> None:
    assert message in fault(line)
    assert "17723" not in fault(line)


def test_brackets_that_do_not_end_are_rejects_behind_the_rows_before_them() -> None:
    good = f'{{{NOON},"org_id":"acme"}}'
    first, *rest = rows(good + "[" * 50)
    assert (first.line, first.fault) == (1, None)
    assert rest
    assert all(row.record is None for row in rest)


def test_an_overlong_line_and_one_that_is_not_utf8_cost_no_other_line() -> None:
    good = f'{{{NOON},"org_id":"a"}}\n'.encode()
    text = good + b'{"x":"' + b"y" * 3000 + b'"}\n' + good + b'{"org_id":"\xff"}\n' + good
    assert [(row.line, row.fault is None) for row in rows(text, shape=LogShape(row_bytes_max=1000))] == [
        (1, True),
        (2, False),
        (3, True),
        (4, False),
        (5, True),
    ]


def test_truncated_or_damaged_gzip_data_is_an_error() -> None:
    packed = gzip.compress(f'{{{NOON},"org_id":"a"}}\n'.encode() * 1000)
    with pytest.raises(BadRecord, match="cut off"):
        rows(packed[:-20])
    with pytest.raises(BadRecord, match="damaged"):
        rows(packed[:30] + b"\x00" * 10 + packed[40:])


def test_columns_are_mapped_by_name_or_path_and_others_are_ignored() -> None:
    mapping = ColumnMapping({"request_id": "id", "account_id": "user.id", "handling.stored": "kept", "model_id": "a.b"})
    line = f'{{{NOON},"id":17,"user":{{"id":"u1"}},"kept":true,"a.b":"m","cost":0.1}}'
    assert only(line, mapping) == RequestRecord(
        AT_US, account_id="u1", model_id="m", request_id="17", handling=Observed(stored=True)
    )


def test_a_field_mapped_to_nothing_is_not_read_from_the_column_of_that_name() -> None:
    line = f'{{{NOON},"org_id":"a","model_id":"m","handling":{{"stored":true,"cached":true}}}}'
    mapping = ColumnMapping({"model_id": "", "handling.stored": ""})
    assert only(line, mapping) == RequestRecord(AT_US, org_id="a", handling=Observed(cached=True))


def test_a_constant_holds_for_lines_without_a_value() -> None:
    mapping = ColumnMapping({}, {"org_id": "acme", "handling.trained": "false"})
    given_org, absent_org = rows(f'{{{NOON},"org_id":"own"}}\n{{{NOON}}}', mapping)
    assert given_org.record == RequestRecord(AT_US, org_id="own", handling=Observed(trained=False))
    assert absent_org.record == RequestRecord(AT_US, org_id="acme", handling=Observed(trained=False))


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (ColumnMapping({"organisation": "org"}), "no such field"),
        (ColumnMapping({}, {"handling.kept": "true"}), "no such field"),
        (ColumnMapping({}, {"handling.stored": "yes"}), "true, false, 1 or 0"),
        (ColumnMapping({}, {"at": "2026-03-01T12:00:00"}), "no offset"),
        (ColumnMapping({}, {"org_id": "not an id"}), "an id is"),
        (ColumnMapping({}, {"org_id": ""}), "is empty"),
    ],
)
def test_an_invalid_mapping_is_an_error_before_the_first_line(mapping: ColumnMapping, message: str) -> None:
    with pytest.raises(BadRecord, match=message):
        RowParser("a.log", mapping)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,org_id\n", "no column holds the time of a request .at.; .* time, org_id; perhaps with --map at=time"),
        ("at,org\n", "no column names a subject .*; .* at, org; perhaps with --map org_id=org"),
        ("at,org_id,handling.storred\n", "handling.storred is no field of a request record"),
        ("at,at\n", "twice"),
        ('at,"org\n', "no column names a subject"),
        ("\xff\n".encode("latin-1"), "neither JSON nor the header"),
    ],
)
def test_an_invalid_header_is_an_error(text: str | bytes, message: str) -> None:
    with pytest.raises(BadRecord, match=message):
        rows(text)


def test_a_mapped_column_must_be_in_the_header() -> None:
    with pytest.raises(BadRecord, match="no column of the name given for model_id"):
        rows(f"at,org_id\n{AT},acme\n", ColumnMapping({"model_id": "model"}))


def test_a_mapped_column_that_no_json_line_has_is_reported() -> None:
    mapping = ColumnMapping({"handling.stored": "kept", "handling.cached": "hit", "org_id": "org_id"})
    read_rows, unseen = read(f'{{{NOON},"org_id":"a","hit":null}}', mapping)
    assert len(read_rows) == 1
    assert unseen == ["handling.stored"]


@pytest.mark.parametrize("cell", ["yes", "2", "t", "True ", "-1"])
def test_a_flag_in_csv_is_true_false_1_or_0_and_nothing_else(cell: str) -> None:
    assert "/handling/stored: true, false, 1 or 0" in fault(f"at,org_id,handling.stored\n{AT},acme,{cell}\n")


@pytest.mark.parametrize("cell", ["x", "-1", "1.0", "٣", "9" * 19])
def test_a_position_in_csv_is_a_whole_number(cell: str) -> None:
    assert "/enforced_position: a ledger position is a whole number" in fault(
        f"at,org_id,enforced_position\n{AT},acme,{cell}\n"
    )


@pytest.mark.parametrize(
    "written",
    ["2026-03-01 12:00:00Z", "2026-03-01 13:00:00+01", "2026-03-01T13:00:00+0100", "2026-03-01t12:00:00.0000000z"],
)
def test_the_usual_spellings_of_a_time_are_read(written: str) -> None:
    assert only(f"at,org_id\n{written},acme\n").at == AT_US


def test_a_time_without_an_offset_is_read_in_the_time_zone_of_the_log() -> None:
    naive = "at,org_id\n2023-11-16 18:15:46.6805907,acme\n"
    assert only(naive, ColumnMapping(timezone=UTC)).at == parse_time("2023-11-16T18:15:46.680590Z")
    assert only(naive, ColumnMapping(timezone=ZoneInfo("Asia/Kolkata"))).at == parse_time("2023-11-16T12:45:46.680590Z")
    line = '{"at":"2023-07-16T18:15:46","org_id":"acme"}'
    assert only(line, ColumnMapping(timezone=ZoneInfo("Europe/Berlin"))).at == parse_time("2023-07-16T16:15:46Z")


@pytest.mark.parametrize("local", ["2025-10-26T02:30:00", "2025-03-30T02:30:00"])
def test_a_local_time_that_came_twice_or_never_is_rejected(local: str) -> None:
    assert "twice, or not at all" in fault(f"at,org_id\n{local},a\n", ColumnMapping(timezone=ZoneInfo("Europe/Berlin")))


def test_a_quoted_cell_may_continue_on_further_lines() -> None:
    text = f'request_id,at,org_id\n"two\nlines, and a ""quote""",{AT},a\nr2,{AT},b\n'
    first, second = rows(text)
    assert (first.line, first.record and first.record.request_id) == (2, 'two\nlines, and a "quote"')
    assert (second.line, second.record and second.record.org_id) == (4, "b")


def test_a_quote_that_is_left_open_makes_the_rest_of_the_log_one_reject() -> None:
    text = f'request_id,at,org_id\nr1,{AT},a\n"open,{AT},a\nr2,{AT},b\nr3,{AT},c\n'
    first, rest = rows(text)
    assert first.fault is None
    assert rest.line == 3
    assert rest.fault is not None
    assert "a quote is left open" in rest.fault


def test_a_row_of_another_width_than_the_header_is_rejected() -> None:
    assert fault(f"at,org_id\n{AT},acme,more\n") == "the row has 3 cells where the header has 2"


@given(st.lists(st.binary(max_size=40), max_size=30))
def test_every_line_after_a_header_is_a_row_or_part_of_a_row(lines: list[bytes]) -> None:
    body = b"\n".join(line.replace(b"\n", b"") for line in lines)
    numbers = [row.line for row in rows(b"at,org_id\n" + body)]
    assert numbers == sorted(set(numbers))
    if b'"' not in body:
        assert numbers == [n for n, line in enumerate(body.split(b"\n"), 2) if line.strip(b", \t\r\x0b\x0c")]


@given(st.lists(st.binary(max_size=40), max_size=30))
def test_every_line_of_json_lines_that_is_not_blank_is_a_row(lines: list[bytes]) -> None:
    body = b"\n".join([b"{}", *(line.replace(b"\n", b"") for line in lines)])
    assert [row.line for row in rows(body)] == [n for n, line in enumerate(body.split(b"\n"), 1) if line.strip()]
