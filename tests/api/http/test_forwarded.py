"""The caller's address behind proxies: only what trusted hops wrote is believed."""

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.forwarded import UNKNOWN, TrustedProxies

NETWORKS = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))


def address(header: str, client: str | None, *values: tuple[str, str]) -> str:
    scope: dict[str, Any] = {
        "client": None if client is None else (client, 1234),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in values],
    }
    return TrustedProxies(NETWORKS, header).caller_address(scope)


XFF, FORWARDED = "x-forwarded-for", "forwarded"


@pytest.mark.parametrize(
    ("client", "value", "expected"),
    [
        # Not from a proxy: the header is the caller's invention.
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),
        ("10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.7, 10.9.9.9", "198.51.100.7"),
        ("10.0.0.1", "10.1.1.1, 10.2.2.2", "10.1.1.1"),
        ("10.0.0.1", "198.51.100.7:4711", "198.51.100.7"),
        ("10.0.0.1", "[2001:db9::1]:4711", "2001:db9::1"),
        ("10.0.0.1", "2001:db9::1", "2001:db9::1"),
        ("::ffff:10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "1.1.1.1, garbage", UNKNOWN),
        ("10.0.0.1", "198.51.100.7,", UNKNOWN),
        ("10.0.0.1", "", "10.0.0.1"),
        (None, "198.51.100.7", UNKNOWN),
        ("testclient", "198.51.100.7", UNKNOWN),
    ],
)
def test_x_forwarded_for_is_read_from_the_right(client: str | None, value: str, expected: str) -> None:
    values = [(XFF, value)] if value else []
    assert address(XFF, client, *values) == expected


def test_several_fields_are_one_list_in_their_order() -> None:
    assert address(XFF, "10.0.0.1", (XFF, "1.1.1.1"), (XFF, "198.51.100.7")) == "198.51.100.7"
    assert address(FORWARDED, "10.0.0.1", (FORWARDED, "for=1.1.1.1"), (FORWARDED, "for=198.51.100.7")) == "198.51.100.7"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("for=198.51.100.7", "198.51.100.7"),
        ("For=198.51.100.7;proto=https;by=10.0.0.1", "198.51.100.7"),
        ('proto=https; for="198.51.100.7:4711"', "198.51.100.7"),
        ('for="[2001:db9::1]:4711"', "2001:db9::1"),
        ("for=1.1.1.1, for=198.51.100.7, for=10.3.3.3", "198.51.100.7"),
        ('for=1.1.1.1, for="_hidden, for=2.2.2.2"', UNKNOWN),
        ("for=1.1.1.1, for=unknown", UNKNOWN),
        ("for=1.1.1.1, proto=https", UNKNOWN),
        ("for=1.1.1.1, xfor=2.2.2.2", UNKNOWN),
    ],
)
def test_forwarded_is_read_as_rfc_7239_writes_it(value: str, expected: str) -> None:
    assert address(FORWARDED, "10.0.0.1", (FORWARDED, value)) == expected


def test_the_header_that_the_proxies_do_not_write_is_never_read() -> None:
    both = (FORWARDED, "for=1.1.1.1"), (XFF, "198.51.100.7")
    assert address(XFF, "10.0.0.1", *both) == "198.51.100.7"
    assert address(FORWARDED, "10.0.0.1", *both) == "1.1.1.1"
    assert address(FORWARDED, "10.0.0.1", (XFF, "198.51.100.7")) == "10.0.0.1"


@given(
    st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=60), st.sampled_from((XFF, FORWARDED))
)
def test_an_invented_prefix_never_changes_the_address(prefix: str, header: str) -> None:
    """A caller writes whatever it likes; the trusted proxy appends the address that it saw, as a field of its own."""
    seen = "198.51.100.7" if header == XFF else "for=198.51.100.7"
    if '"' in prefix and header == FORWARDED:
        # The quotes of a caller's field end with the field, for a proxy that adds another one.
        assert address(header, "10.0.0.1", (header, prefix), (header, seen)) in ("198.51.100.7", UNKNOWN)
        return
    assert address(header, "10.0.0.1", (header, prefix), (header, seen)) == "198.51.100.7"


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db9:1:2:3:4:5:6", "2001:db9:1:2::"),
        ("2001:db9:1:2::", "2001:db9:1:2::"),
        ("2001:db9:1:3::", "2001:db9:1:3::"),
        ("fe80::1%eth0", "fe80::"),
        ("::1", "::"),
        ("testclient", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_an_ipv6_caller_counts_by_its_network(client: str, network: str) -> None:
    scope: dict[str, Any] = {"client": (client, 1234), "headers": []}
    assert TrustedProxies(NETWORKS).caller_network(scope) == network
