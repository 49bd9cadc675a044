"""A key has its requests in each window, to the microsecond; the header fields are true; the memory is bounded."""

import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.rate_limits.limit import RateLimit, parse_limit
from api.rate_limits.limiter import RateLimiter
from ledger.clock import ManualClock

BEGIN = 1_800_000_000_250_000
SECOND = 1_000_000


def limiter(requests: int = 3, window_s: int = 60, keys_max: int = 100) -> tuple[RateLimiter, ManualClock]:
    clock = ManualClock(BEGIN)
    return RateLimiter("principal", RateLimit(requests, window_s), clock, keys_max), clock


def fields(rate_limiter: RateLimiter, key: str = "a") -> tuple[int | None, int, int]:
    """(retry after, remaining, seconds) of a request that is counted. Other spellings of the fields fail."""
    allowance = rate_limiter.take(key)
    (policy_name, policy), (name, value) = allowance.headers
    assert (policy_name, name) == (b"ratelimit-policy", b"ratelimit")
    assert re.fullmatch(rb'"principal";q=[1-9][0-9]*;w=[1-9][0-9]*', policy)
    match = re.fullmatch(rb'"principal";r=([0-9]+);t=([1-9][0-9]*)', value)
    assert match
    return allowance.retry_after_s, int(match[1]), int(match[2])


def test_a_window_begins_with_the_first_request_and_ends_to_the_microsecond() -> None:
    rate_limiter, clock = limiter()
    assert rate_limiter.take("a").headers[0] == (b"ratelimit-policy", b'"principal";q=3;w=60')
    clock.now_us += 10 * SECOND
    assert fields(rate_limiter) == (None, 1, 50)
    assert fields(rate_limiter) == (None, 0, 50)
    assert fields(rate_limiter) == (50, 0, 50)
    # Another key has its own.
    assert fields(rate_limiter, "b") == (None, 2, 60)
    # A refused request makes the window no longer.
    clock.now_us = BEGIN + 60 * SECOND - 1
    assert fields(rate_limiter) == (1, 0, 1)
    clock.now_us += 1
    assert fields(rate_limiter) == (None, 2, 60)
    clock.now_us += 1
    assert fields(rate_limiter) == (None, 1, 60)


def test_looking_counts_nothing() -> None:
    rate_limiter, clock = limiter(requests=1)
    for _ in range(5):
        assert rate_limiter.look("a").retry_after_s is None
    assert rate_limiter.take("a").retry_after_s is None
    for _ in range(5):
        assert rate_limiter.look("a").retry_after_s == 60
    clock.now_us = BEGIN + 60 * SECOND - 1
    assert rate_limiter.look("a").retry_after_s == 1
    clock.now_us += 1
    assert rate_limiter.look("a").retry_after_s is None


@given(
    requests=st.integers(1, 5),
    window_s=st.integers(1, 4),
    pauses=st.lists(st.integers(0, 3 * SECOND) | st.sampled_from([0, 1, SECOND - 1, SECOND]), max_size=60),
)
def test_a_client_that_waits_as_told_is_served_and_no_window_has_more(
    requests: int, window_s: int, pauses: list[int]
) -> None:
    rate_limiter, clock = limiter(requests, window_s)
    served: list[int] = []
    for pause in pauses:
        clock.now_us += pause
        retry_after, remaining, seconds = fields(rate_limiter)
        assert 1 <= seconds <= window_s
        if retry_after is None:
            served.append(clock.now_us)
        else:
            assert remaining == 0
            clock.now_us += retry_after * SECOND
            assert fields(rate_limiter)[0] is None
            served.append(clock.now_us)
    # The windows as the first requests begin them, counted anew.
    while served:
        inside = [moment for moment in served if moment < served[0] + window_s * SECOND]
        assert len(inside) <= requests
        served = served[len(inside) :]


def test_the_number_of_keys_is_bounded_and_the_longest_unused_is_forgotten() -> None:
    rate_limiter, clock = limiter(requests=1, keys_max=3)
    for key in "abc":
        assert rate_limiter.take(key).retry_after_s is None
    assert rate_limiter.take("a").retry_after_s == 60
    # One more key: b is forgotten, because a was used since.
    assert rate_limiter.take("d").retry_after_s is None
    assert [rate_limiter.look(key).retry_after_s for key in "abcd"] == [60, None, 60, 60]
    for number in range(1000):
        rate_limiter.take(f"flood-{number}")
    assert len(rate_limiter._storage._counters) == 3
    clock.now_us += 60 * SECOND
    assert rate_limiter.take("flood-999").retry_after_s is None
    assert len(rate_limiter._storage._counters) == 3


@pytest.mark.parametrize("back_s", [1, 59, 3600, 86_400])
def test_a_clock_that_is_set_back_shuts_nobody_out_for_longer_than_a_window(back_s: int) -> None:
    rate_limiter, clock = limiter(requests=1)
    clock.now_us += 59 * SECOND
    rate_limiter.take("a")
    clock.now_us -= back_s * SECOND
    retry_after = rate_limiter.look("a").retry_after_s
    assert retry_after is None or retry_after <= 60
    clock.now_us += 60 * SECOND
    assert rate_limiter.take("a").retry_after_s is None


def test_no_thread_is_started() -> None:
    before = threading.active_count()
    rate_limiter, _ = limiter()
    rate_limiter.take("a")
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("off", None),
        ("1/second", RateLimit(1, 1)),
        ("600/minute", RateLimit(600, 60)),
        ("5/hour", RateLimit(5, 3600)),
        ("999999999999999/day", RateLimit(999_999_999_999_999, 86_400)),
    ],
)
def test_a_limit_is_a_number_and_a_window(text: str, limit: RateLimit | None) -> None:
    assert parse_limit(text) == limit


@pytest.mark.parametrize(
    "text",
    ["", "0/minute", "-1/minute", "01/minute", "5", "5/fortnight", "5 per minute", "1e3/minute", "OFF", "5/minute\n"],
)
def test_another_text_is_no_limit(text: str) -> None:
    with pytest.raises(ValueError, match="such as 600/minute"):
        parse_limit(text)
