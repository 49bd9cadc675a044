"""A provider in a process of its own, and sign-in with its tokens on clocks that the test sets."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from api.oidc.documents import DocumentFetcher
from api.oidc.faults import KeysUnavailable, TokenRefused
from api.oidc.issuer import OidcIssuer
from api.oidc.sign_in import OidcSignIn
from api.oidc.tokens import VerifiedToken
from ledger.clock import ManualClock
from tests.support.oidc_provider import OidcProvider, running_provider
from tests.support.waiting import GIVE_UP_S

Result = TypeVar("Result")
NOW = 1_800_000_000
"""Seconds since 1970."""


@pytest.fixture
def provider() -> Iterator[OidcProvider]:
    with running_provider() as provider:
        yield provider


class Clocks:
    """Wall time and monotonic time, in seconds, set apart."""

    def __init__(self) -> None:
        self.wall = ManualClock(NOW * 1_000_000)
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def pass_(self, seconds: float) -> None:
        self.seconds += seconds
        self.wall.now_us += int(seconds * 1_000_000)


def claims_of(provider: OidcProvider, **changes: Any) -> dict[str, Any]:
    """Claims that are accepted. A change to None leaves the claim out."""
    right = {"iss": provider.issuer, "sub": "u1", "aud": "inforce", "iat": NOW, "exp": NOW + 300}
    return {name: value for name, value in (right | changes).items() if value is not None}


def issuer_of(provider: OidcProvider, **changes: Any) -> OidcIssuer:
    return OidcIssuer(**({"alias": "corp", "issuer": provider.issuer, "audiences": ["inforce"]} | changes))


@asynccontextmanager
async def signing_in(
    *issuers: OidcIssuer, clocks: Clocks | None = None, seconds_max: float = GIVE_UP_S, **more: Any
) -> Any:
    clocks = clocks or Clocks()
    sign_in = OidcSignIn(issuers, clocks.wall, fetcher=DocumentFetcher(seconds_max), monotonic=clocks.monotonic, **more)
    try:
        yield sign_in
    finally:
        await sign_in.close()


def run(main: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    return asyncio.run(asyncio.wait_for(main(), 2 * GIVE_UP_S))


async def outcome(sign_in: OidcSignIn, token: bytes) -> str:
    """The principal, or the reason why there is none."""
    try:
        verified: VerifiedToken = await sign_in.verify(token)
    except TokenRefused as refused:
        return refused.reason
    except KeysUnavailable:
        return "unavailable"
    return verified.principal
