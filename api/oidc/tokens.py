"""Reading and verifying a JSON Web Token (RFC 7519, RFC 8725, RFC 9068), without any fetch and without a clock. Pure.

Bytes, values and depth are bounded before anything is parsed, and JSON is parsed strictly: a member that is there twice
could mean one thing here and another elsewhere. The signature is verified before a claim decides anything; until then
`iss`, `kid` and `alg` only choose among the configured issuers and their published keys. `jwk`, `jku`, `x5u` and `x5c`
of a token are never followed. Proved by tests/api/oidc/test_forgeries.py.
"""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

from joserfc import jws
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError, UnsupportedAlgorithmError
from joserfc.jws import JWSRegistry
from joserfc.jwt import JWTClaimsRegistry

from api.oidc.faults import Reason, TokenRefused
from api.oidc.issuer import OidcIssuer
from api.oidc.keys import PublishedKey
from api.oidc.principals import principal_of, roles_of
from ledger.errors import BadJson
from ledger.roles import Role
from ledger.strict_json import loads
from ledger.times import format_time

TOKEN_BYTES_MAX: Final = 16 * 1024
HEADER_BYTES_MAX: Final = 4 * 1024
VALUES_MAX: Final = 1000
"""Values in the header, and in the claims: members, list items, objects."""
KID_LENGTH_MAX: Final = 256
EXPIRES_S_MAX: Final = 253_402_300_799
"""The end of the year 9999."""

_COMPACT: Final = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")
_ID_TOKEN_CLAIMS: Final = ("nonce", "at_hash", "c_hash", "s_hash")
"""Only a token for the client that a person signs in to has these (OpenID Connect Core sections 2 and 3.3.2.11)."""


class UnverifiedToken(NamedTuple):
    """A token as it describes itself. `alg` and `kid` are of its header, `issuer` of its claims."""

    text: bytes
    type_: str
    alg: str
    kid: str | None
    issuer: str
    claims: dict[str, Any]


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """`roles`: those that the configuration gives to the token's groups; the ledger may hold further ones.
    `expires_us`: the token is good until then, clock skew included."""

    principal: str
    roles: tuple[Role, ...]
    alias: str
    expires_us: int


def read(token: bytes) -> UnverifiedToken:
    """Raises `TokenRefused`."""
    if len(token) > TOKEN_BYTES_MAX:
        raise TokenRefused("too_large", f"the token has {len(token)} bytes, and at most {TOKEN_BYTES_MAX} are read")
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        what = "is encrypted, which is not supported" if token.count(b".") == 4 else "is cut off or no JSON Web Token"
        raise TokenRefused("malformed", f"the token {what}; send a signed JSON Web Token as the provider gave it")
    header = _json_object(parts[1], "header", HEADER_BYTES_MAX)
    if "crit" in header or "b64" in header:
        raise TokenRefused("malformed", "the token's header has crit or b64, and no extension is supported")
    type_, alg, kid = header.get("typ", "JWT"), header.get("alg"), header.get("kid")
    if not isinstance(alg, str) or not isinstance(type_, str):
        raise TokenRefused("malformed", "the token's header must have a text alg, and a text typ if it has one")
    if kid is not None and not (isinstance(kid, str) and len(kid) <= KID_LENGTH_MAX):
        raise TokenRefused("malformed", f"the token's kid must be a text of at most {KID_LENGTH_MAX} characters")
    claims = _json_object(parts[2], "claims", TOKEN_BYTES_MAX)
    issuer = claims.get("iss")
    if not isinstance(issuer, str):
        raise TokenRefused("issuer", "the token's iss must be the text of one issuer")
    return UnverifiedToken(token, type_, alg, kid, issuer, claims)


def _json_object(part: bytes, what: str, bytes_max: int) -> dict[str, Any]:
    try:
        text = urlsafe_b64decode(part + b"=" * (-len(part) % 4))
        value = loads(text, bytes_max, f"the token's {what}", VALUES_MAX)
    except binascii.Error:
        raise TokenRefused("malformed", f"the token's {what} is not base64url; the token is cut off") from None
    except BadJson as error:
        raise TokenRefused("malformed", error.detail) from None
    if not isinstance(value, dict):
        raise TokenRefused("malformed", f"the token's {what} must be a JSON object")
    return value


def check_header(token: UnverifiedToken, issuer: OidcIssuer) -> None:
    """Raises `TokenRefused` unless the issuer may sign tokens of this type with this algorithm."""
    if token.alg not in issuer.algorithms:
        allowed = ", ".join(issuer.algorithms)
        raise TokenRefused("algorithm", f"the token's alg is none of those allowed for its issuer: {allowed}")
    if _media_type(token.type_) not in (_media_type(one) for one in issuer.token_types):
        allowed = ", ".join(issuer.token_types)
        raise TokenRefused("type", f"the token's typ is none of those accepted from its issuer: {allowed}")


def _media_type(typ: str) -> str:
    """RFC 7515 section 4.1.9: `application/` may be left out, and case does not count."""
    return typ.lower().removeprefix("application/")


def verify(token: UnverifiedToken, issuer: OidcIssuer, key: PublishedKey, now_us: int) -> VerifiedToken:
    """Checks the signature, then the claims. Raises `TokenRefused`. `key`: of the issuer, for the token's `alg`."""
    check_header(token, issuer)
    _check_signature(token, issuer, key)
    claims = token.claims
    _check_claims(claims, issuer, now_us)
    expires_us = int(claims["exp"] * 1_000_000) + issuer.clock_skew_s * 1_000_000
    principal = principal_of(issuer.alias, claims["sub"])
    return VerifiedToken(principal, roles_of(claims, issuer.groups_claim, issuer.group_roles), issuer.alias, expires_us)


class _Registry(JWSRegistry):
    max_header_length = HEADER_BYTES_MAX
    max_payload_length = TOKEN_BYTES_MAX
    max_signature_length = TOKEN_BYTES_MAX

    def get_alg(self, name: str) -> Any:
        # The base class warns on standard error of each token that is signed with EdDSA.
        if self.allowed is None or name not in self.allowed:
            raise UnsupportedAlgorithmError
        return self.algorithms[name]


def _check_signature(token: UnverifiedToken, issuer: OidcIssuer, key: PublishedKey) -> None:
    registry = _Registry(algorithms=issuer.algorithms, strict_check_header=False)
    try:
        jws.deserialize_compact(token.text, key.key, registry=registry)
    except (JoseError, ValueError, TypeError):
        raise TokenRefused(
            "signature", "the token's signature is not that of its issuer; send the token as the provider gave it"
        ) from None


def _check_claims(claims: dict[str, Any], issuer: OidcIssuer, now_us: int) -> None:
    registry = JWTClaimsRegistry(
        # Exact: a float holds the microseconds of this century, and the comparison with a whole second is exact.
        now=cast(int, now_us / 1_000_000),
        leeway=issuer.clock_skew_s,
        iss={"essential": True, "value": issuer.issuer},
        aud={"essential": True, "values": list(issuer.audiences)},
        exp={"essential": True},
        sub={"essential": True},
    )
    try:
        registry.validate(claims)
    except ExpiredTokenError:
        # The signature is right, so this tells nobody else about the token.
        expired = f"the token has expired: its exp is {_shown(claims['exp'])}, and here it is {_shown(now_us / 1e6)}"
        raise TokenRefused("expired", f"{expired}; get a new token from the provider") from None
    except MissingClaimError:
        raise TokenRefused("claims", "the token must have iss, sub, aud and exp") from None
    except InvalidClaimError as error:
        raise _refusal_of(error, claims, now_us) from None
    if claims["exp"] > EXPIRES_S_MAX:
        raise TokenRefused("claims", "the token's exp is after the year 9999")
    if any(name in claims for name in _ID_TOKEN_CLAIMS):
        raise TokenRefused("type", "the token is an ID token, made for the client of a sign-in; send an access token")
    if "cnf" in claims:
        raise TokenRefused("type", "the token is bound to its sender's key (cnf), and only bearer tokens are accepted")


def _refusal_of(error: InvalidClaimError, claims: dict[str, Any], now_us: int) -> TokenRefused:
    claim = error.claim
    if claim == "aud":
        return TokenRefused("audience", "the token's aud names none of the audiences of this server")
    if claim in ("nbf", "iat") and isinstance(claims[claim], int | float) and not isinstance(claims[claim], bool):
        future = f"the token's {claim} is {_shown(claims[claim])}, and here it is {_shown(now_us / 1e6)}"
        return TokenRefused("not_yet_valid", f"{future}; wait, or set the clocks right")
    reason: Reason = "issuer" if claim == "iss" else "subject" if claim == "sub" else "claims"
    return TokenRefused(reason, f"the token's {claim if claim in _CLAIMS else 'claims'} cannot be accepted")


def _shown(seconds: float) -> str:
    """The time, as answers show it; the number itself where that is no time of these centuries."""
    return format_time(int(seconds * 1_000_000)) if 0 <= seconds <= EXPIRES_S_MAX else "not a time that can be shown"


_CLAIMS: Final = ("iss", "sub", "aud", "exp", "nbf", "iat", "jti")
