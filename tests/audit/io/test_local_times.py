"""Local times are the same instants by column as one by one, above all where clocks change."""

from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ledger.errors import BadTime
from ledger.times import BEGINNING, END, SECOND, parse_time
from projections.audit.reading.log_times import UnreadableValue, time_text
from projections.audit.reading.times import QUARTER_HOUR, local_text, to_utc

ZONES = [
    UTC,
    *map(ZoneInfo, ("Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Africa/Monrovia", "Asia/Tokyo")),
]
CHANGES = ["2025-03-30T02:00:00", "2025-03-30T03:00:00", "2025-10-26T02:00:00", "2025-10-26T03:00:00"]
CHANGES += ["2025-10-05T02:00:00", "2025-10-05T02:30:00", "2025-04-06T01:30:00", "2025-04-06T02:00:00"]
CHANGES += ["1972-01-07T00:00:00", "1972-01-07T00:44:30", "2006-10-29T00:01:00", "2006-10-28T23:01:00"]


def one_by_one(local: int, zone: tzinfo) -> int | None:
    try:
        return parse_time(time_text(local_text(local), zone))
    except (UnreadableValue, BadTime, OverflowError):
        return None


def assert_alike(local: list[int], zone: tzinfo) -> None:
    instants, certain = to_utc(np.array(local, np.int64), zone)
    for instant, is_certain, one in zip(instants.tolist(), certain.tolist(), local, strict=True):
        # Uncertain times are for the strict reader: they must include all that it rejects.
        if is_certain:
            assert instant == one_by_one(one, zone)


@pytest.mark.parametrize("zone", ZONES, ids=str)
def test_times_around_every_clock_change_to_the_microsecond(zone: tzinfo) -> None:
    changes = [parse_time(f"{change}Z") for change in CHANGES]
    assert_alike(
        [change + by for change in changes for by in (-QUARTER_HOUR, -SECOND, -1, 0, 1, SECOND, QUARTER_HOUR)], zone
    )


@given(st.lists(st.integers(BEGINNING - 5, END + 5), max_size=8), st.sampled_from(ZONES))
@example([BEGINNING - 1, BEGINNING, END - 1, END], UTC)
@example([BEGINNING, BEGINNING + 20 * 3600 * SECOND, END - 1, END - 20 * 3600 * SECOND], ZoneInfo("Asia/Tokyo"))
def test_any_times_of_any_zone(local: list[int], zone: tzinfo) -> None:
    assert_alike(local, zone)


def test_ordinary_times_are_certain() -> None:
    noons = np.array([parse_time(f"2025-{month:02}-15T12:00:00Z") for month in range(1, 13)], np.int64)
    for zone in ZONES:
        assert to_utc(noons, zone)[1].all()


def test_times_that_came_twice_or_never_are_uncertain() -> None:
    twice, never = parse_time("2025-10-26T02:30:00Z"), parse_time("2025-03-30T02:30:00Z")
    assert to_utc(np.array([twice, never], np.int64), ZoneInfo("Europe/Berlin"))[1].tolist() == [False, False]


def test_an_offset_with_seconds_is_not_rounded() -> None:
    """Before time zones, Berlin's clocks were 53 minutes and 28 seconds ahead."""
    text = "1880-01-01 00:00:00"
    with pytest.raises(UnreadableValue, match="was not a whole number of minutes"):
        time_text(text, ZoneInfo("Europe/Berlin"))
    local = np.array([parse_time("1880-01-01T00:00:00Z")])
    assert to_utc(local, ZoneInfo("Europe/Berlin"))[1].tolist() == [False]
