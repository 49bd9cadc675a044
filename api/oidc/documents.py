"""Fetches one JSON document of a provider, bounded in bytes and in time.

No redirect is followed: a document from another place than the configured one would be that place's word. The proxies
of the environment (`HTTPS_PROXY`) are used, but not for this machine. The system's store says which certificates count.
Proved by tests/api/oidc/test_provider_faults.py.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from api.oidc.faults import ProviderFault
from api.oidc.issuer import fault_of_url, is_loopback
from ledger.errors import BadJson
from ledger.strict_json import loads

DOCUMENT_BYTES_MAX: Final = 256 * 1024
FETCH_S_MAX: Final = 5.0
"""For a whole refresh: the discovery document and the keys."""
VALUES_MAX: Final = 10_000
DISCOVERY: Final = "/.well-known/openid-configuration"


class DocumentFetcher:
    """Belongs to one event loop. `seconds_max` bounds each refresh as a whole."""

    def __init__(self, seconds_max: float = FETCH_S_MAX) -> None:
        self._seconds_max = seconds_max

    async def fetch_keys(self, issuer: str, jwks_url: str | None) -> dict[str, Any]:
        """The provider's key set; where it is, its discovery document says unless `jwks_url` does. Raises
        `ProviderFault`."""
        try:
            async with asyncio.timeout(self._seconds_max):
                return await self._fetch(jwks_url or await self._discover(issuer))
        except TimeoutError:
            raise ProviderFault(f"it did not answer within {self._seconds_max:g} s") from None

    async def _discover(self, issuer: str) -> str:
        """OpenID Connect Discovery 1.0 section 4."""
        document = await self._fetch(issuer.removesuffix("/") + DISCOVERY)
        if document.get("issuer") != issuer:
            raise ProviderFault(
                "its discovery document names another issuer; the configured one must be its exact text"
            )
        url = document.get("jwks_uri")
        fault = fault_of_url(url) if isinstance(url, str) else "it must be a text"
        if fault is not None or not isinstance(url, str):
            raise ProviderFault(f"the jwks_uri of its discovery document cannot be used: {fault}")
        if _is_here(url) and not _is_here(issuer):
            raise ProviderFault("the jwks_uri of its discovery document leads to this machine")
        return url

    async def _fetch(self, url: str) -> dict[str, Any]:
        # A new client each time: a refresh is rare, and an idle connection would have to be watched. Its certificates
        # are read from disk, so not on the event loop.
        client = await asyncio.to_thread(_client, url)
        try:
            async with client, client.stream("GET", url, headers=_HEADERS) as response:
                _check_head(response)
                body = bytearray()
                async for piece in response.aiter_raw():
                    body += piece
                    if len(body) > DOCUMENT_BYTES_MAX:
                        raise ProviderFault(f"{_path(url)} has more than {DOCUMENT_BYTES_MAX} bytes")
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise ProviderFault(f"{_path(url)} cannot be read: {type(error).__name__}") from None
        return _parsed(bytes(body), url)


_HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "inforce"}


def _client(url: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(follow_redirects=False, trust_env=not _is_here(url), timeout=FETCH_S_MAX)


def _check_head(response: httpx2.Response) -> None:
    path = _path(str(response.url))
    if response.is_redirect:
        raise ProviderFault(f"{path} redirects, and no redirect is followed; configure the URL that it leads to")
    if response.status_code != 200:
        raise ProviderFault(f"{path} is answered with {response.status_code} instead of 200")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise ProviderFault(f"{path} is answered compressed, although identity was asked for")


def _parsed(body: bytes, url: str) -> dict[str, Any]:
    try:
        value = loads(body, DOCUMENT_BYTES_MAX, _path(url), VALUES_MAX)
    except BadJson as error:
        raise ProviderFault(error.detail) from None
    if not isinstance(value, dict):
        raise ProviderFault(f"{_path(url)} is no JSON object")
    return value


def _is_here(url: str) -> bool:
    return is_loopback(urlsplit(url).hostname or "")


def _path(url: str) -> str:
    return urlsplit(url).path or "/"
