"""Times on the command line: RFC 3339, and with a time zone dates and local times."""

import json
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import BadTime
from ledger.times import SECOND, format_time, parse_time
from scripts.cli.instants import read_instant
from tests.support.command import Inforce

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "zone", "instant"),
    [
        ("2026-03-01", "UTC", "2026-03-01T00:00:00Z"),
        ("2026-03-01", "Europe/Berlin", "2026-02-28T23:00:00Z"),
        ("2026-07-01", "Europe/Berlin", "2026-06-30T22:00:00Z"),
        ("2026-07-01T12:30", "Europe/Berlin", "2026-07-01T10:30:00Z"),
        ("2026-07-01 12:30:15.123456789", "Europe/Berlin", "2026-07-01T10:30:15.123456Z"),
        ("2026-07-01T12:30:00Z", "Europe/Berlin", "2026-07-01T12:30:00Z"),
        # As tables show it.
        ("2026-07-01 12:30:00.5Z", "Europe/Berlin", "2026-07-01T12:30:00.5Z"),
        ("2026-07-01 12:30:00+09:00", "UTC", "2026-07-01T03:30:00Z"),
        ("2026-07-01T12:30:00+09:00", "Europe/Berlin", "2026-07-01T03:30:00Z"),
        # The clocks went from 00:00 to 01:00: the day begins at 01:00.
        ("2018-11-04", "America/Sao_Paulo", "2018-11-04T03:00:00Z"),
        # The clocks went from 23:30 to 00:30.
        ("1919-03-31", "America/Toronto", "1919-03-31T04:30:00Z"),
        # The clocks went from 01:00 back to 00:00: the first of two midnights.
        ("2006-10-29", "America/Havana", "2006-10-29T04:00:00Z"),
        ("0001-01-01", "UTC", "0001-01-01T00:00:00Z"),
    ],
)
def test_a_time_is_read_in_its_zone(text: str, zone: str, instant: str) -> None:
    assert format_time(read_instant(text, ZoneInfo(zone))) == format_time(parse_time(instant))


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("2026-02-29", "UTC"),
        ("2026-13-01", "UTC"),
        ("0000-01-01", "UTC"),
        ("2011-12-30", "Pacific/Apia"),
        ("2026-03-29T02:30", "Europe/Berlin"),
        ("2026-10-25T02:30", "Europe/Berlin"),
        ("0001-01-01", "Asia/Tokyo"),
        ("yesterday", "UTC"),
        ("2026-3-1", "UTC"),
        ("2026-03-01T24:00", "UTC"),
        ("٢٠٢٦-03-01", "UTC"),
    ],
)
def test_a_time_that_names_no_single_instant_is_refused(text: str, zone: str) -> None:
    with pytest.raises(BadTime):
        read_instant(text, ZoneInfo(zone))


@given(
    st.dates(date(1950, 1, 1), date(2090, 1, 1)),
    st.sampled_from(
        ["UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Beirut", "Africa/Cairo", "Australia/Lord_Howe"]
    ),
)
def test_a_date_is_the_first_second_that_the_zones_clocks_show_of_it(day: date, zone: str) -> None:
    begins = read_instant(day.isoformat(), ZoneInfo(zone)) // SECOND
    shown = [datetime.fromtimestamp(begins + more, ZoneInfo(zone)).date() for more in (-1, 0, 1)]
    assert shown[1] == shown[2] == day
    assert shown[0] == day - timedelta(days=1)
    slowly = datetime.combine(day - timedelta(days=1), datetime.min.time(), UTC)
    minutes = (slowly + timedelta(minutes=number) for number in range(4 * 1440))
    first = next(minute for minute in minutes if minute.astimezone(ZoneInfo(zone)).date() == day)
    assert first.timestamp() == begins


@pytest.mark.parametrize("text", ["2026-03-01", "2026-03-01T12:00", "2026-03-01 12:00:00"])
def test_without_a_zone_the_error_says_what_to_add(text: str) -> None:
    with pytest.raises(BadTime, match="--timezone"):
        read_instant(text, None)


def test_every_verb_that_takes_a_time_takes_a_date_with_timezone(ledger: Inforce) -> None:
    zone = ("--timezone", "Europe/Berlin")
    day, utc = "2026-02-01", "2026-01-31T23:00:00Z"
    for verb, option in (
        (("state", "org:acme"), "--at"),
        (("state", "org:acme"), "--known-at"),
        (("catalog",), "--at"),
        (("timeline", "org:acme"), "--known-at"),
        (("diff", "org:acme", "--to", "2026-03-01T00:00:00Z"), "--from"),
        (("diff", "org:acme", "--from", "2025-03-01T00:00:00Z"), "--to"),
        (("check", "--org", "acme"), "--at"),
        (("check", "--org", "acme"), "--known-at"),
        (("replay",), "--since"),
        (("replay",), "--until"),
        (("replay",), "--known-at"),
    ):
        by_date = ledger(*verb, option, day, *zone, "--format", "json")
        # The zone counts wherever it stands, also behind the time.
        before = ledger(*verb, *zone, option, day, "--format", "json")
        by_time = ledger(*verb, option, utc, "--format", "json")
        assert by_date.code == before.code == by_time.code
        assert stable(by_date.out) == stable(before.out) == stable(by_time.out), verb
        refused = ledger(*verb, option, day)
        assert (refused.code, refused.err.count("\n"), "--timezone" in refused.err) == (2, 1, True)


def stable(out: str) -> object:
    """The document without the moments of the question that were now."""
    if not out:
        return out
    document = json.loads(out)
    for name in ("known_at", "at", "to"):
        if str(document.get(name)) > "2026-06":
            document.pop(name, None)
    document.pop("as_of", None)
    return document


def test_a_change_takes_effect_at_the_first_moment_of_a_day(inforce_on_both: Inforce) -> None:
    period = ("--from", "2190-01-01", "--until", "2190-02-01", "--timezone", "Europe/Berlin")
    receipt = inforce_on_both("submit", "org:acme", "training.opt_in", "true", *period, "--format", "json")
    (one,) = receipt.json()["receipts"]
    assert (one["effective_from"], one["effective_until"]) == (
        "2189-12-31T23:00:00.000000Z",
        "2190-01-31T23:00:00.000000Z",
    )


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "", "localtime", "../etc/passwd"])
def test_an_unknown_zone_is_one_line_and_exit_2(zone: str, ledger: Inforce) -> None:
    refused = ledger("state", "org:acme", "--timezone", zone)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert "Europe/Berlin" in refused.err
