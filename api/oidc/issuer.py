"""The configuration of one OpenID Connect provider, checked at the start. Pure.

Proved by tests/api/oidc/test_issuer.py.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ledger.errors import BadInput
from ledger.roles import FORMS, parse_role

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
"""Signatures with a private key. An algorithm with a shared secret would let the holder of the published key sign."""
TokenType = Literal["at+jwt", "JWT"]

CLOCK_SKEW_S_MAX: Final = 60
ISSUERS_MAX: Final = 16
URL_LENGTH_MAX: Final = 1024
ALIAS_PATTERN: Final = r"[a-z0-9][a-z0-9-]{0,31}"
_ALIAS: Final = re.compile(ALIAS_PATTERN)
_Name = Annotated[str, Field(min_length=1, max_length=1024)]


class OidcIssuer(BaseModel):
    """One provider. The table in scripts/OPERATING.md holds these members and their descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    alias: str = Field(description="names the provider in principals: `principal:<alias>/<sub>`; 1-32 of a-z 0-9 -")
    issuer: str = Field(description="the exact `iss` of its tokens, a URL")
    audiences: Annotated[tuple[_Name, ...], Field(min_length=1, max_length=16)] = Field(
        description="a token must name one of these in `aud`"
    )
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = Field(
        ("RS256", "ES256"), description=f"the accepted signatures: some of {', '.join(get_args(Algorithm))}"
    )
    jwks_url: str | None = Field(
        None, description="where its keys are; without it, `/.well-known/openid-configuration` of the issuer says so"
    )
    token_types: Annotated[tuple[TokenType, ...], Field(min_length=1)] = Field(
        ("at+jwt", "JWT"), description="the accepted `typ` of a token; one without `typ` counts as `JWT`"
    )
    clock_skew_s: Annotated[int, Field(ge=0, le=CLOCK_SKEW_S_MAX, strict=True)] = Field(
        CLOCK_SKEW_S_MAX,
        description=f"how far the provider's clock may be off, in seconds from 0 to {CLOCK_SKEW_S_MAX}",
    )
    groups_claim: _Name = Field(
        "groups",
        description="the claim with the groups; with a slash before it a JSON pointer, as `/realm_access/roles`",
    )
    group_roles: Annotated[Mapping[_Name, tuple[_Name, ...]], Field(max_length=1000)] = Field(
        default_factory=dict, description="group → roles, written as in `access.roles`, beside those on the ledger"
    )

    @field_validator("alias")
    @classmethod
    def _check_alias(cls, alias: str) -> str:
        if _ALIAS.fullmatch(alias) is None:
            raise ValueError("an alias is 1-32 of a-z 0-9 -, and does not begin with -")
        return alias

    @field_validator("issuer", "jwks_url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        fault = None if url is None else fault_of_url(url)
        if fault is not None:
            raise ValueError(fault)
        return url

    @field_validator("group_roles")
    @classmethod
    def _check_roles(cls, group_roles: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
        if any(parse_role(role) is None for roles in group_roles.values() for role in roles):
            raise ValueError(f"the roles are {', '.join(FORMS)}")
        return group_roles


def check_issuers(issuers: Sequence[OidcIssuer]) -> None:
    """Raises `BadInput` if two of them cannot be told apart."""
    if len(issuers) > ISSUERS_MAX:
        raise BadInput(f"{len(issuers)} OIDC issuers are configured, and at most {ISSUERS_MAX} are allowed")
    for what, values in (
        ("alias", [one.alias for one in issuers]),
        ("issuer", [one.issuer for one in issuers]),
    ):
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise BadInput(f"two OIDC issuers have the {what} {twice}; give each its own")


def fault_of_url(url: str) -> str | None:
    """Why keys may not be fetched from the URL; None: they may."""
    if len(url) > URL_LENGTH_MAX or not url.isascii() or not url.isprintable() or " " in url:
        return f"a URL is at most {URL_LENGTH_MAX} printable ASCII characters without spaces"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "the URL cannot be read; write it like https://login.example.com/tenant"
    if parts.scheme not in ("https", "http") or not host:
        return "the URL must begin with https:// and a host"
    if parts.username is not None or parts.query or parts.fragment or "#" in url:
        return "the URL must not hold a user, a query or a fragment"
    if parts.scheme == "http" and not is_loopback(host):
        return "keys come over https; http is for a provider on this machine only (127.0.0.1, ::1, localhost)"
    return None


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
