"""RFC 3339 in, microseconds inside, RFC 3339 out."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ledger.errors import BadTime
from ledger.times import BEGINNING, END, format_time, parse_time, parse_time_uncached

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


@given(st.integers(BEGINNING, END - 1))
def test_every_instant_has_one_text_that_reads_back(instant: int) -> None:
    text = format_time(instant)
    assert parse_time(text) == instant
    assert len(text) == 27
    assert (
        text == (EPOCH + timedelta(microseconds=instant)).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    )


@given(st.integers(BEGINNING, END - 1), st.integers(BEGINNING, END - 1))
def test_texts_sort_like_their_instants(one: int, other: int) -> None:
    assert (one < other) == (format_time(one) < format_time(other))


@given(
    st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1)),  # noqa: DTZ001 - hypothesis adds the zone
    st.integers(-(23 * 60 + 59), 23 * 60 + 59),
)
def test_any_offset_is_read_as_the_standard_library_reads_it(moment: datetime, minutes: int) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert parse_time(aware.isoformat()) == micros(aware)


def _read(text: str, reader: Callable[[str], int]) -> int | str:
    try:
        return reader(text)
    except BadTime as error:
        return error.detail


PLACES = st.lists(
    st.tuples(st.integers(0, 26), st.sampled_from([*"0123459TtZz:.,-+W _\u0663", "24", "60", ""])), max_size=3
)


@given(st.integers(BEGINNING, END - 1), st.sampled_from([19, 26]), PLACES)
@example(BEGINNING, 19, [(11, "2"), (12, "4")])
@example(0, 26, [(21, "-")])
def test_both_readers_accept_the_same_texts(instant: int, until: int, places: list[tuple[int, str]]) -> None:
    text = format_time(instant)[:until] + "Z"
    for place, sign in places:
        text = text[:place] + sign + text[place + len(sign) :]
    assert _read(text, parse_time_uncached) == _read(text, parse_time)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Z" * 20,
        "2026-W01-1T00:00:00Z",
        "2026-01-01T000000.0Z",
        "2026-01-01T24:00:00Z",
        "0000-01-01T00:00:00Z",
        "2026-01-01T00:00:00,000000Z",
        "2026-01-01T00:00:00.00000\u0663Z",
        "2026-01-01T00:00:00.1_0000Z",
        "2026-01-01T00:00:00.0-0000Z",
    ],
)
def test_forms_that_the_standard_library_accepts_are_refused(text: str) -> None:
    with pytest.raises(BadTime):
        parse_time_uncached(text)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-01-31T09:30:00Z", "2026-01-31T09:30:00.000000Z"),
        ("2026-01-31t09:30:00z", "2026-01-31T09:30:00.000000Z"),
        ("2026-01-31T09:30:00.1Z", "2026-01-31T09:30:00.100000Z"),
        ("2026-01-31T09:30:00.1234567Z", "2026-01-31T09:30:00.123456Z"),
        ("2026-01-31T09:30:00.999999999Z", "2026-01-31T09:30:00.999999Z"),
        ("1969-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.999999Z"),
        ("2026-01-01T00:00:00+14:00", "2025-12-31T10:00:00.000000Z"),
        ("2026-01-01T00:00:00-00:00", "2026-01-01T00:00:00.000000Z"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00.000000Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_a_time_is_parsed_and_formatted(text: str, same: str) -> None:
    assert format_time(parse_time(text)) == same


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-31",
        "2026-01-31T09:30Z",
        "2026-01-31T09:30:00",
        "2026-01-31 09:30:00Z",
        "2026-01-31T09:30:00.Z",
        "2026-01-31T09:30:00.1234567891Z",
        "2026-01-31T09:30:00,5Z",
        "2026-01-31T09:30:00+1:00",
        "2026-01-31T09:30:00+0100",
        "2026-01-31T09:30:00+24:00",
        "2026-01-31T09:30:00+01:60",
        "2026-01-31T24:00:00Z",
        "2026-01-31T23:60:00Z",
        "2016-12-31T23:59:60Z",
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        " 2026-01-31T09:30:00Z",
        "2026-01-31T09:30:00Z\n",
        "٢٠٢٦-01-31T09:30:00Z",
        "20260131T093000Z",
        "-2026-01-31T09:30:00Z",
    ],
)
def test_a_text_that_is_not_a_time_is_refused(text: str) -> None:
    with pytest.raises(BadTime) as refused:
        parse_time(text)
    assert not text or text not in refused.value.detail.partition("for example")[0]


@pytest.mark.parametrize("value", [0, 1767225600, 1.5, True, None, [], {}, b"2026-01-31T09:30:00Z"])
def test_a_time_that_is_not_a_text_is_refused(value: object) -> None:
    with pytest.raises(BadTime, match="a time must be a text"):
        parse_time(value)


def test_the_bounds_of_time() -> None:
    assert format_time(BEGINNING) == "0001-01-01T00:00:00.000000Z"
    assert format_time(END - 1) == "9999-12-31T23:59:59.999999Z"
    with pytest.raises(ValueError, match=r"ordinal|year"):
        format_time(END)
