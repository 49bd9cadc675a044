"""Sign-in with JSON Web Tokens: which provider a token is from, its verification, and the tokens verified before.

A token that was verified is looked up by its SHA-256 until it expires, its key is withdrawn or its provider's keys are
too old, so only its first use costs a signature. Belongs to one event loop. Proved by tests/api/oidc/test_sign_in.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from api.oidc.documents import DocumentFetcher
from api.oidc.faults import TokenRefused
from api.oidc.issuer import OidcIssuer, check_issuers
from api.oidc.provider import IdentityProvider, ProviderStatus
from api.oidc.tokens import VerifiedToken, check_header, read, verify
from ledger.clock import Clock, SystemClock

VERIFIED_MAX: Final = 10_000
"""Verified tokens in memory; beyond that the oldest is forgotten, and verified again when it comes again."""


class _Remembered(NamedTuple):
    token: VerifiedToken
    provider: IdentityProvider
    thumbprint: str


class OidcSignIn:
    """Raises `BadInput` for issuers that cannot be told apart."""

    def __init__(
        self,
        issuers: Sequence[OidcIssuer],
        clock: Clock | None = None,
        *,
        fetcher: DocumentFetcher | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        verified_max: int = VERIFIED_MAX,
    ) -> None:
        check_issuers(issuers)
        fetcher = fetcher or DocumentFetcher()
        self._clock = clock or SystemClock()
        self._providers = {issuer.issuer: IdentityProvider(issuer, fetcher, monotonic) for issuer in issuers}
        self._remembered: dict[bytes, _Remembered] = {}
        self._verified_max = verified_max

    def remembered(self, token: bytes) -> VerifiedToken | None:
        """The token if it was verified before and is still good. Needs no key and no waiting."""
        digest = sha256(token).digest()
        remembered = self._remembered.get(digest)
        if remembered is None:
            return None
        if self._clock.now() < remembered.token.expires_us and remembered.provider.accepts(remembered.thumbprint):
            return remembered.token
        del self._remembered[digest]
        return None

    async def verify(self, token: bytes) -> VerifiedToken:
        """Raises `TokenRefused`, or `KeysUnavailable` if that cannot be decided now."""
        known = self.remembered(token)
        if known is not None:
            return known
        unverified = read(token)
        provider = self._providers.get(unverified.issuer)
        if provider is None:
            raise TokenRefused("issuer", "the token's iss is none of the issuers that this server accepts")
        check_header(unverified, provider.issuer)
        key = await provider.key(unverified.kid, unverified.alg)
        verified = verify(unverified, provider.issuer, key, self._clock.now())
        if len(self._remembered) >= self._verified_max:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[sha256(token).digest()] = _Remembered(verified, provider, key.thumbprint)
        return verified

    def begin(self) -> list[asyncio.Task[None]]:
        """Starts to fetch the keys of every provider that has none, so that the first token need not wait for them."""
        tasks = [provider.begin() for provider in self._providers.values()]
        return [task for task in tasks if task is not None]

    async def fetch_keys(self) -> list[ProviderStatus]:
        """Fetches the keys of every provider that has none, and says how that went."""
        await asyncio.gather(*self.begin())
        return self.status()

    def status(self) -> list[ProviderStatus]:
        return [provider.status() for provider in self._providers.values()]

    async def close(self) -> None:
        await asyncio.gather(*(provider.close() for provider in self._providers.values()))
