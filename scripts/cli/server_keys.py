"""The keys of the configuration as the server's own settings, for `serve` and `doctor`."""

from __future__ import annotations

from api.network import NetworkSettings
from api.rate_limits.limit import parse_limit
from api.sign_in import SignInSettings
from scripts.cli.configuration import Configuration


def network_settings(keys: Configuration) -> NetworkSettings:
    return NetworkSettings(
        *(keys.host, keys.tls_cert, keys.tls_key, keys.public_url, keys.allowed_hosts),
        *(keys.trusted_proxies, keys.forwarded_header, keys.auth),
    )


def sign_in_settings(keys: Configuration) -> SignInSettings:
    return SignInSettings(keys.oidc, parse_limit(keys.rate_limit), parse_limit(keys.sign_in_failures_max))
