"""`bench sign-in`: the cost of a sign-in with a JSON Web Token, and of a rate limit, beside the bare signature.

The baseline checks the RS256 signatures of the same tokens with the cryptography library, and reads nothing of them.
A first sign-in also reads header and claims, finds the key and checks the claims. A further one finds the token among
those that were verified. No provider is asked: its keys are in memory, as between two refreshes.
"""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64decode
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc import jwt
from joserfc.jwk import RSAKey

from api.oidc.documents import DocumentFetcher
from api.oidc.issuer import OidcIssuer
from api.oidc.sign_in import OidcSignIn
from api.rate_limits.limit import RateLimit
from api.rate_limits.limiter import RateLimiter
from ledger.clock import SystemClock
from scripts.bench.marks import judge
from scripts.bench.measure import Case, by_case, case_table, measure
from scripts.bench.report import SuiteResult
from scripts.bench.suite import SuiteContext

BARE: Final = "cryptography: RS256 signature alone"
FIRST: Final = "JSON Web Token, for the first time"
AGAIN: Final = "JSON Web Token, verified before"
LIMIT: Final = "rate limit: one request of a principal"
PRINCIPALS: Final = 1000
_ISSUER: Final = OidcIssuer(
    alias="corp", issuer="https://login.example.com", audiences=("inforce",), group_roles={"ops": ("operator",)}
)


def run(context: SuiteContext) -> SuiteResult:
    count = 50 if context.quick else 1000
    key = RSAKey.generate_key(2048, {"kid": "key-1", "use": "sig"})
    tokens = [_token(key, number) for number in range(count)]
    runner = context.stack.enter_context(asyncio.Runner())
    measurements = measure("bench sign-in", _cases(runner, key, tokens), context.turns)
    of = by_case(measurements)
    return SuiteResult(
        [case_table("in process, one after the other", "sign-in", measurements)],
        [
            judge("sign-in.first", of[FIRST].cpu_us.median),
            judge("sign-in.again", of[AGAIN].cpu_us.median),
            judge("sign-in.limit", of[LIMIT].cpu_us.median),
        ],
        ["speed: relative to the signature alone; RSA keys of 2048 bits"],
    )


def _token(key: RSAKey, number: int) -> bytes:
    now = SystemClock().now() // 1_000_000
    claims = {
        "iss": _ISSUER.issuer,
        "sub": f"user-{number}@example.com",
        "aud": ["inforce", "account"],
        "iat": now,
        "nbf": now,
        "exp": now + 86_400,
        "jti": f"{number:032x}",
        "groups": ["ops", "engineering", "everybody"],
    }
    return jwt.encode({"alg": "RS256", "typ": "at+jwt", "kid": "key-1"}, claims, key).encode("ascii")


class _KeysInMemory(DocumentFetcher):
    def __init__(self, key: RSAKey) -> None:
        super().__init__()
        self._document = {"keys": [dict(key.as_dict(private=False))]}

    async def fetch_keys(self, issuer: str, jwks_url: str | None) -> dict[str, Any]:
        return self._document


def _cases(runner: asyncio.Runner, key: RSAKey, tokens: list[bytes]) -> list[Case]:
    def new_sign_in() -> OidcSignIn:
        sign_in = OidcSignIn([_ISSUER], fetcher=_KeysInMemory(key))
        runner.run(sign_in.fetch_keys())
        return sign_in

    async def verify(sign_in: OidcSignIn) -> int:
        for token in tokens:
            await sign_in.verify(token)
        return len(tokens)

    known = new_sign_in()
    runner.run(verify(known))

    def look_up(_prepared: object) -> int:
        for token in tokens:
            if known.remembered(token) is None:
                raise AssertionError("a verified token is not known")
        return len(tokens)

    limiter = RateLimiter("principal", RateLimit(10**9, 60))
    principals = [f"principal:corp/user-{number}@example.com" for number in range(PRINCIPALS)]

    def take(_prepared: object) -> int:
        for principal in principals:
            limiter.take(principal)
        return len(principals)

    return [
        Case(BARE, None, _signatures_alone, lambda: (key.public_key, [_signed(token) for token in tokens])),
        Case(FIRST, BARE, lambda sign_in: runner.run(verify(sign_in)), new_sign_in),
        Case(AGAIN, BARE, look_up),
        Case(LIMIT, BARE, take),
    ]


def _signed(token: bytes) -> tuple[bytes, bytes]:
    """(signed bytes, signature)."""
    signed, _, signature = token.rpartition(b".")
    return signed, urlsafe_b64decode(signature + b"=" * (-len(signature) % 4))


def _signatures_alone(prepared: tuple[RSAPublicKey, list[tuple[bytes, bytes]]]) -> int:
    public_key, parts = prepared
    for signed, signature in parts:
        public_key.verify(signature, signed, PKCS1v15(), SHA256())
    return len(parts)
