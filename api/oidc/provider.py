"""The keys of one provider, in memory: fetched when first needed, renewed in the background, and on an unknown key.

- One refresh runs at a time; all who wait for it share it, and only `WAITERS_MAX` may wait.
- An unknown key id starts a refresh at most every `COOL_DOWN_S`, so a flood of invented ids is no flood of fetches.
- While the provider fails, its last keys serve for `STALE_S`; after that no token of it is accepted.
- A key that the provider withdraws verifies nothing from the next refresh on, also no token that it verified before.

Belongs to one event loop. Durations are those of `time.monotonic`. Proved by tests/api/oidc/test_provider.py.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from api.oidc.documents import DocumentFetcher
from api.oidc.faults import KeysUnavailable, ProviderFault, TokenRefused
from api.oidc.issuer import OidcIssuer
from api.oidc.keys import PublishedKey, PublishedKeys

FRESH_S: Final = 600.0
"""Older keys are renewed in the background."""
STALE_S: Final = 24 * 3600.0
"""Older keys are not used."""
COOL_DOWN_S: Final = 30.0
"""Between two refreshes for unknown keys, and between two in the background."""
RETRY_S: Final = 5.0
"""Between two attempts while there are no keys at all."""
WAITERS_MAX: Final = 64
"""Requests that wait for a refresh. Each holds a place of the server."""

_log = logging.getLogger("inforce.api")


class ProviderStatus(NamedTuple):
    """`age_s`: since the keys were fetched; None: never. `fault`: of the last attempt; None: it succeeded."""

    alias: str
    keys: int
    age_s: float | None
    fault: str | None


class IdentityProvider:
    """`fetches`: the refreshes begun so far."""

    def __init__(
        self,
        issuer: OidcIssuer,
        fetcher: DocumentFetcher | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.issuer = issuer
        self.fetches = 0
        self._fetcher = fetcher or DocumentFetcher()
        self._now = monotonic
        self._keys: PublishedKeys | None = None
        self._fetched_at = self._tried_at = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None
        self._waiters = 0
        self._fault: str | None = None

    async def key(self, kid: str | None, algorithm: str) -> PublishedKey:
        """Raises `TokenRefused` if the provider has no such key, `KeysUnavailable` if that cannot be known now."""
        if self._usable() is None:
            await self._refresh_if(RETRY_S)
        else:
            self.renew()
        keys = self._usable()
        if keys is None:
            raise KeysUnavailable(self.issuer.alias)
        key = keys.of(kid, algorithm)
        if key is None:
            await self._refresh_if(COOL_DOWN_S)
            key = (self._usable() or keys).of(kid, algorithm)
        if key is not None:
            return key
        if self._fault is not None:
            raise KeysUnavailable(self.issuer.alias)
        which = "names no key, and its issuer has several" if kid is None else "is signed with a key that its issuer"
        raise TokenRefused("key", f"the token {which}" + ("" if kid is None else " does not publish"))

    def begin(self) -> asyncio.Task[None] | None:
        """Starts to fetch the keys if there are none. None: there are. `status` names the faults."""
        return self._begin() if self._keys is None else None

    def accepts(self, thumbprint: str) -> bool:
        """Whether a token that the key verified before is still good. Renews old keys in the background."""
        keys = self._usable()
        if keys is None:
            return False
        self.renew()
        return thumbprint in keys.thumbprints

    def renew(self) -> None:
        """Starts a refresh in the background if the keys are old."""
        now = self._now()
        if now - self._fetched_at >= FRESH_S and now - self._tried_at >= COOL_DOWN_S:
            self._begin()

    def status(self) -> ProviderStatus:
        age = None if self._keys is None else self._now() - self._fetched_at
        return ProviderStatus(self.issuer.alias, len(self._keys.thumbprints) if self._keys else 0, age, self._fault)

    async def close(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)

    def _usable(self) -> PublishedKeys | None:
        return self._keys if self._now() - self._fetched_at < STALE_S else None

    async def _refresh_if(self, pause_s: float) -> None:
        """Waits for the refresh that runs, or for a new one if the last attempt began `pause_s` ago."""
        if self._refreshing is None and self._now() - self._tried_at < pause_s:
            return
        if self._waiters >= WAITERS_MAX:
            raise KeysUnavailable(self.issuer.alias)
        self._waiters += 1
        try:
            # A caller that hangs up does not end the refresh of the others.
            await asyncio.shield(self._begin())
        finally:
            self._waiters -= 1

    def _begin(self) -> asyncio.Task[None]:
        if self._refreshing is None:
            self._tried_at = self._now()
            self.fetches += 1
            self._refreshing = asyncio.get_running_loop().create_task(
                self._refresh(), name=f"oidc-keys {self.issuer.alias}"
            )
        return self._refreshing

    async def _refresh(self) -> None:
        """Never raises, so that nobody need await it."""
        alias = self.issuer.alias
        try:
            document = await self._fetcher.fetch_keys(self.issuer.issuer, self.issuer.jwks_url)
            self._keys = PublishedKeys(document, self.issuer.algorithms)
            self._fetched_at = self._now()
            if self._fault is not None:
                _log.warning("OIDC provider %s: its keys can be read again", alias)
            self._fault = None
        except ProviderFault as fault:
            if self._fault != str(fault):
                _log.warning("OIDC provider %s: %s", alias, fault)
            self._fault = str(fault)
        finally:
            self._refreshing = None
