"""A provider's configuration is checked at the start: aliases, URLs, algorithms, clock skew."""

from typing import Any

import pytest
from pydantic import ValidationError

from api.oidc.issuer import OidcIssuer, check_issuers
from ledger.errors import BadInput

RIGHT: dict[str, Any] = {"alias": "corp", "issuer": "https://login.example.com/tenant", "audiences": ["inforce"]}


def test_a_provider_needs_an_alias_an_issuer_and_an_audience_only() -> None:
    issuer = OidcIssuer(**RIGHT)
    assert issuer.algorithms == ("RS256", "ES256")
    assert issuer.clock_skew_s == 60
    assert issuer.jwks_url is None


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080/realms/a",
        "http://[::1]:8080",
        "http://localhost",
        "https://login.example.com/",
        "https://login.example.com:8443/a/b",
    ],
)
def test_keys_come_over_https_or_from_this_machine(url: str) -> None:
    assert OidcIssuer(**{**RIGHT, "issuer": url, "jwks_url": url}).issuer == url


@pytest.mark.parametrize(
    "url",
    [
        "http://login.example.com",
        "http://10.0.0.1/keys",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://[::ffff:10.0.0.1]/keys",
        "ftp://login.example.com",
        "file:///etc/keys",
        "login.example.com",
        "https://",
        "https://user:secret@login.example.com",
        "https://login.example.com/?tenant=a",
        "https://login.example.com/#a",
        "https://login.example.com/#",
        "https://login.example.com:port/",
        "https://[login",
        "https://login.example.com/a b",
        "https://login.example.com/\n",
        "https://lögin.example.com",
        "https://login.example.com/" + "a" * 1000,
        "",
    ],
)
@pytest.mark.parametrize("member", ["issuer", "jwks_url"])
def test_another_url_is_refused(url: str, member: str) -> None:
    with pytest.raises(ValidationError):
        OidcIssuer(**{**RIGHT, member: url})


@pytest.mark.parametrize(
    "wrong",
    [
        {"alias": ""},
        {"alias": "Corp"},
        {"alias": "a/b"},
        {"alias": "principal:a"},
        {"alias": "-a"},
        {"alias": "a" * 33},
        {"alias": "corp\n"},
        {"audiences": []},
        {"audiences": [""]},
        {"algorithms": []},
        {"algorithms": ["none"]},
        {"algorithms": ["RS256", "HS256"]},
        {"algorithms": ["ES256K"]},
        {"token_types": []},
        {"token_types": ["logout+jwt"]},
        {"clock_skew_s": 61},
        {"clock_skew_s": -1},
        {"clock_skew_s": 0.5},
        {"clock_skew_s": True},
        {"groups_claim": ""},
        {"group_roles": {"": ["operator"]}},
        {"group_roles": {"ops": ["operator", "root"]}},
        {"group_roles": {"ops": ["admin"]}},
        {"group_roles": {"ops": ["admin@account:u1"]}},
        {"group_roles": {"ops": "operator"}},
        {"client_secret": "x"},
    ],
)
def test_a_wrong_member_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OidcIssuer(**{**RIGHT, **wrong})


def test_an_error_never_shows_the_value() -> None:
    with pytest.raises(ValidationError) as refused:
        OidcIssuer(**{**RIGHT, "issuer": "https://user:hunter2@login.example.com"})
    assert "hunter2" not in str(refused.value)


def test_two_issuers_differ_in_alias_and_in_url() -> None:
    one, other = OidcIssuer(**RIGHT), OidcIssuer(**{**RIGHT, "alias": "other", "issuer": "https://b.example.com"})
    check_issuers([one, other])
    with pytest.raises(BadInput, match="two OIDC issuers have the alias corp"):
        check_issuers([one, OidcIssuer(**{**RIGHT, "issuer": "https://b.example.com"})])
    with pytest.raises(BadInput, match="two OIDC issuers have the issuer https://login"):
        check_issuers([one, OidcIssuer(**{**RIGHT, "alias": "other"})])
    with pytest.raises(BadInput, match="17 OIDC issuers"):
        check_issuers([one] * 17)
