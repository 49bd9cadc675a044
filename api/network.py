"""Where the server listens, with which certificate, under which host names, and behind which proxies.

Without sign-in it is for this machine only: a loopback address, and loopback names in the Host field, because a web
page could let its own name resolve to 127.0.0.1. On any other address callers sign in, over TLS: the server's own, or
that of a proxy which it trusts. Each wrong combination is refused before the server listens.
Proved by tests/api/test_network.py.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

from api.certificates import certificate
from api.http.forwarded import Network, TrustedProxies
from api.http.middleware import LOOPBACK_NAMES
from ledger.errors import BadInput

HOST: Final = "127.0.0.1"


class NetworkSettings(NamedTuple):
    """`public_url`: as callers write it. `allowed_hosts`: further names of the Host field. `trusted_proxies`: addresses
    and networks whose `forwarded_header` is believed. `signs_in`: whether callers must sign in."""

    host: str = HOST
    tls_cert: Path | None = None
    tls_key: Path | None = None
    public_url: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    forwarded_header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for"
    signs_in: bool = True


class Listening(NamedTuple):
    """The settings, checked. `is_loopback`: whether only this machine reaches it. `hosts`: the names that the Host
    field may hold, in lower case and without a port. `is_https`: whether callers reach it by TLS.
    `public_name`: the host name of the public URL."""

    address: str
    is_loopback: bool
    tls: tuple[Path, Path] | None
    hosts: frozenset[str]
    proxies: TrustedProxies
    is_https: bool
    public_name: str | None

    def url(self, port: int) -> str:
        return f"{'http' if self.tls is None else 'https'}://{as_host(self.address)}:{port}"


def plan(settings: NetworkSettings) -> Listening:
    """Raises `BadInput` if the settings contradict each other or a file cannot be used."""
    address, is_loopback = _address(settings.host)
    tls = certificate(settings.tls_cert, settings.tls_key)
    public = None if settings.public_url is None else public_host(settings.public_url)
    proxies = TrustedProxies(networks(settings.trusted_proxies), settings.forwarded_header)
    if not settings.signs_in:
        _require_local(settings, is_loopback)
    elif not is_loopback:
        if public is None:
            raise BadInput(
                f"--host {settings.host} is not of this machine alone, so --public-url must say how callers write this "
                "server's address, such as https://inforce.example.com"
            )
        if tls is None and not settings.trusted_proxies:
            raise BadInput(
                f"--host {settings.host} is not of this machine alone, so it needs TLS: give --tls-cert and --tls-key, "
                "or --trusted-proxies with the addresses of a proxy that does TLS"
            )
    is_https = tls is not None or public is not None
    if public is not None and urlsplit(settings.public_url or "").scheme == "http":
        if tls is not None or not is_loopback:
            raise BadInput("--public-url begins with http://, but callers reach this server by TLS; write https://")
        is_https = False
    # A wildcard address is no name that a caller writes.
    own = set() if ipaddress.ip_address(address).is_unspecified else {as_host(address)}
    names = {public.lower()} if public is not None else set()
    hosts = LOOPBACK_NAMES | own | names | {_bare_host(name) for name in settings.allowed_hosts}
    return Listening(address, is_loopback, tls, frozenset(hosts), proxies, is_https, public)


def _require_local(settings: NetworkSettings, is_loopback: bool) -> None:
    if not is_loopback:
        raise BadInput(
            "without authentication the server listens on this machine only: localhost, 127.0.0.1 or ::1; "
            f"--host {settings.host} needs callers that sign in"
        )
    for option, value in (
        ("--public-url", settings.public_url),
        ("--allowed-hosts", settings.allowed_hosts),
        ("--trusted-proxies", settings.trusted_proxies),
    ):
        if value:
            raise BadInput(f"without authentication the server is for this machine only; leave {option} out")


def _address(host: str) -> tuple[str, bool]:
    """(the IP address of `host`, whether it is of this machine alone). Raises `BadInput`."""
    if host == "localhost":
        return HOST, True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise BadInput(
            f"--host takes an IP address of this machine or localhost, and {host or 'an empty text'} is neither"
        ) from None
    return str(address), address.is_loopback and not getattr(address, "ipv4_mapped", None)


def as_host(address: str) -> str:
    """The address as a URL and the Host field contain it."""
    return f"[{address}]" if ":" in address else address


def public_host(url: str) -> str:
    """The host name of a URL without a path. Raises `BadInput`."""
    wrong = f"--public-url {url} is not of the form https://inforce.example.com, with a port where it has one"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadInput(wrong) from None
    host = parts.hostname
    extra = parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None or port == 0
    if parts.scheme not in ("https", "http") or not host or extra:
        raise BadInput(wrong)
    return as_host(host)


def _bare_host(name: str) -> str:
    host = public_host(f"https://{name}") if name and not set("/@?#") & set(name) else None
    if host is None or urlsplit(f"https://{name}").port is not None:
        raise BadInput(f"--allowed-hosts takes names or addresses without a port, and {name} is none")
    return host.lower()


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Raises `BadInput`."""
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as error:
        raise BadInput(
            f"--trusted-proxies takes addresses and networks such as 10.0.0.7,10.1.0.0/16: {error}"
        ) from None
