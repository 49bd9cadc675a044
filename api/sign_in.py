"""How callers sign in, as configured, and the means for it: providers of tokens, and rate limits.

The libraries for both are imported where they are configured only: they take half a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from api.oidc.issuer import OidcIssuer
from api.rate_limits.limit import RateLimit

if TYPE_CHECKING:
    from api.oidc.sign_in import OidcSignIn
    from api.rate_limits.limiter import RateLimiter

REQUESTS_POLICY: Final = "principal"
FAILURES_POLICY: Final = "sign-in-failures"


class SignInSettings(NamedTuple):
    """`requests`: of each principal. `failures`: failed sign-ins of each address. None: no limit."""

    issuers: tuple[OidcIssuer, ...] = ()
    requests: RateLimit | None = None
    failures: RateLimit | None = None


SIGN_IN_SETTINGS: Final = SignInSettings()


class SignInMeans(NamedTuple):
    """The means of the gate, made from the settings. None: not configured."""

    oidc: OidcSignIn | None = None
    requests: RateLimiter | None = None
    failures: RateLimiter | None = None


NO_MEANS: Final = SignInMeans()


def make_means(settings: SignInSettings) -> SignInMeans:
    """Raises `BadInput` for issuers that cannot be told apart."""
    return SignInMeans(
        _oidc(settings.issuers),
        _limiter(REQUESTS_POLICY, settings.requests),
        _limiter(FAILURES_POLICY, settings.failures),
    )


def _oidc(issuers: tuple[OidcIssuer, ...]) -> OidcSignIn | None:
    if not issuers:
        return None
    from api.oidc.sign_in import OidcSignIn

    return OidcSignIn(issuers)


def _limiter(policy: str, limit: RateLimit | None) -> RateLimiter | None:
    if limit is None:
        return None
    from api.rate_limits.limiter import RateLimiter

    return RateLimiter(policy, limit)
