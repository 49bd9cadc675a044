"""The check of `inforce doctor` that asks the OpenID Connect providers for their keys."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from api.sign_in import SignInSettings, make_means
from ledger.errors import BadInput
from scripts.doctor.findings import Finding

if TYPE_CHECKING:
    from api.oidc.provider import ProviderStatus
    from api.oidc.sign_in import OidcSignIn

_ADVICE: Final = (
    "Its tokens sign nobody in. See that this machine reaches it (HTTPS_PROXY, certificates), and that issuer and "
    "jwks_url of its table are right"
)


def providers(settings: SignInSettings) -> Iterator[Finding]:
    """One finding for each configured provider."""
    try:
        means = make_means(settings._replace(requests=None, failures=None))
    except BadInput as error:
        yield Finding("oidc", "failed", error.detail, "Correct this: inforce serve would not start")
        return
    if means.oidc is None:
        return
    for status in asyncio.run(_ask(means.oidc)):
        if status.fault is None:
            keys = "a key" if status.keys == 1 else f"{status.keys} keys"
            yield Finding("oidc", "ok", f"provider {status.alias}: it publishes {keys} for the algorithms of its table")
        else:
            yield Finding("oidc", "failed", f"provider {status.alias}: {status.fault}", _ADVICE)


async def _ask(oidc: OidcSignIn) -> list[ProviderStatus]:
    try:
        return await oidc.fetch_keys()
    finally:
        await oidc.close()
