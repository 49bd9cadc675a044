"""The keys of the configuration as the server's own settings, for `serve` and `doctor`."""

from __future__ import annotations

from api.network import NetworkSettings
from scripts.cli.configuration import Configuration


def network_settings(keys: Configuration) -> NetworkSettings:
    return NetworkSettings(
        *(keys.host, keys.tls_cert, keys.tls_key, keys.public_url, keys.allowed_hosts),
        *(keys.trusted_proxies, keys.forwarded_header, keys.auth),
    )
