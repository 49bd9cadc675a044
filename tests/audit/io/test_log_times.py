"""Times as numbers in a unit and in a local notation mean one instant, in every format, or their row is a reject."""

import io
import json
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import BadRecord
from ledger.times import BEGINNING, END, parse_time
from projections.audit.reading.fields import ColumnMapping
from projections.audit.reading.log_times import (
    TIME_UNITS,
    UnreadableValue,
    check_format,
    formatted_time,
    number_time,
)
from projections.audit.reading.parquet import read_batches
from projections.audit.reading.strict import RowParser
from tests.audit.io.reading import ReadRows, read_fast, read_strictly, rows_of

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
BERLIN = ZoneInfo("Europe/Berlin")
GERMAN = "%d.%m.%Y %H:%M"


def exact_micros(text: str, unit: str) -> int:
    """µs since 1970, cut off: rational numbers, and no code of the source."""
    return (Fraction(text) * 10**6 / PER_SECOND[unit]).__floor__()


numbers = st.one_of(
    st.integers(-(10**19), 10**19).map(str),
    st.decimals(-(10**10), 10**10, allow_nan=False, allow_infinity=False, places=9).map(lambda one: f"{one:f}"),
)


@given(numbers, st.sampled_from(TIME_UNITS))
def test_a_number_is_its_exact_instant_cut_off_after_microseconds(text: str, unit: Any) -> None:
    expected = exact_micros(text, unit)
    if BEGINNING <= expected < END:
        assert number_time(text, unit) == expected
    else:
        with pytest.raises(UnreadableValue, match="outside the years 0001 to 9999"):
            number_time(text, unit)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-(1e10), max_value=1e10))
def test_a_float_is_the_number_that_its_text_says(number: float) -> None:
    assert number_time(number, "s") == exact_micros(repr(number), "s")


@pytest.mark.parametrize("unit", TIME_UNITS)
def test_the_first_and_last_instants_are_read_to_the_microsecond(unit: Any) -> None:
    for edge in (BEGINNING, END - 1):
        text = str(edge * (PER_SECOND[unit] // 10**6)) if unit in ("us", "ns") else _decimal(edge, unit)
        assert number_time(text, unit) == edge
    for outside in (BEGINNING - 1, END):
        text = str(outside * (PER_SECOND[unit] // 10**6)) if unit in ("us", "ns") else _decimal(outside, unit)
        with pytest.raises(UnreadableValue):
            number_time(text, unit)


def _decimal(micros: int, unit: str) -> str:
    places = {"s": 6, "ms": 3}[unit]
    whole, part = divmod(abs(micros), 10**places)
    return f"{'-' if micros < 0 else ''}{whole}.{part:0{places}}"


@pytest.mark.parametrize("value", [True, None, "soon", [], {}, "١٢"])
def test_anything_else_is_no_number(value: Any) -> None:
    assert number_time(value, "s") is None


def parquet_rows(column: pa.Array, mapping: ColumnMapping) -> ReadRows:
    file = io.BytesIO()
    pq.write_table(pa.table({"at": column, "org_id": ["acme"] * len(column)}), file)
    file.seek(0)
    return rows_of(list(read_batches(file, RowParser("a.log", mapping))))


def json_log(values: list[Any]) -> bytes:
    return b"".join(json.dumps({"at": value, "org_id": "acme"}).encode() + b"\n" for value in values)


def csv_log(values: list[Any]) -> bytes:
    return b"at,org_id\n" + b"".join(f"{value},acme\n".encode() for value in values)


def instants(rows: ReadRows) -> list[int | None]:
    return [None if record is None else record.at for _, record, _ in rows]


SECONDS = [1_772_366_400, 1_772_366_400.5, 0, -1, 253_402_300_799, 253_402_300_800]


@pytest.mark.parametrize("unit", TIME_UNITS)
def test_every_format_reads_the_same_instants_from_numbers(unit: Any) -> None:
    mapping = ColumnMapping(time_unit=unit)
    expected: list[int | None] = [exact_micros(str(one), unit) for one in SECONDS]
    expected = [at if at is not None and at < END else None for at in expected]
    texts = [str(one) for one in SECONDS]
    for log in (json_log(SECONDS), json_log(texts), csv_log(SECONDS)):
        assert instants(read_fast(log, mapping)[0]) == instants(read_strictly(log, mapping)[0]) == expected
    for column in (pa.array(SECONDS, pa.float64()), pa.array(texts), pa.array(texts).cast(pa.decimal128(20, 3))):
        assert instants(parquet_rows(column, mapping)) == expected
    whole = [int(one) for one in SECONDS]
    expected = [at if (at := exact_micros(str(one), unit)) < END else None for one in whole]
    assert instants(parquet_rows(pa.array(whole, pa.int64()), mapping)) == expected


def test_without_a_unit_a_number_is_no_time() -> None:
    for log in (json_log([1_772_366_400]), json_log(["1772366400"]), csv_log([1_772_366_400])):
        ((_, record, fault),) = read_fast(log, ColumnMapping())[0]
        assert record is None
        assert "--time-unit" in (fault or "")
    with pytest.raises(BadRecord, match="--time-unit"):
        parquet_rows(pa.array([1_772_366_400]), ColumnMapping())


def test_with_a_unit_the_usual_times_keep_their_meaning() -> None:
    mapping = ColumnMapping(time_unit="ms")
    values = ["2026-03-01T12:00:00Z", 1_772_366_400_000]
    assert instants(read_fast(json_log(values), mapping)[0]) == [parse_time("2026-03-01T12:00:00Z")] * 2


def test_a_local_notation_is_read_in_the_zone_of_the_log_in_every_format() -> None:
    values = ["01.03.2026 14:05", "12.07.2026 14:05", "31.02.2026 14:05", "2026-03-01 14:05", "1.3.2026 9:05", ""]
    expected = [
        *map(parse_time, ("2026-03-01T13:05:00Z", "2026-07-12T12:05:00Z")),
        None,
        None,
        parse_time("2026-03-01T08:05:00Z"),
        None,
    ]
    mapping = ColumnMapping(timezone=BERLIN, time_format=GERMAN)
    for log in (json_log(values), csv_log(values)):
        assert instants(read_fast(log, mapping)[0]) == instants(read_strictly(log, mapping)[0]) == expected
    for kind in (pa.string(), pa.dictionary(pa.int32(), pa.string())):
        assert instants(parquet_rows(pa.array(values).cast(kind), mapping)) == expected


def test_a_form_that_looks_like_the_usual_one_has_its_own_meaning() -> None:
    """Day before month: the usual reading would take the 3rd of January for the 1st of March."""
    mapping = ColumnMapping(timezone=UTC, time_format="%Y-%d-%m %H:%M:%S")
    log = csv_log(["2026-01-03 12:00:00"] * 3)
    assert instants(read_fast(log, mapping)[0]) == [parse_time("2026-03-01T12:00:00Z")] * 3


def test_a_timestamp_of_parquet_needs_no_form_and_no_unit() -> None:
    at = parse_time("2026-03-01T12:00:00Z")
    column = pa.array([at], pa.timestamp("us", "UTC"))
    for mapping in (ColumnMapping(time_format=GERMAN), ColumnMapping(time_unit="s")):
        assert instants(parquet_rows(column, mapping)) == [at]


def test_a_local_time_that_came_twice_or_never_is_a_reject_and_its_neighbours_are_not() -> None:
    """2026: forward on March 29 from 2:00 to 3:00, back on October 25 from 3:00 to 2:00."""
    mapping = ColumnMapping(timezone=BERLIN, time_format="%d.%m.%Y %H:%M:%S.%f")
    values = [
        *("29.03.2026 01:59:59.999999", "29.03.2026 02:00:00.000000", "29.03.2026 02:59:59.999999"),
        *("29.03.2026 03:00:00.000000", "25.10.2026 01:59:59.999999", "25.10.2026 02:00:00.000000"),
        *("25.10.2026 02:59:59.999999", "25.10.2026 03:00:00.000000"),
    ]
    rows = read_fast(csv_log(values), mapping)[0]
    assert [at is not None for at in instants(rows)] == [True, False, False, True, True, False, False, True]
    assert {fault for _, record, fault in rows if record is None} == {
        "the time zone's clocks showed this time twice, or not at all; log times with their offset"
    }


def test_a_form_with_an_offset_needs_no_zone() -> None:
    assert formatted_time("01/Mar/2026:13:00:00 +0100", "%d/%b/%Y:%H:%M:%S %z", None) == "2026-03-01T12:00:00.000000Z"
    with pytest.raises(UnreadableValue, match="no time zone was given"):
        formatted_time("01.03.2026 14:05", GERMAN, None)
    with pytest.raises(UnreadableValue, match="outside the years"):
        formatted_time("0001-01-01 00:30 +0100", "%Y-%m-%d %H:%M %z", None)


@given(st.datetimes(datetime(1000, 1, 1), datetime(9998, 1, 1)))  # noqa: DTZ001 - local times
def test_a_text_that_a_form_wrote_is_read_back(local: datetime) -> None:
    text = f"{local.day:02}.{local.month:02}.{local.year} {local.hour:02}:{local.minute:02}"
    minute = local.replace(second=0, microsecond=0, tzinfo=UTC)
    micros = (minute - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert parse_time(formatted_time(text, GERMAN, UTC)) == micros


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("%d.%m.%Y", "the day and the hour"),
        ("%H:%M", "the day and the hour"),
        ("%d.%m.%Y %I:%M", "the day and the hour"),
        ("%d.%m %H:%M", "the day and the hour"),
        ("", "the day and the hour"),
        ("%d.%m.%Y %H:%M %Z", "%Z, which is not among"),
        ("%c", "%c, which is not among"),
        ("%d.%m.%Y %H:%", "which is not among"),
        ("%d.%d.%m.%Y %H", "the day and the hour"),
    ],
)
def test_a_form_that_tells_no_instant_is_refused(form: str, message: str) -> None:
    with pytest.raises(BadRecord, match=message):
        check_format(form)


@pytest.mark.parametrize("form", [GERMAN, "%m/%d/%y %I:%M %p", "%Y%m%d%H%M%S", "%d/%b/%Y:%H:%M:%S %z", "%Y-%j %H"])
def test_a_form_that_tells_day_and_hour_is_taken(form: str) -> None:
    check_format(form)


texts = st.from_regex(r"[0-9]{1,20}(\.[0-9]{0,9})?", fullmatch=True)


@given(st.lists(st.one_of(st.integers(-3, 10**19), st.floats(0, 3e9), texts), max_size=20), st.sampled_from(TIME_UNITS))
def test_the_quick_reader_reads_numbers_as_the_strict_one_does(values: list[Any], unit: Any) -> None:
    mapping = ColumnMapping(timezone=BERLIN, time_unit=unit)
    values = [*values, "2026-07-12T14:05:00", 1_772_366_400, 1_772_366_400.123456, "1772366400.000001", 999_999_999_999]
    for log in (json_log(values), csv_log(values)):
        assert read_fast(log, mapping) == read_strictly(log, mapping)
